"""Importance of a pair: how much it should count, in the loss of distillation or as `prior_i` in routing.

The proposal wants uncertain pairs to count more and sure ones less. So every measure here points the same way, the more
uncertain the higher, and the norm, which the proposal takes for a sign of confidence, stands in the denominator.

Three measures look at the routing. With w the cluster weights that question routing gives question i when question i
itself does not vote, and k(i) the cluster of its answer:

- entropy: H(w) / log K;
- fisher-empirical: the squared norm of the gradient of -log w_k(i) with respect to the routing logits z over clusters,
  w = softmax(z). The gradient is w - e_k(i), its squared norm Σ w² - 2 w_k(i) + 1;
- fisher-expected: the mean of that with k drawn from w itself, 1 - Σ w²: the trace of the Fisher information of z.

Three look at the question's text alone (`train.importance.uncertainty`):

- token: the mean entropy of the masked-language-model distribution at its tokens;
- norm: the mean length of the embeddings before normalisation, over the length of its own;
- dropout: the spread of its embedding under Monte-Carlo dropout (Gal & Ghahramani 2016).

combined is α · entropy + (1 - α) · token, each divided by its mean first, so that α means what it says: the one is at
most 1, the other is in nats and larger.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from qaserve.common.errors import UsageError
from qaserve.common.progress import Advance
from qaserve.core.routing import Floats, leave_one_out_weights, normalized_entropy
from qaserve.encoders.sentence_transformer import SentenceEncoder
from train.folds import Examples

ROUTING_MEASURES = ("entropy", "fisher-empirical", "fisher-expected")
TEXT_MEASURES = ("token", "norm", "dropout")
"""These and `combined` need the encoder."""
PRIORS: tuple[str, ...] = ("uniform", *ROUTING_MEASURES, *TEXT_MEASURES, "combined")
"""Every importance there is, by name; uniform is 1 for all."""

BOUNDS = 0.5, 2.0
"""Of an importance, unless told otherwise."""
COMBINED_SHARE = 0.5
"""α, unless told otherwise."""
FLOOR = 1e-12
"""What a value of zero counts as, in units of the largest, so that it can be scaled."""
TOLERANCE = 1e-14


def importance(
    name: str,
    examples: Examples,
    labels: NDArray[np.integer],
    count: int,
    *,
    temperature: float,
    hits: int | None,
    model: SentenceEncoder | None = None,
    seed: int = 0,
    advance: Advance | None = None,
) -> Floats:
    """The importance of every pair by one measure, ready to be a prior or a weight in a loss.

    Args:
        name: One of `PRIORS`.
        examples: n pairs; nothing else is looked at.
        labels: (n,) cluster of each.
        count: K.
        temperature: τ of the routing.
        hits: How many of the nearest other questions vote; None means all.
        model: The encoder, for a measure of the text.
        seed: Of the dropout and of fitting a masked-language-model head.
        advance: Told the number of texts done, where the encoder runs.

    Returns:
        (n,) float64, mean 1, each from 0.5 to 2.

    Raises:
        UsageError: No measure has this name, or it needs the encoder and there is none.
        EncoderError: The encoder cannot be loaded, or cannot give this measure.
    """
    if name not in PRIORS:
        raise UsageError(f"importance {name!r} is not known", hint=f"Choose one of: {', '.join(PRIORS)}.")
    if name == "uniform":
        return np.ones(len(examples))
    needed = texts_needed(name)
    if needed and model is None:
        without = ", ".join(other for other in PRIORS if not texts_needed(other))
        raise UsageError(
            f"importance {name!r} is read from the questions' texts, and there is no encoder to read them",
            hint=f"Give the encoder that made the vectors, or choose one that needs none: {without}.",
        )
    texts: dict[str, Floats] = {}
    if model is not None and needed:
        from train.importance.uncertainty import text_uncertainty  # noqa: PLC0415 - serving never runs a model for it

        questions = [pair.question for pair in examples.pairs]
        texts = {text: text_uncertainty(text, model, questions, seed, advance) for text in needed}
    weights = leave_one_out_weights(examples.questions, labels, count, temperature, hits)
    return normalized(uncertainty(name, weights, labels, texts))


def texts_needed(name: str) -> tuple[str, ...]:
    """Which measures of the text an importance is made from; none where it looks at the routing alone."""
    if name == "combined":
        return ("token",)
    return (name,) if name in TEXT_MEASURES else ()


def uncertainty(
    name: str,
    weights: Floats,
    labels: NDArray[np.integer],
    texts: Mapping[str, Floats],
    alpha: float = COMBINED_SHARE,
) -> Floats:
    """How uncertain every pair is by one measure, on the measure's own scale; the more, the higher.

    Args:
        name: One of `PRIORS`.
        weights: (n, K) of `leave_one_out_weights`.
        labels: (n,) cluster of each pair.
        texts: (n,) values of the measures of the text that the name needs, by theirs.
        alpha: α of combined, 0 to 1.

    Returns:
        (n,) float64, not negative.
    """
    if name == "uniform":
        return np.ones(len(weights))
    if name in TEXT_MEASURES:
        return texts[name]
    if name == "entropy":
        return _entropies(weights)
    if name == "combined":
        return alpha * _over_mean(_entropies(weights)) + (1 - alpha) * _over_mean(texts["token"])
    squares = (weights**2).sum(axis=1)
    if name == "fisher-expected":
        return np.asarray(np.maximum(1 - squares, 0.0))  # rounding may leave a sure question just below 0
    own = weights[np.arange(len(weights)), labels]
    return np.asarray(np.maximum(squares - 2 * own + 1, 0.0))


def normalized(values: ArrayLike, bounds: tuple[float, float] = BOUNDS) -> Floats:
    """Values scaled so that, clipped to the bounds, their mean is 1: both hold at once, not one after the other.

    The scale c solves mean(clip(c · v, lowest, highest)) = 1; the left side grows with c from lowest to highest, so
    Brent's method (SciPy's `brentq`, over log c) finds it.
    A zero counts as a very small value: with [0.5, 2], where less than a third are above zero, these end at 2 and the
    zeros above 0.5. Equal values, all zeros too, become 1. What was no larger than another stays so.

    Args:
        values: (n,) not negative.
        bounds: Lowest, above 0 and below 1, and highest, above 1.

    Returns:
        (n,) float64 within the bounds, mean 1 to rounding.

    Raises:
        ValueError: A value is not finite or below 0; the message names its row.
    """
    given = np.asarray(values, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(given) | (given < 0))
    if bad.size:
        raise ValueError(f"importance of row {bad[0]} is {given[bad[0]]}; it must be finite and not below 0")
    if given.size == 0 or given.min() == given.max():
        return np.ones(given.shape)
    shares, (lowest, highest) = np.maximum(given / given.max(), FLOOR), bounds
    scales = np.log(lowest), np.log(highest / FLOOR)  # at which all are at the lower and at the upper bound
    scale = brentq(lambda log: np.clip(np.exp(log) * shares, *bounds).mean() - 1, *scales, xtol=TOLERANCE)
    return np.asarray(np.clip(np.exp(scale) * shares, *bounds))


def _entropies(weights: Floats) -> Floats:
    """(n,) H(w) / log K of rows (n, K)."""
    return np.array([normalized_entropy(row) for row in weights], dtype=np.float64)


def _over_mean(values: Floats) -> Floats:
    """Values divided by their mean; 1 for all where all are zero."""
    mean = values.mean()
    return np.asarray(values / mean) if mean > 0 else np.ones_like(values)
