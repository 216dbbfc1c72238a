"""Calibration: how likely the first answer is right, and when to say that nothing here answers a question. Pure NumPy.

Two things can go wrong, and they show differently. Nothing in the corpus may answer the question: then everything that
is found lies far away. Or something does, and the first of several like answers is not the one: then all lie near, and
their scores hardly differ. So there are two logistic regressions,

    P(first answer right) = P(the corpus answers it) · P(first answer right | the corpus answers it),

both on evidence that an answered question brings along. The engine abstains by the first factor alone. Two more give
P(skill right): one, from `NAMED_FEATURES`, for a skill that the first answer names, which is right where the answer is,
and one, from `SKILL_FEATURES`, for any other. In all, no coefficient points against its feature's direction: a nearer
match never lowers a probability.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from qaserve.core.routing import Floats, normalized_entropy
from qaserve.schemas.ask import Confidence
from qaserve.schemas.record import Record

NEAREST = 5
"""How many of the nearest known questions, and of the first intents, are looked at: rank at least as many intents."""
LIKELY = 0.5
"""From this probability on the reason says what speaks for the answer, below it what speaks against."""


class _Feature(NamedTuple):
    """A feature: where more of it points, and how its value is said when it is low and when it is high."""

    direction: int
    against: str
    favour: str


_TABLE = {
    "question_similarity": _Feature(
        1, "the nearest known question is far (similarity {:.2f})", "a known question is near (similarity {:.2f})"
    ),
    "mean_similarity": _Feature(
        1,
        f"the {NEAREST} nearest known questions are far (similarity {{:.2f}} on average)",
        f"the {NEAREST} nearest known questions are near (similarity {{:.2f}} on average)",
    ),
    "answer_similarity": _Feature(
        1, "the nearest answer is far (similarity {:.2f})", "its answer is near (similarity {:.2f})"
    ),
    "raw_similarity": _Feature(
        1,
        "in a plain search its answer is far (similarity {:.2f})",
        "its answer is near in a plain search too (similarity {:.2f})",
    ),
    "margin_second": _Feature(
        1, "the second scores almost as much ({:.3f} less)", "the second scores clearly less ({:.3f} less)"
    ),
    "margin_last": _Feature(
        1,
        f"the first {NEAREST} score almost alike ({{:.3f}} from first to last)",
        f"it stands out from the first {NEAREST} ({{:.3f}} from first to last)",
    ),
    "entropy": _Feature(
        -1,
        "the known questions disagree about where to look (entropy {:.2f})",
        "the known questions agree about where to look (entropy {:.2f})",
    ),
    "agreement": _Feature(
        1,
        "few of the votes are for its cluster ({:.0%})",
        "many of the votes are for its cluster ({:.0%})",
    ),
    "lexical": _Feature(
        1,
        "the best match has few of the question's words",
        "it has the question's words",
    ),
}
FEATURES = tuple(_TABLE)
"""The names of what `evidence` gives, in its order."""
DIRECTIONS = np.array([feature.direction for feature in _TABLE.values()])
"""(F,) 1 where more of a feature speaks for an answer, -1 where it speaks against."""


SKILL_FEATURES = ("answered", "skill_score", "skill_margin", "skill_named")
"""Of a skill: log odds that the corpus answers, and what `qaserve.core.skills.skill_evidence` gives. More of
each speaks for the skill."""
NAMED_FEATURES = ("answered", "right", "skill_score", "skill_margin")
"""Of a skill that the first answer names: log odds that the corpus answers, and that the first answer is right where it
does; then as above."""


class Top(NamedTuple):
    """The first answer."""

    similarity: float
    """Cosine of the projected and whitened question to it."""
    raw_similarity: float
    """Cosine of the question, not projected, to it."""
    lexical: float
    """Lexical part of its score."""
    cluster: int


def evidence(
    *,
    similarities: ArrayLike,
    probabilities: ArrayLike,
    clusters: ArrayLike,
    weights: ArrayLike,
    scores: ArrayLike,
    top: Top,
) -> Floats:
    """What one answered question says about how good its first answer is.

    Args:
        similarities: (N,) cosine of the question to each hit, best first. Without a hit all that hits say is 0.
        probabilities: (N,) share of each hit in the vote.
        clusters: (N,) cluster of each hit.
        weights: (K,) cluster weights.
        scores: (I,) final score of the first intents, best first, I ≥ 1. Beyond the first `NEAREST` none is looked at,
            so a longer list gives the same evidence. A lone intent stands against a score of 0.
        top: The first answer.

    Returns:
        (F,) float64, in the order of `FEATURES`.

    Raises:
        ValueError: There is no score, or a number is not finite.
    """
    nearest = np.asarray(similarities, dtype=np.float64)[:NEAREST]
    first = np.asarray(scores, dtype=np.float64)[:NEAREST]
    if first.size == 0:
        raise ValueError("evidence needs the score of at least one intent; there is none")
    others = first[1:] if first.size > 1 else np.zeros(1)
    agreeing = np.asarray(clusters, dtype=np.intp) == top.cluster
    found = np.array(
        [
            nearest[0] if nearest.size else 0.0,
            nearest.mean() if nearest.size else 0.0,
            top.similarity,
            top.raw_similarity,
            first[0] - others[0],
            first[0] - others[-1],
            normalized_entropy(weights),
            np.asarray(probabilities, dtype=np.float64)[agreeing].sum(),
            top.lexical,
        ]
    )
    if not np.isfinite(found).all():
        name = FEATURES[int(np.flatnonzero(~np.isfinite(found))[0])]
        raise ValueError(f"{name} is not finite")
    return found


class Logistic(Record):
    """A logistic regression: σ(intercept + Σ coefficient · (value - mean) / scale). Without features: one number."""

    features: tuple[str, ...] = Field(description="Which of the evidence it looks at.")
    mean: tuple[float, ...] = Field(description="Of each feature over the cases it was fitted on.")
    scale: tuple[float, ...] = Field(description="Standard deviation of each.")
    coefficients: tuple[float, ...]
    intercept: float

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        lengths = {len(self.features), len(self.mean), len(self.scale), len(self.coefficients)}
        if len(lengths) != 1:
            raise ValueError(
                f"{len(self.features)} features, {len(self.mean)} means, {len(self.scale)} scales and "
                f"{len(self.coefficients)} coefficients do not fit together"
            )
        known = tuple(dict.fromkeys((*FEATURES, *SKILL_FEATURES, *NAMED_FEATURES)))
        if not set(self.features) <= set(known) or len(set(self.features)) != len(self.features):
            raise ValueError(f"features are {', '.join(self.features)}; each must be one of {', '.join(known)}")
        if not np.isfinite([*self.mean, *self.scale, *self.coefficients, self.intercept]).all():
            raise ValueError("a mean, scale, coefficient or the intercept is not finite")
        if not all(scale > 0 for scale in self.scale):
            raise ValueError(f"scales are {self.scale}; each must be above 0")
        return self

    def probability(self, found: Floats, names: Sequence[str] = FEATURES) -> float:
        """Of evidence (F,); `names`: of its features."""
        return float(0.5 * (1 + np.tanh(self.log_odds(found, names) / 2)))

    def log_odds(self, found: Floats, names: Sequence[str] = FEATURES) -> float:
        """Of evidence (F,)."""
        return self.intercept + sum(self.pulls(found, names).values())

    def pulls(self, found: Floats, names: Sequence[str] = FEATURES) -> dict[str, float]:
        """What each feature of evidence (F,) adds to the log odds, against its mean."""
        parts = zip(self.features, self.mean, self.scale, self.coefficients, strict=True)
        return {
            name: coefficient * (float(found[names.index(name)]) - mean) / scale
            for name, mean, scale, coefficient in parts
        }


class Calibration(Record):
    """What makes a confidence of the evidence, and how good it is."""

    answered: Logistic = Field(description="Probability that the corpus answers the question.")
    right: Logistic = Field(description="Probability that the first answer is right, where the corpus answers.")
    skill: Logistic | None = Field(
        None,
        description="Probability that a skill is a right one which the first answer does not name; null where no pair "
        "names any.",
    )
    named_skill: Logistic | None = Field(
        None,
        description="The same of a skill that the first answer names; null as above, and in older builds, where "
        "`skill` stands for both.",
    )
    threshold: float = Field(ge=0, le=1, description="Abstain where the probability of `answered` is below.")
    precision: float = Field(
        gt=0,
        lt=1,
        description="Target share of answerable questions among those that are not abstained on, assuming half "
        "of all questions are answerable; what is reached is in the figures.",
    )
    coverage: float = Field(
        ge=0, le=1, description="Share of the questions that the corpus answers that is not abstained on."
    )
    cases: dict[str, int] = Field(description="Questions it was fitted on, by kind.")
    figures: dict[str, float] = Field(description="How good it is on cases that it was not fitted on.")

    @model_validator(mode="after")
    def _finite(self) -> Self:
        if not np.isfinite(list(self.figures.values())).all():
            raise ValueError(f"figures are {self.figures}; each must be finite")
        return self

    def probability(self, found: Floats) -> float:
        """Probability that the first answer is right, of evidence (F,)."""
        return self.answered.probability(_checked(found)) * self.right.probability(found)

    def skill_probabilities(self, found: Floats, skills: Floats) -> list[float] | None:
        """Probability that each of R skills is right; None where no pair names any.

        Args:
            found: (F,) evidence of the question.
            skills: (R, 3) `qaserve.core.skills.skill_evidence`.
        """
        if self.skill is None:
            return None
        answered, right = self.answered.log_odds(_checked(found)), self.right.log_odds(found)
        rows = zip(is_named(skills), skill_rows(answered, skills), named_rows(answered, right, skills), strict=True)
        return [
            self.skill.probability(row, SKILL_FEATURES)
            if self.named_skill is None or not by_first
            else self.named_skill.probability(named, NAMED_FEATURES)
            for by_first, row, named in rows
        ]

    def confidence(self, found: Floats, skill: float | None = None) -> Confidence:
        """Probabilities, abstention and the reason that weighs most.

        Args:
            found: (F,) evidence.
            skill: Probability that the first answer names the right skill; what is given is at least that it is right.
        """
        value = self.probability(found)
        pulls = [*self.answered.pulls(found).items(), *self.right.pulls(found).items()]
        abstained = self.answered.probability(found) < self.threshold
        if abstained:
            reason = _reason(NOTHING, self.answered.pulls(found).items(), found, -1)
        elif value < LIKELY:
            reason = _reason(UNSURE, pulls, found, -1)
        else:
            reason = _reason(LIKELY_RIGHT, pulls, found, 1)
        at_least = None if skill is None else max(skill, value)
        return Confidence(value=value, skill=at_least, abstained=abstained, reason=reason)


def skill_rows(answered: ArrayLike, skills: Floats) -> Floats:
    """(R, 4) values of `SKILL_FEATURES`, from log odds that the corpus answers and (R, 3) evidence of skills."""
    return np.column_stack([_column(answered, skills), skills])


def named_rows(answered: ArrayLike, right: ArrayLike, skills: Floats) -> Floats:
    """(R, 4) values of `NAMED_FEATURES`; `right`: log odds that the first answer is right, where the corpus answers."""
    return np.column_stack([_column(answered, skills), _column(right, skills), skills[:, :2]])


def is_named(skills: Floats) -> NDArray[np.bool_]:
    """(R,) whether the first answer names each skill, of (R, 3) evidence."""
    return np.asarray(skills[:, 2] > 0)


def _column(value: ArrayLike, skills: Floats) -> Floats:
    return np.broadcast_to(np.asarray(value, dtype=np.float64), len(skills))


NOTHING = "Nothing here seems to answer this"
UNSURE = "The first answer may not be the one"
LIKELY_RIGHT = "The first answer is likely right"
NO_SIGN = "no single sign stands out"


def _reason(opening: str, pulls: Iterable[tuple[str, float]], found: Floats, sign: int) -> str:
    """The opening, and the feature that pulls most towards `sign`."""
    name, pull = max(pulls, key=lambda one: sign * one[1], default=("", 0.0))
    if sign * pull <= 0:
        return f"{opening}: {NO_SIGN}."
    words = _TABLE[name].favour if sign > 0 else _TABLE[name].against
    return f"{opening}: {words.format(found[FEATURES.index(name)])}."


def _checked(found: Floats) -> Floats:
    if found.shape != (len(FEATURES),):
        raise ValueError(f"evidence is {found.shape}; it must be ({len(FEATURES)},)")
    return found
