"""How unsure the encoder is about a text: three measures that may serve as the importance of a training pair.

- `embedding_norms`: the length of the vector before normalisation, which the proposal takes for a sign of confidence.
- `dropout_spread`: Monte-Carlo dropout (Gal & Ghahramani 2016): the encoder with its dropout on is a sample from an
  approximate posterior over its weights; the spread of the vectors it gives is the model's uncertainty.
- `token_entropy`: the entropy of the masked-language-model distribution at the text's tokens. As in the proposal the
  logits are read at the *unmasked* text in one forward pass, not with the tokens masked one by one: the value says
  how surely the model still names a token that it can see, given the others.

Most sentence encoders come without a masked-language-model head; `mlm_head` fits one to the frozen encoder.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from qaserve.common.errors import EncoderError
from qaserve.common.progress import Advance
from qaserve.common.text import shorten
from qaserve.core.routing import Floats
from qaserve.encoders.sentence_transformer import LoadedModel, SentenceEncoder
from train.importance.mlm_head import Batch, FittedHead, batches, fit, seeded, tokenized

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

LOGITS_AT_ONCE = 1024
"""Tokens whose logits are in memory together (a single longer text excepted): 125 MB at a vocabulary of 30,522."""
ENTROPIES_AT_ONCE = 256
"""Tokens whose probabilities are in memory together."""


class TokenEntropy(NamedTuple):
    """Token entropy of some texts, and how far the head that gave it can be trusted."""

    values: Floats
    """(n,) nats, each from 0 to the logarithm of the vocabulary's size."""
    head: Literal["own", "fitted"]
    perplexity: float | None
    """Of a fitted head, on masked tokens of texts held out of its fitting; None for the model's own."""
    baseline_perplexity: float | None
    """Of the unigram distribution on the same tokens. A head that is not well below it has learned nothing."""


def text_uncertainty(
    name: str, model: SentenceEncoder, questions: list[str], seed: int = 0, advance: Advance | None = None
) -> Floats:
    """How uncertain the encoder is about each text, by one of `TEXT_MEASURES`; the more, the higher.

    Args:
        name: token, norm or dropout.
        model: The encoder.
        questions: n texts; a masked-language-model head is fitted to them where the encoder has none.
        seed: Of the dropout and of that fitting.
        advance: Told the number of texts done.

    Returns:
        (n,) float64, not negative; nats for token, a ratio for norm, a squared length for dropout.
    """
    if name == "token":
        return token_entropy(model, questions, seed=seed, advance=advance).values
    if name == "dropout":
        return dropout_spread(model, questions, seed=seed, advance=advance)
    norms = embedding_norms(model, questions, advance)
    return np.asarray(norms.mean() / norms)


def embedding_norms(encoder: SentenceEncoder, texts: Sequence[str], advance: Advance | None = None) -> Floats:
    """Euclidean length of each question's vector as it is before normalisation.

    The vector is that of `encode_questions`: with the question prompt, cut to the encoder's dimension.

    Args:
        encoder: What encodes.
        texts: n questions.
        advance: Told the number of texts of each batch done.

    Returns:
        (n,) float64, in the order of the texts.

    Raises:
        EncoderError: The encoder cannot be loaded.
    """
    out = np.empty(len(texts))
    prompt = encoder.identity.question_prompt
    with encoder.borrowed() as loaded:
        for chosen, batch in batches(texts, advance):
            out[chosen] = np.linalg.norm(_raw(loaded.model, batch, prompt, encoder.identity.dimension), axis=1)
    return out


def dropout_spread(
    encoder: SentenceEncoder, texts: Sequence[str], *, passes: int = 8, seed: int = 0, advance: Advance | None = None
) -> Floats:
    """Spread of each question's unit vector under Monte-Carlo dropout (Gal & Ghahramani 2016).

    With v_1 … v_P the unit vectors of P passes with dropout on, and m = (1/P) Σ v_p their mean (not normalised):
    spread = (1/P) Σ ‖v_p - m‖² = 1 - ‖m‖². That is the trace of their covariance, divided by P, not P - 1.

    The draws depend on which texts share a batch, so a text's value is repeated by the same seed *and* the same texts.
    The encoder is in eval mode again and torch's random state untouched afterwards, also when a pass fails.

    Args:
        encoder: What encodes.
        texts: n questions.
        passes: P, at least 2.
        seed: Of the dropout.
        advance: Told the number of texts of each batch done (all passes of it).

    Returns:
        (n,) float64 in [0, 1]; 0 where the passes agree.

    Raises:
        EncoderError: The encoder cannot be loaded, or was made without dropout.
        ValueError: Fewer than two passes.
    """
    if passes < 2:
        raise ValueError(f"passes is {passes}; a spread needs at least 2")
    out = np.empty(len(texts))
    prompt, dimension = encoder.identity.question_prompt, encoder.identity.dimension
    with encoder.borrowed() as loaded, _dropout_on(loaded.model, encoder.identity.id), seeded(loaded.model, seed):
        for chosen, batch in batches(texts, advance):
            raw = np.stack([_raw(loaded.model, batch, prompt, dimension) for _ in range(passes)])
            unit = raw / np.linalg.norm(raw, axis=2, keepdims=True)
            out[chosen] = ((unit - unit.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0)
    return out


def token_entropy(
    encoder: SentenceEncoder,
    texts: Sequence[str],
    *,
    seed: int = 0,
    head: FittedHead | None = None,
    own_head_only: bool = False,
    advance: Advance | None = None,
) -> TokenEntropy:
    """Mean entropy of the masked-language-model distribution over each text's tokens.

    For token t of a text, H_t = -Σ_v p_t(v) log p_t(v), p_t = softmax of the logits at t of the unmasked text, over
    the whole vocabulary; the value is the mean of H_t over the text's tokens. Special tokens are left out, no prompt
    is put before the text, and what is beyond the encoder's maximum length is not read. A text without any token gets
    the mean of the others (0 if all are such), so that it counts as neither sure nor unsure.

    The model's own head is used where its files hold one; else `head`; else one fitted to the texts themselves.

    Args:
        encoder: Whose model.
        texts: n texts.
        seed: Of the fitting.
        head: From `fit_head`, used where the model has no head of its own.
        own_head_only: Refuse a model without a head instead of fitting one.
        advance: Told the number of texts of each batch done; before these come those of the fitting, if any.

    Raises:
        EncoderError: The encoder cannot be loaded, or has no head and none may or can be fitted.
    """
    with encoder.borrowed() as loaded:
        own = _own_head(loaded, encoder.identity.id)
        if own is not None:
            return TokenEntropy(_mean_entropies(loaded, texts, own, advance), "own", None, None)
        if own_head_only:
            raise EncoderError(
                f"encoder {encoder.identity.id} has no masked-language-model head",
                hint="Let one be fitted (own_head_only=False), or use a model saved with its head.",
            )
        fitted = head or fit(loaded, encoder.identity.id, texts, seed=seed, advance=advance)
        values = _mean_entropies(loaded, texts, fitted.logits, advance)
    return TokenEntropy(values, "fitted", fitted.perplexity, fitted.baseline_perplexity)


def _raw(model: "SentenceTransformer", batch: list[str], prompt: str, dimension: int) -> Floats:
    """(b, D) vectors of the modules before Normalize."""
    import torch  # noqa: PLC0415 - seconds to import; only where a model runs
    from sentence_transformers.base.modules import Normalize  # noqa: PLC0415
    from sentence_transformers.util import batch_to_device  # noqa: PLC0415

    prompt = prompt or model.prompts.get(model.default_prompt_name or "") or ""  # as model.encode() does
    features = batch_to_device(model.preprocess(batch, prompt=prompt or None), model.device)
    with torch.no_grad():
        for module in model.children():
            if isinstance(module, Normalize):
                break
            features = module(features)
    return np.asarray(features["sentence_embedding"].cpu().numpy()[:, :dimension], dtype=np.float64)


@contextmanager
def _dropout_on(model: "SentenceTransformer", name: str) -> Iterator[None]:
    """Dropout as in training, everything else as in use."""
    droppers = [module for module in model.modules() if _drops(module)]
    if not droppers:
        raise EncoderError(
            f"encoder {name} has no dropout: all its dropout probabilities are 0",
            hint="Use another measure of uncertainty, or a model that was trained with dropout (minilm, mpnet).",
        )
    # Set on the module alone: train() would also switch what is inside it.
    try:
        for module in droppers:
            module.training = True
        yield
    finally:
        for module in droppers:
            module.training = False


def _drops(module: "torch.nn.Module") -> bool:
    """Whether the module drops anything in training: a dropout layer, or attention.

    Attention drops by a function that looks at its own `training` and takes the probability from a layer next to it
    (BERT) or a number (NomicBERT). Other modules that hold a dropout layer do not look at their `training`.
    """
    inside = [_probability(child) for child in module.children()]
    return max([_probability(module), float(getattr(module, "attention_dropout", 0.0)), *inside]) > 0


def _probability(module: "torch.nn.Module") -> float:
    return float(getattr(module, "p", 0.0)) if "Dropout" in type(module).__name__ else 0.0


def _own_head(loaded: LoadedModel, name: str) -> "Callable[[dict[str, torch.Tensor]], torch.Tensor] | None":
    """The logits of the model's own head: inputs (b, s) → (b, s, V); None where its files hold no whole head."""
    from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoModelForMaskedLM  # noqa: PLC0415

    inner = getattr(loaded.model[0], "auto_model", None)
    if inner is None or type(inner.config) not in MODEL_FOR_MASKED_LM_MAPPING:
        return None
    with seeded(loaded.model, 0), _no_report():  # what is missing is drawn at random, and complained about
        try:
            model, info = AutoModelForMaskedLM.from_pretrained(
                loaded.folder, local_files_only=True, trust_remote_code=False, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise EncoderError(
                f"the masked-language-model head of encoder {name} cannot be loaded: {shorten(str(error), 200)}",
                hint="The folder must hold a whole model, or one without a head.",
            ) from error
    # The encoder's own parts were checked when it was loaded; an unused pooler may well be missing.
    found = {key for key in info["missing_keys"] if not key.startswith(f"{model.base_model_prefix}.")}
    if found - set(model.all_tied_weights_keys):
        return None
    model.eval().to(loaded.model.device)
    return lambda inputs: model(**inputs).logits


@contextmanager
def _no_report() -> Iterator[None]:
    """Without the table of missing weights that transformers logs: here they are the question, not a fault."""
    from transformers.utils.logging import get_verbosity, set_verbosity  # noqa: PLC0415

    before = get_verbosity()
    set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        set_verbosity(before)


def _mean_entropies(
    loaded: LoadedModel,
    texts: Sequence[str],
    logits: "Callable[[dict[str, torch.Tensor]], torch.Tensor]",
    advance: Advance | None,
) -> Floats:
    sums, counts = np.zeros(len(texts)), np.zeros(len(texts))
    for chosen, batch in batches(texts, advance):
        for rows, part in _parts(tokenized(loaded.model, batch)):
            row, values = _entropies(logits, part)
            np.add.at(sums, chosen[rows][row], values)
            np.add.at(counts, chosen[rows][row], 1)
    read = counts > 0
    out = np.full(len(texts), sums[read].dot(1 / counts[read]) / max(read.sum(), 1))
    out[read] = sums[read] / counts[read]
    return out


def _parts(batch: Batch) -> Iterator[tuple[slice, Batch]]:
    """The batch in pieces of at most `LOGITS_AT_ONCE` tokens, or of one text."""
    step = max(1, LOGITS_AT_ONCE // max(batch.is_text.shape[1], 1))
    for start in range(0, len(batch.is_text), step):
        rows = slice(start, start + step)
        yield rows, Batch({name: values[rows] for name, values in batch.inputs.items()}, batch.is_text[rows])


def _entropies(logits: "Callable[[dict[str, Any]], torch.Tensor]", part: Batch) -> tuple[Any, Floats]:
    """Of the part's t text tokens: (t,) the row each is in, (t,) its entropy in nats."""
    import torch  # noqa: PLC0415

    with torch.no_grad():
        chunks = torch.split(logits(part.inputs)[part.is_text], ENTROPIES_AT_ONCE)
        values = [torch.special.entr(chunk.float().softmax(-1)).sum(-1).cpu() for chunk in chunks]
    return part.is_text.nonzero()[:, 0].cpu().numpy(), torch.cat(values).double().numpy()
