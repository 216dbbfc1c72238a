"""A masked-language-model head for an encoder that comes without one, fitted to the frozen encoder.

The head is BERT's (Devlin et al. 2019): dense + GELU + LayerNorm + decoder, the decoder's weights tied to the encoder's
word embeddings and frozen with them; dense, LayerNorm and the decoder's bias are fitted. The task is BERT's too: 15% of
the tokens are drawn again in every epoch, 80% of them masked, 10% replaced by a random token, 10% left.

What was learned is measured on held-out texts and compared with a unigram model's perplexity on the same tokens.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qaserve.common.errors import EncoderError
from qaserve.common.progress import Advance
from qaserve.common.text import fold
from qaserve.core.routing import Floats
from qaserve.encoders.sentence_transformer import LoadedModel, SentenceEncoder

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

BATCH = 64
"""Texts in one forward pass of the encoder."""
POSITIONS = 64
"""Masked tokens in one step of the optimiser, and in one evaluation: 8 MB of logits at a vocabulary of 30,522."""
EPOCHS = 8
"""On two cores 50 s for the 1,888 questions of the first corpus, to a held-out perplexity of 81 (unigram: 264); four
epochs take half as long, to 104."""
READINGS = 2
"""How often an epoch's states are read: the encoder's pass costs several times the head's."""
FIT_TOKENS = 64
"""A text is cut to this many tokens when a head is fitted."""
MASKED = 0.15
HELD_OUT = 10
"""One text in this many is held out."""
FOLDS = 7
"""Held-out texts are read this many times, each time with another seventh (about `MASKED`) of their tokens masked."""
LEARNING_RATE = 2e-3
FIRST_SCALE = 0.3
"""LayerNorm's first weights. At the usual 1 an untrained head's logits drown the bias that it starts from (held-out
perplexity 569 at the start and 168 after four readings on the first corpus; from 0.3, all else equal, 303 and 147)."""
SMOOTHING = 0.01
"""Added to every count of the unigram model. Of 1, 0.3, … 0.003 it gave the baseline its best held-out perplexity on
the first corpus; 1 would have doubled it, and made any head look good."""


class Batch(NamedTuple):
    """Tokenised texts."""

    inputs: "dict[str, torch.Tensor]"
    """What the model takes, each (b, s)."""
    is_text: "torch.Tensor"
    """(b, s) bool: neither padding nor a special token."""


@dataclass(frozen=True)
class FittedHead:
    """A head over a frozen encoder, and what it learned."""

    encoder: "torch.nn.Module"
    module: "torch.nn.Module"
    """(…, D) hidden states → (…, V) logits."""
    perplexity: float
    """exp of the mean cross-entropy on the masked tokens of the held-out texts, each token masked once."""
    baseline_perplexity: float
    """Of the fitting texts' unigram distribution on the same tokens."""
    held_out_tokens: int
    """How many these are."""

    def logits(self, inputs: "dict[str, torch.Tensor]") -> "torch.Tensor":
        """Inputs (b, s) → logits (b, s, V), float32."""
        return self.module(_states(self.encoder, inputs))  # type: ignore[no-any-return]


class Frame(NamedTuple):
    """What a head is fitted on."""

    loaded: LoadedModel
    encoder: "torch.nn.Module"
    embeddings: "torch.Tensor"
    """(V, D) float32, the encoder's own word embeddings."""
    mask: int
    """The mask token."""


def fit_head(
    encoder: SentenceEncoder,
    texts: Sequence[str],
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    advance: Advance | None = None,
) -> FittedHead:
    """Fit a head to the texts by masked-language modelling; the encoder stays as it is.

    Texts equal but for case, punctuation and spacing count once, so that none is on both sides; near-repeats may be,
    which flatters the head and the baseline alike. The same seed gives the same head on the same CPU.

    Args:
        encoder: Whose model. Encoding with it waits until the fit is done.
        texts: At least 10 distinct ones; cut to 64 tokens.
        seed: Of the split, the masks and the first weights.
        epochs: Passes over the texts, each with masks of its own.
        advance: Told the number of texts of each batch done: epochs × the fitted texts, then the held-out ones.

    Raises:
        EncoderError: The encoder cannot be loaded, or cannot carry such a head.
        ValueError: Too few distinct texts.
    """
    with encoder.borrowed() as loaded:
        return fit(loaded, encoder.identity.id, texts, seed=seed, epochs=epochs, advance=advance)


def fit(
    loaded: LoadedModel,
    name: str,
    texts: Sequence[str],
    *,
    seed: int,
    epochs: int = EPOCHS,
    advance: Advance | None = None,
) -> FittedHead:
    """As `fit_head`, for an encoder that is borrowed already; `name` is for messages."""
    import torch  # noqa: PLC0415 - seconds to import; only where a model runs

    frame = _frame(loaded, name)
    rng = np.random.default_rng(seed)
    train, held = _split(texts, rng)
    unigram = _unigram(frame, train)
    with seeded(loaded.model, seed), torch.enable_grad():
        module = _new_head(frame.embeddings, unigram)
        _optimise(frame, module, train, rng, epochs, advance)
    model_loss, unigram_loss, count = _held_out(frame, module, unigram, held, rng, advance)
    return FittedHead(frame.encoder, module, math.exp(model_loss), math.exp(unigram_loss), count)


def batches(texts: Sequence[str], advance: Advance | None) -> Iterator[tuple[NDArray[np.intp], list[str]]]:
    """Batches of texts, longest first, with their (b,) rows; `advance` is told of each when the next is asked for."""
    order = np.argsort([-len(text) for text in texts], kind="stable")
    for start in range(0, len(texts), BATCH):
        chosen = order[start : start + BATCH]
        yield chosen, [texts[row] for row in chosen]
        if advance is not None:
            advance(len(chosen))


def tokenized(model: "SentenceTransformer", texts: list[str], limit: int | None = None) -> Batch:
    """The texts as the model reads them, without a prompt, cut to its maximum length or to `limit` tokens."""
    tokenizer = model.tokenizer
    longest = min(model.max_seq_length or tokenizer.model_max_length, limit or tokenizer.model_max_length)
    encoded = tokenizer(
        texts,
        padding=True,
        truncation=True,
        max_length=longest,
        return_attention_mask=True,
        return_special_tokens_mask=True,
        return_tensors="pt",
    )
    special = encoded.pop("special_tokens_mask").to(model.device)
    inputs = {name: values.to(model.device) for name, values in encoded.items()}
    return Batch(inputs, (special == 0) & (inputs["attention_mask"] == 1))


@contextmanager
def seeded(model: "SentenceTransformer", seed: int) -> Iterator[None]:
    """Torch's random numbers from the seed; the global state is as before afterwards, also after an error."""
    import torch  # noqa: PLC0415

    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _frame(loaded: LoadedModel, name: str) -> Frame:
    inner = getattr(loaded.model[0], "auto_model", None)
    mask = getattr(loaded.model.tokenizer, "mask_token_id", None)
    if inner is None or mask is None:
        what = "no transformer" if inner is None else "no mask token"
        raise EncoderError(
            f"no masked-language-model head can be fitted to encoder {name}: it has {what}",
            hint="Use another measure of uncertainty, or an encoder of the BERT family (minilm, mpnet, nomic).",
        )
    embeddings = inner.get_input_embeddings().weight.detach().float()
    if embeddings.shape[1] != inner.config.hidden_size:
        raise EncoderError(
            f"no masked-language-model head can be fitted to encoder {name}: its word embeddings have "
            f"{embeddings.shape[1]} dimensions, its hidden states {inner.config.hidden_size}",
            hint="Use another measure of uncertainty, or an encoder of the BERT family (minilm, mpnet, nomic).",
        )
    return Frame(loaded, inner, embeddings, int(mask))


def _split(texts: Sequence[str], rng: np.random.Generator) -> tuple[list[str], list[str]]:
    distinct = list({fold(text): text for text in texts}.values())
    if len(distinct) < HELD_OUT:
        raise ValueError(f"{len(distinct)} distinct texts are too few to fit a head and hold some out; give {HELD_OUT}")
    shuffled = [distinct[row] for row in rng.permutation(len(distinct))]
    count = len(distinct) // HELD_OUT
    return shuffled[count:], shuffled[:count]


def _unigram(frame: Frame, texts: list[str]) -> Floats:
    """(V,) log-probabilities from the texts' token counts, smoothed."""
    counts = np.full(len(frame.embeddings), SMOOTHING)
    for _, batch in batches(texts, None):
        tokens = tokenized(frame.loaded.model, batch, FIT_TOKENS)
        np.add.at(counts, tokens.inputs["input_ids"][tokens.is_text].cpu().numpy(), 1)
    return np.asarray(np.log(counts / counts.sum()))


def _new_head(embeddings: "torch.Tensor", unigram: Floats) -> "torch.nn.Module":
    """Untrained, but for its bias: it starts from the unigram model and has only to learn what context adds."""
    import torch  # noqa: PLC0415

    vocabulary, dimension = embeddings.shape
    decoder = torch.nn.Linear(dimension, vocabulary, device="meta")
    decoder.weight = torch.nn.Parameter(embeddings, requires_grad=False)
    decoder.bias = torch.nn.Parameter(torch.tensor(unigram, dtype=torch.float32, device=embeddings.device))
    dense = torch.nn.Linear(dimension, dimension, device=embeddings.device)
    norm = torch.nn.LayerNorm(dimension, device=embeddings.device)
    torch.nn.init.constant_(norm.weight, FIRST_SCALE)
    return torch.nn.Sequential(dense, torch.nn.GELU(), norm, decoder)


def _optimise(
    frame: Frame,
    module: "torch.nn.Module",
    texts: list[str],
    rng: np.random.Generator,
    epochs: int,
    advance: Advance | None,
) -> None:
    """AdamW, its learning rate falling linearly to zero."""
    import torch  # noqa: PLC0415

    optimiser = torch.optim.AdamW([part for part in module.parameters() if part.requires_grad], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, epochs * READINGS)
    for _ in range(epochs):
        states, targets = _collect(frame, texts, lambda ids, text: [_corrupted(frame, ids, text, rng)], advance)
        for _ in range(READINGS):
            for rows in torch.split(torch.from_numpy(rng.permutation(len(targets))), POSITIONS):
                loss = torch.nn.functional.cross_entropy(module(states[rows]), targets[rows])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            schedule.step()
    module.eval().requires_grad_(False)


def _corrupted(frame: Frame, ids: Any, text: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """BERT's 80/10/10: (b, s) corrupted ids, (b, s) which positions were chosen."""
    chosen = text & (rng.random(ids.shape) < MASKED)
    fate = rng.random(ids.shape)
    other = rng.integers(0, len(frame.embeddings), ids.shape)
    return np.select([chosen & (fate < 0.8), chosen & (fate < 0.9)], [frame.mask, other], ids), chosen


def _masked_once(frame: Frame, ids: Any, text: Any, rng: np.random.Generator) -> list[tuple[Any, Any]]:
    """Every token masked in exactly one of `FOLDS` copies: masks only, as a token left in sight is easily named."""
    fold_of = rng.integers(0, FOLDS, ids.shape)
    chosen = [text & (fold_of == number) for number in range(FOLDS)]
    return [(np.where(here, frame.mask, ids), here) for here in chosen]


def _collect(
    frame: Frame, texts: list[str], corrupt: Callable[[Any, Any], list[tuple[Any, Any]]], advance: Advance | None
) -> "tuple[torch.Tensor, torch.Tensor]":
    """The frozen encoder's (t, D) states at the chosen positions of the corrupted texts, and (t,) the true tokens."""
    import torch  # noqa: PLC0415

    states, targets = [], []
    for _, batch in batches(texts, advance):
        inputs, is_text = tokenized(frame.loaded.model, batch, FIT_TOKENS)
        true = inputs["input_ids"]
        for ids, chosen in corrupt(true.cpu().numpy(), is_text.cpu().numpy()):
            where = torch.from_numpy(chosen).to(true.device)
            found = _states(frame.encoder, {**inputs, "input_ids": torch.from_numpy(ids).to(true.device)})
            states.append(found[where])
            targets.append(true[where])
    return torch.cat(states), torch.cat(targets)


def _states(encoder: "torch.nn.Module", inputs: "dict[str, torch.Tensor]") -> "torch.Tensor":
    """(b, s, D) float32 last hidden states."""
    import torch  # noqa: PLC0415

    with torch.no_grad():
        return encoder(**inputs).last_hidden_state.float()  # type: ignore[no-any-return]


def _held_out(
    frame: Frame,
    module: "torch.nn.Module",
    unigram: Floats,
    texts: list[str],
    rng: np.random.Generator,
    advance: Advance | None,
) -> tuple[float, float, int]:
    """Mean cross-entropy of the head and of the unigram model in nats, and on how many tokens."""
    import torch  # noqa: PLC0415

    states, targets = _collect(frame, texts, lambda ids, text: _masked_once(frame, ids, text, rng), advance)
    with torch.no_grad():
        parts = zip(torch.split(states, POSITIONS), torch.split(targets, POSITIONS), strict=True)
        losses = [torch.nn.functional.cross_entropy(module(at), true, reduction="sum").item() for at, true in parts]
    return sum(losses) / len(targets), float(-unigram[targets.cpu().numpy()].mean()), len(targets)
