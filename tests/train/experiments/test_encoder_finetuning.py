import socket
import sys

import numpy as np
import pytest

from qaserve.common.errors import EncoderError, UsageError
from train.experiments.encoder_finetuning import fine_tune, steps

WORDS = [f"w{number}" for number in range(20)]
QUESTIONS = [f"ask {word}" for word in WORDS]
ANSWERS = [f"tell {word}" for word in WORDS]
PACKAGES = ["accelerate", "datasets"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A BERT of one layer and random weights, saved as a sentence-transformers model."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    raw = folder / "raw"
    raw.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ask", "tell", *WORDS]
    (raw / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(raw)
    BertTokenizerFast(vocab=str(raw / "vocab.txt")).save_pretrained(raw)
    transformer = Transformer(str(raw), max_seq_length=32)
    SentenceTransformer(modules=[transformer, Pooling(16)]).save(str(folder / "model"))
    return str(folder / "model")


@pytest.fixture(scope="module")
def tuned(tiny):
    for name in PACKAGES:
        pytest.importorskip(name, reason="the extra `bench` is not installed")
    return fine_tune(tiny, QUESTIONS, ANSWERS, epochs=2, batch=10, learning_rate=1e-2, seed=0)


def nearness(encode):
    """Mean cosine of a question to its own answer, less that to the others."""
    cosines = encode(QUESTIONS) @ encode(ANSWERS).T
    own = np.eye(len(WORDS), dtype=bool)
    return cosines[own].mean() - cosines[~own].mean()


def test_questions_get_nearer_to_their_own_answers(tuned, tiny):
    from sentence_transformers import SentenceTransformer

    before = SentenceTransformer(tiny, device="cpu")
    assert len(tuned.losses) == 2
    assert tuned.losses[1] < tuned.losses[0]
    assert nearness(tuned.encode) > nearness(lambda texts: before.encode(texts, normalize_embeddings=True)) + 0.05
    assert tuned.wall_seconds > 0
    assert tuned.cpu_seconds > 0
    assert not tuned.model.training


def test_vectors_are_unit_and_in_order(tuned):
    texts = ["tell w3", "ask w1 w2 w3 w4 w5", "ask"]
    vectors = tuned.encode(texts)
    assert vectors.shape == (3, 16)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(tuned.encode([text])[0], vector, atol=1e-5)
    assert tuned.encode([]).shape == (0, 16)


def test_the_seed_decides(tuned, tiny):
    again, other = (
        fine_tune(tiny, QUESTIONS, ANSWERS, epochs=2, batch=10, learning_rate=1e-2, seed=seed) for seed in (0, 1)
    )
    np.testing.assert_array_equal(again.encode(QUESTIONS), tuned.encode(QUESTIONS))
    assert again.losses == tuned.losses
    assert other.losses != tuned.losses


def test_every_step_is_told_and_nothing_printed_kept_or_asked_for(tuned, tiny, capfd, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)
    before, done = sorted(tmp_path.iterdir()), []
    fine_tune(tiny, QUESTIONS[:15], ANSWERS[:15], epochs=2, batch=10, seed=0, advance=done.append)
    assert done == [1] * steps(15, epochs=2, batch=10) == [1] * 4
    assert sorted(tmp_path.iterdir()) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("mode", [True, False])
def test_the_gradient_mode_is_left_as_it_was(tuned, tiny, mode):
    import torch

    before = torch.is_grad_enabled()
    torch.set_grad_enabled(mode)
    try:
        found = fine_tune(tiny, QUESTIONS, ANSWERS, epochs=1, batch=10, learning_rate=1e-2, seed=0)
        assert torch.is_grad_enabled() is mode
    finally:
        torch.set_grad_enabled(before)
    assert np.abs(found.encode(QUESTIONS) - tuned.encode(QUESTIONS)).max() > 1e-3


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_names_the_extra(tuned, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=f"package that is not installed: {name}") as missing:
        fine_tune("unused", QUESTIONS, ANSWERS, seed=0)
    assert missing.value.hint == "pip install 'qaserve[bench]'"


@pytest.mark.parametrize(("questions", "answers"), [(3, 2), (1, 1), (0, 0)])
def test_pairs_that_cannot_be_trained_on_are_refused(questions, answers):
    with pytest.raises(UsageError, match=f"{questions} questions and {answers} answers cannot be fine-tuned on"):
        fine_tune("unused", QUESTIONS[:questions], ANSWERS[:answers], seed=0)


def test_a_folder_without_a_model_is_refused(tuned, tmp_path):
    with pytest.raises(EncoderError, match="cannot be loaded"):
        fine_tune(str(tmp_path), QUESTIONS, ANSWERS, seed=0)
