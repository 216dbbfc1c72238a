import math
import re
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from qaserve.common.errors import EncoderError
from qaserve.encoders.sentence_transformer import SentenceEncoder
from qaserve.settings import EncoderSettings
from train.importance.mlm_head import fit_head
from train.importance.uncertainty import dropout_spread, embedding_norms, token_entropy

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [f"w{number}" for number in range(24)]
VOCABULARY = 32
TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10 w11", "w1 w2 w3 w4"]
PATTERNS = [" ".join([word] * count) for word in WORDS for count in range(4, 12)]
"""A missing word stands elsewhere in the text: context tells more than frequency."""


@pytest.fixture
def make_tiny(tmp_path):
    """A tiny encoder of a real architecture, its files with or without the masked-language-model head."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast, NomicBertConfig, NomicBertForMaskedLM

    def make(kind="bert", head=True, dropout=0.1, drop=None):
        raw, folder = tmp_path / f"raw-{kind}", tmp_path / f"{kind}-{head}-{dropout}"
        raw.mkdir()
        (raw / "vocab.txt").write_text("\n".join(SPECIAL + WORDS))
        config, architecture = {
            "bert": (BertConfig, BertForMaskedLM),
            "nomic": (NomicBertConfig, NomicBertForMaskedLM),
        }[kind]
        torch.manual_seed(0)
        model = architecture(
            config(
                vocab_size=VOCABULARY,
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=32,
                initializer_range=0.5,
                max_position_embeddings=64,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
            )
        )
        if drop is not None:
            state = {key: value for key, value in model.state_dict().items() if not re.search(drop, key)}
        model.save_pretrained(raw, **({"state_dict": state} if drop is not None else {}))
        BertTokenizerFast(vocab=str(raw / "vocab.txt")).save_pretrained(raw)
        modules = [Transformer(str(raw), max_seq_length=32), Pooling(16), Normalize()]
        SentenceTransformer(modules=modules).save(str(folder))
        if head:  # what SentenceTransformer saves has no head
            for name in ("model.safetensors", "config.json"):
                shutil.copy(raw / name, folder / name)
        shutil.rmtree(raw)
        return SentenceEncoder(EncoderSettings(encoder=str(folder)), "unused"), model.eval()

    return make


@pytest.fixture(scope="module")
def minilm():
    return SentenceEncoder(EncoderSettings(), "unused")


def modes(encoder):
    with encoder.borrowed() as loaded:
        return {module.training for module in loaded.model.modules()}


def test_norms_are_those_of_the_vectors_before_they_are_made_unit(make_tiny):
    encoder, _ = make_tiny()
    told = []
    norms = embedding_norms(encoder, TEXTS, told.append)
    with encoder.borrowed() as loaded:
        del loaded.model[2]
        expected = np.linalg.norm(loaded.model.encode(TEXTS), axis=1)
    assert norms.dtype == np.float64
    assert sum(told) == len(TEXTS)
    np.testing.assert_allclose(norms, expected, rtol=1e-5)
    assert np.ptp(norms) > 1e-3
    assert embedding_norms(encoder, []).shape == (0,)


@pytest.mark.parametrize("measure", [embedding_norms, dropout_spread])
def test_vectors_are_of_questions_with_their_prompt_at_the_encoders_dimension(make_tiny, measure, monkeypatch):
    asked, told = [], []

    def raw(model, batch, prompt, dimension):
        asked.append((model, batch, prompt, dimension))
        return np.array([[3.0, 4.0]] * len(batch))

    monkeypatch.setattr("train.importance.uncertainty._raw", raw)
    encoder, _ = make_tiny()
    with encoder.borrowed() as loaded:
        model = loaded.model
    identity = SimpleNamespace(id="tiny", question_prompt="query: ", dimension=2)
    fake = SimpleNamespace(identity=identity, borrowed=lambda: nullcontext(loaded))
    passes = 8 if measure is dropout_spread else 1
    expected = 0 if measure is dropout_spread else 5
    np.testing.assert_allclose(measure(fake, ["a", "b"], advance=told.append), [expected, expected], atol=1e-12)
    assert asked == [(model, ["a", "b"], "query: ", 2)] * passes
    assert told == [2]


def test_the_spread_is_one_minus_the_squared_length_of_the_mean(make_tiny, monkeypatch):
    encoder, _ = make_tiny()
    vectors = np.random.default_rng(0).normal(size=(3, 4, 16))
    passes = iter(vectors)
    monkeypatch.setattr("train.importance.uncertainty._raw", lambda *_: next(passes))
    found = dropout_spread(encoder, ["same size"] * 4, passes=3)
    unit = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    np.testing.assert_allclose(found, 1 - np.linalg.norm(unit.mean(axis=0), axis=1) ** 2, atol=1e-12)


@pytest.mark.parametrize("kind", ["bert", "nomic"])
def test_dropout_is_on_only_while_it_is_measured(make_tiny, kind):
    encoder, _ = make_tiny(kind, head=False)
    before = encoder.encode_questions(TEXTS)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = dropout_spread(encoder, TEXTS, seed=3)
    np.testing.assert_array_equal(dropout_spread(encoder, TEXTS), dropout_spread(encoder, TEXTS, seed=0))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert modes(encoder) == {False}
    assert (first > 0).all()
    assert (first < 1).all()
    np.testing.assert_array_equal(dropout_spread(encoder, TEXTS, seed=3), first)
    assert np.abs(dropout_spread(encoder, TEXTS, seed=4) - first).max() > 0
    np.testing.assert_array_equal(encoder.encode_questions(TEXTS), before)


@pytest.mark.parametrize("kind", ["bert", "nomic"])
def test_attention_drops_too(make_tiny, kind):
    from train.importance.uncertainty import _dropout_on

    encoder, _ = make_tiny(kind, head=False)
    with encoder.borrowed() as loaded, _dropout_on(loaded.model, "x"):
        on = {type(module).__name__ for module in loaded.model.modules() if module.training}
    assert on >= {"Dropout", {"bert": "BertSelfAttention", "nomic": "NomicBertAttention"}[kind]}


def test_a_failing_pass_leaves_the_encoder_as_it_was(make_tiny, monkeypatch):
    encoder, _ = make_tiny()
    encoder.load()
    torch.manual_seed(5)
    state = torch.random.get_rng_state()

    def fail(*_):
        torch.rand(3)
        raise RuntimeError("out of memory")

    monkeypatch.setattr("train.importance.uncertainty._raw", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        dropout_spread(encoder, TEXTS)
    assert modes(encoder) == {False}
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_model_without_dropout_is_refused(make_tiny):
    encoder, _ = make_tiny("nomic", dropout=0.0)
    with pytest.raises(
        EncoderError, match=f"encoder {encoder.identity.id} has no dropout: all its dropout probabilities are 0"
    ):
        dropout_spread(encoder, TEXTS)
    assert (dropout_spread(make_tiny()[0], TEXTS, passes=2) > 0).all()
    with pytest.raises(ValueError, match="passes is 1; a spread needs at least 2"):
        dropout_spread(encoder, TEXTS, passes=1)


@pytest.mark.parametrize("kind", ["bert", "nomic"])
def test_entropy_of_the_own_head_is_that_of_its_logits_at_the_unmasked_text(make_tiny, kind):
    encoder, model = make_tiny(kind)
    told = []
    found = token_entropy(encoder, TEXTS, own_head_only=True, advance=told.append)
    assert (found.head, found.perplexity, found.baseline_perplexity) == ("own", None, None)
    assert found.values.dtype == np.float64
    assert sum(told) == len(TEXTS)
    for text, value in zip(TEXTS, found.values, strict=True):
        ids = [2, *map((SPECIAL + WORDS).index, text.split()), 3]
        with torch.no_grad():
            p = torch.softmax(model(input_ids=torch.tensor([ids])).logits[0, 1:-1].double(), dim=-1)
        assert value == pytest.approx(float(-(p * p.log()).sum(dim=-1).mean()), rel=1e-4)
    assert (found.values < math.log(VOCABULARY)).all()


def test_batches_and_pieces_change_nothing(make_tiny, monkeypatch):
    encoder, _ = make_tiny()
    whole = token_entropy(encoder, TEXTS).values
    monkeypatch.setattr("train.importance.uncertainty.LOGITS_AT_ONCE", 1)
    monkeypatch.setattr("train.importance.uncertainty.ENTROPIES_AT_ONCE", 2)
    np.testing.assert_allclose(token_entropy(encoder, TEXTS).values, whole, rtol=1e-5)


def test_a_text_without_tokens_counts_as_the_mean(make_tiny):
    encoder, _ = make_tiny()
    values = token_entropy(encoder, ["w1 w2", "\u200b", "w3"]).values
    assert values[1] == pytest.approx((values[0] + values[2]) / 2)
    np.testing.assert_array_equal(token_entropy(encoder, ["\u200b"]).values, [0])
    np.testing.assert_allclose(token_entropy(encoder, ["w1 w2", "\u200b"]).values, values[:1].repeat(2), rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "nomic"])
@pytest.mark.parametrize("drop", [None, "transform.dense", "(predictions|decoder).bias"])
def test_a_head_that_is_missing_or_not_whole_is_no_head(make_tiny, kind, drop):
    encoder, _ = make_tiny(kind, head=drop is not None, drop=drop)
    encoder.load()
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    with pytest.raises(EncoderError, match=r"encoder \S+ has no masked-language-model head") as refused:
        token_entropy(encoder, TEXTS, own_head_only=True)
    assert "own_head_only" in refused.value.hint
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_fitted_head_learns_what_context_tells_and_leaves_the_encoder_alone(make_tiny, monkeypatch):
    encoder, _ = make_tiny(head=False)
    before = encoder.encode_questions(TEXTS)
    monkeypatch.setattr("train.importance.mlm_head.LEARNING_RATE", 0.02)
    monkeypatch.setattr("train.importance.mlm_head.POSITIONS", 16)
    told = []
    head = fit_head(encoder, PATTERNS, seed=1, epochs=3, advance=told.append)
    held = len(PATTERNS) // 10
    assert sum(told) == 3 * (len(PATTERNS) - held) + held
    assert held * 4 <= head.held_out_tokens <= held * 11
    assert head.perplexity < 0.75 * head.baseline_perplexity
    assert 22 < head.baseline_perplexity < 29  # 24 words, all about as frequent
    np.testing.assert_array_equal(encoder.encode_questions(TEXTS), before)
    found = token_entropy(encoder, TEXTS, head=head)
    assert (found.head, found.perplexity) == ("fitted", head.perplexity)
    assert found.values.shape == (4,)
    assert ((found.values > 0) & (found.values < math.log(VOCABULARY))).all()


def test_fitting_repeats_for_a_seed_and_spares_the_global_random_state(make_tiny):
    encoder, _ = make_tiny("nomic", head=False)
    encoder.load()
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = token_entropy(encoder, PATTERNS[:40], seed=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    again, other = token_entropy(encoder, PATTERNS[:40], seed=2), token_entropy(encoder, PATTERNS[:40], seed=3)
    np.testing.assert_array_equal(first.values, again.values)
    assert first.perplexity == again.perplexity
    assert np.abs(first.values - other.values).max() > 0


def test_eighty_ten_ten_of_fifteen_percent(make_tiny):
    from train.importance.mlm_head import _corrupted, _frame, _masked_once

    encoder, _ = make_tiny()
    with encoder.borrowed() as loaded:
        frame = _frame(loaded, "tiny")
    ids, rng = np.full((400, 500), 7), np.random.default_rng(0)
    text = np.ones(ids.shape, dtype=bool)
    text[:, 0] = False
    corrupted, chosen = _corrupted(frame, ids, text, rng)
    assert not chosen[:, 0].any()
    np.testing.assert_array_equal(corrupted[~chosen], 7)
    assert chosen.mean() == pytest.approx(0.15, abs=0.005)
    assert (corrupted[chosen] == 4).mean() == pytest.approx(0.8 + 0.1 / VOCABULARY, abs=0.01)
    assert (corrupted[chosen] == 7).mean() == pytest.approx(0.1 + 0.1 / VOCABULARY, abs=0.01)
    rounds = _masked_once(frame, ids, text, rng)
    np.testing.assert_array_equal(sum(here.astype(int) for _, here in rounds), text)
    assert all((copy[here] == 4).all() and (copy[~here] == 7).all() for copy, here in rounds)


def test_too_few_texts_or_no_mask_token_are_refused(make_tiny):
    encoder, _ = make_tiny(head=False)
    with pytest.raises(ValueError, match="1 distinct texts are too few"):
        fit_head(encoder, ["w1", "W1!", " w1"] * 10)
    with encoder.borrowed() as loaded:
        loaded.model.tokenizer.mask_token = None
    with pytest.raises(EncoderError, match="it has no mask token") as refused:
        token_entropy(encoder, PATTERNS)
    assert "encoder" in refused.value.hint


def test_minilm_has_dropout_and_norms_but_no_head(minilm):
    texts = ["How do I compile a predicate to Go?", "bash", "What is the transitive closure of a binary relation?"]
    norms, spread = embedding_norms(minilm, texts), dropout_spread(minilm, texts, passes=4)
    assert ((norms > 1) & (norms < 20)).all()
    assert ((spread > 0.001) & (spread < 0.5)).all()
    np.testing.assert_array_equal(dropout_spread(minilm, texts, passes=4), spread)
    with pytest.raises(EncoderError, match="encoder minilm has no masked-language-model head"):
        token_entropy(minilm, texts, own_head_only=True)


def test_minilm_borrowed_gives_its_folder(minilm):
    with minilm.borrowed() as loaded:
        assert (Path(loaded.folder) / "model.safetensors").is_file()
        assert not loaded.model.training
