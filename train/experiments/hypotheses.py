"""The experiment behind `qaserve bench hypotheses`: each claim of the proposal, by each reading of it, answered fairly.

The proposal calls its projection "Procrustes (minimal transform)" and leaves open what that is. With S the questions
and T the answers of a cluster, R the orthogonal matrix that best takes the one to the other:

- centred, not translated: R and a scale c fitted to S and T less their means; x' = c x R. The upstream code does this.
- centred and translated: the same fit; x' = c (x - mean of S) R + mean of T. The full orthogonal Procrustes.
- uncentred: R fitted to S and T as they are; x' = x R.
- minimal rotation: uncentred, and the identity outside the span of the pairs: the anchored W as λ → 0.
- anchored: the product's W, at its default λ.

In the first three R is any rotation outside the span of the few pairs of a cluster: whichever the SVD gives.

Methods are compared at the proposal's τ, and each at its own best τ: the one with the best mean reciprocal rank (or,
for claims about the cosine, cosine) on a phrasing split inside the training side.

What the proposal says of its students is tested with its plain students and upstream's recipe. A teacher routes by
centroids at the proposal's τ, through the W of one reading; a student is compared with it on held-out questions.
Students of more than 8 million parameters take minutes each and are trained on the first split alone.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import metadata
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qaserve.common.progress import Advance
from qaserve.core.metrics import mean_cosine
from qaserve.core.routing import Floats
from qaserve.core.splits import check_families, phrasing_split
from qaserve.core.student import StudentSpec
from qaserve.schemas.params import MAX_HITS, SearchParams
from train.distillation.configs import REFERENCE_RECIPE, Recipe
from train.distillation.training import distill
from train.experiments.datasets import Source
from train.experiments.distill import DEEP, QUICK_EPOCHS, transformer
from train.experiments.harness import COSINE, MRR, Experiment, Report, Tally, part_of, row_cosines
from train.experiments.hypotheses_report import (
    CEILING,
    FINDS_BETTER,
    HELPS,
    LARGE,
    LAYERS,
    MORE_COSINE,
    ONE_W,
    PREFACE,
    TO_TEACHER,
    Choice,
    HypothesesRun,
    Hypothesis,
    Method,
    findings,
    overview,
    summary,
    tables,
)
from train.experiments.result_cache import ResultCache
from train.experiments.routing_report import REFERENCE_CENTROIDS, REFERENCE_TEMPERATURE
from train.folds import Fold, split_fold, unit_rows
from train.procrustes import anchored, centred_reference, polar
from train.tuning import START

RoutingName = Literal["centroid", "question"]
ROUTINGS: tuple[RoutingName, ...] = ("centroid", "question")
TEMPERATURES = (0.02, 0.03, 0.05, 0.07, 0.1, 0.2)
VANISHING = 1e-6
"""λ of the minimal rotation."""
QUICK_PAIRS = 240
READING_STEPS = 6
"""What the readings of a seed count for beside its students."""

# Readings


@dataclass(frozen=True)
class Pairs:
    """The pairs of a cluster; what two readings share is fitted once."""

    s: Floats
    """(n, D) questions, unit rows."""
    t: Floats
    """(n, D) their answers, unit rows."""

    @cached_property
    def centred(self) -> Floats:
        """(D, D) c R, fitted to S and T less their means."""
        return centred_reference(self.s, self.t)

    def translated(self, queries: Floats) -> Floats:
        """The full Procrustes map, c (x - mean of S) R + mean of T."""
        return np.asarray((queries - self.s.mean(axis=0)) @ self.centred + self.t.mean(axis=0))


Carry = Callable[[Pairs, Floats], Floats]
"""Pairs of a cluster and queries (m, D) → the queries carried into answer space, (m, D)."""
CENTRED, UNCENTRED, ANCHORED = "centred, not translated", "uncentred", "anchored"
READINGS: dict[str, Carry] = {
    CENTRED: lambda pairs, queries: queries @ pairs.centred,
    "centred and translated": Pairs.translated,
    UNCENTRED: lambda pairs, queries: queries @ polar(pairs.s.T @ pairs.t),
    "minimal rotation": lambda pairs, queries: anchored(pairs.s, pairs.t, VANISHING).apply(queries),
    ANCHORED: lambda pairs, queries: anchored(pairs.s, pairs.t, START.regularization).apply(queries),
}
PER_PAIR, NONE_AT_ALL = "per-pair W", "no projection"


def blended(fold: Fold, readings: Iterable[str], rows: Floats, weights: Sequence[Floats]) -> dict[str, list[Floats]]:
    """Where each reading takes rows (m, D): for each of the weights, (m, K), the blend over the clusters, (m, D)."""
    found = {name: [np.zeros_like(rows) for _ in weights] for name in readings}
    for cluster in range(fold.count):
        own = np.flatnonzero(fold.labels == cluster)
        pairs = Pairs(fold.train.questions[own], fold.train.answers[own])
        for name, blends in found.items():
            through = READINGS[name](pairs, rows)
            for number, shares in enumerate(weights):
                blends[number] += shares[:, cluster, None] * through
    return found


def params_of(routing: RoutingName, temperature: float) -> SearchParams:
    """The proposal's routing: the centroids that are nearest, as many as upstream takes, or all questions."""
    return SearchParams(routing=routing, temperature=temperature, centroids=REFERENCE_CENTROIDS, hits=MAX_HITS)


# Students

TEACHERS = (CENTRED, UNCENTRED, ANCHORED)
"""The readings that are taught, the proposal's own first."""
SIX_BY_THREE = DEEP[1]
"""The student that the proposal found best: 6 heads, 3 layers."""


def taught(fold: Fold, reading: str, rows: Floats) -> Floats:
    """(m, D) where the proposal's teacher takes rows (m, D): by the nearest centroids, through the W of a reading."""
    pipeline = fold.pipeline(params_of("centroid", REFERENCE_TEMPERATURE), fold.bank(START.regularization))
    (found,) = blended(fold, [reading], rows, [pipeline.route(rows, None).weights])[reading]
    return found


def plain(dimension: int, heads: int, layers: int) -> StudentSpec:
    """A student of the proposal's."""
    return transformer(dimension, heads, layers).model_copy(update={"residual": False})


def student_name(teacher: str, layers: int) -> str:
    """Name of a student in the tally."""
    return f"{layers} layers of {teacher}"


def _students() -> Iterator[tuple[str, int, int]]:
    """Teacher, heads and layers of each: every depth of the proposal's teacher, and its best of the others."""
    yield from ((CENTRED, *shape) for shape in DEEP)
    yield from ((teacher, *SIX_BY_THREE) for teacher in TEACHERS[1:])


def _outputs(at_known: Floats, _: Floats) -> Floats:
    return at_known


def _teach(
    fold: Fold, recipe: Recipe, seed: int, number: int, tally: Tally, cache: ResultCache | None
) -> Iterator[int]:
    """Train the students due on a split of this number and note how near each comes to its teacher at the queries.

    Yields:
        1 after each student, also one that leaves the split out.
    """
    known, asked = fold.train.questions, fold.queries.questions
    for name in TEACHERS:
        specs = [plain(known.shape[1], *shape) for teacher, *shape in _students() if teacher == name]
        due = [spec for spec in specs if number == 0 or spec.parameters <= LARGE]
        if due:
            # Both at once, as each call fits W. Without mixtures a teacher is asked at the known questions only.
            at_known, targets = np.split(taught(fold, name, np.concatenate([known, asked])), [len(known)])
            lesson = Lesson(known, at_known, asked, targets)
        for spec in due:
            tally.add(student_name(name, spec.layers), {TO_TEACHER: followed(lesson, spec, recipe, seed, cache)})
            yield 1
        yield len(specs) - len(due)


class Lesson(NamedTuple):
    """What one teacher says."""

    known: Floats
    """(n, D) questions to learn from."""
    at_known: Floats
    """(n, D) where the teacher takes them."""
    asked: Floats
    """(m, D) questions that the student is asked."""
    targets: Floats
    """(m, D) where the teacher takes those."""


def followed(lesson: Lesson, spec: StudentSpec, recipe: Recipe, seed: int, cache: ResultCache | None) -> Floats:
    """(m,) cosine of a student, trained or taken from the cache, to its teacher at the questions asked."""
    words = f"torch {metadata.version('torch')}", spec.model_dump_json(), recipe.model_dump_json(), str(seed)
    key = [*words, *(hashlib.sha256(part.tobytes()).hexdigest() for part in lesson)]
    if cache is not None and (found := cache.load(key)) is not None:
        return np.asarray(found[0][TO_TEACHER], dtype=np.float64)
    started = time.perf_counter()
    # The CPU, always: there the same seed gives the same figures everywhere.
    made = distill(lesson.known, partial(_outputs, lesson.at_known), spec, recipe, seed=seed, device="cpu")
    cosines = row_cosines(made.student.project(lesson.asked), unit_rows(lesson.targets))
    if cache is not None:
        cache.save(key, {TO_TEACHER: cosines}, {}, seconds=time.perf_counter() - started)
    return cosines


class Figures(NamedTuple):
    """Of one method at one τ."""

    mrr: float
    cosine: float


def run(source: Source, *, seeds: Sequence[int], quick: bool, advance: Advance) -> HypothesesRun:
    """Measure every reading with both routings on the phrasing split of each seed.

    Args:
        source: Pairs and vectors.
        seeds: One split and one K-means each.
        quick: The first seed, about 240 pairs, two epochs for a student.
        advance: Told of the readings of each seed, and 1 after each student.

    Raises:
        CorpusError: No phrasing can be held out.
    """
    examples, seeds = part_of(source.examples, seeds, QUICK_PAIRS, quick=quick)
    check_families(examples.pairs)
    recipe = REFERENCE_RECIPE.model_copy(update={"epochs": QUICK_EPOCHS}) if quick else REFERENCE_RECIPE
    tally = Tally()
    choices: list[Choice] = []
    asked: list[int] = []
    for number, seed in enumerate(seeds):
        fold = split_fold(examples, phrasing_split(examples.pairs, seed), seed)
        inner = split_fold(fold.train, phrasing_split(fold.train.pairs, seed), seed)
        tally.begin(fold.queries.intents)
        asked.append(len(fold.queries))
        found = measured(fold, inner, seed, source.cache)
        for method, figures in found.figures.items():
            tally.add(method, figures)
        choices += found.choices
        advance(READING_STEPS)
        for step in _teach(fold, recipe, seed, number, tally, source.cache) if source.students else ():
            advance(step)
        advance(0 if source.students else len(list(_students())))
    return HypothesesRun(
        encoder=source.encoder,
        dimension=examples.questions.shape[1],
        pairs=len(examples),
        queries=float(np.mean(asked)),
        seeds=tuple(seeds),
        methods=tuple(_method(tally, *one) for one in _pairs()),
        choices=tuple(choices),
        hypotheses=tuple(_hypotheses(tally)),
    )


def steps(seeds: Sequence[int], quick: bool) -> int:
    """How often `run` calls `advance`."""
    return len(seeds[:1] if quick else seeds) * (READING_STEPS + len(list(_students())))


class Measured(NamedTuple):
    """All methods on one split."""

    figures: dict[str, dict[str, Floats]]
    """(m,) by method and measure."""
    choices: tuple[Choice, ...]


def measured(fold: Fold, inner: Fold, seed: int, cache: ResultCache | None) -> Measured:
    """Every reading with both routings, and the others, measured or taken from the cache."""
    vectors = fold.train.questions, fold.train.answers, fold.queries.questions, fold.queries.answers
    key = ["readings", *READINGS, str(TEMPERATURES), START.model_dump_json(), str(seed), f"numpy {np.__version__}"]
    key += [hashlib.sha256(part.tobytes()).hexdigest() for part in vectors]
    key += [*fold.train.intents, *fold.queries.intents]
    if cache is not None and (found := cache.load(key)) is not None:
        return _restored(*found)
    started = time.perf_counter()
    tally, choices = Tally(), list[Choice]()
    tally.begin(fold.queries.intents)
    _readings(fold, inner, tally, choices)
    _others(fold, inner, tally, choices)
    made = Measured(
        {method: {name: tally.pooled(method, name) for name in (MRR, COSINE)} for method in tally.methods},
        tuple(choices),
    )
    if cache is not None:
        arrays = {f"{method}: {name}": values for method, of in made.figures.items() for name, values in of.items()}
        words = {"choices": json.dumps([one.model_dump() for one in choices])}
        cache.save(key, arrays, words, seconds=time.perf_counter() - started)
    return made


def _restored(arrays: dict[str, NDArray[np.generic]], words: dict[str, str]) -> Measured:
    figures: dict[str, dict[str, Floats]] = {}
    for name, values in arrays.items():
        method, _, measure = name.rpartition(": ")
        figures.setdefault(method, {})[measure] = np.asarray(values, dtype=np.float64)
    return Measured(figures, tuple(Choice.model_validate(one) for one in json.loads(words["choices"])))


def _readings(fold: Fold, inner: Fold, tally: Tally, choices: list[Choice]) -> None:
    wanted = [(routing, tau) for routing in ROUTINGS for tau in sorted({*TEMPERATURES, REFERENCE_TEMPERATURE})]
    asked, tried = (
        blended(which, READINGS, which.queries.questions, [which.weights(params_of(*one)) for one in wanted])
        for which in (fold, inner)
    )

    def at(found: Sequence[Floats], routing: RoutingName) -> Callable[[float], Floats]:
        return lambda tau: found[wanted.index((routing, tau))]

    for name in READINGS:
        for routing in ROUTINGS:
            _tally(
                f"{name}, {routing}", fold, inner, at(asked[name], routing), at(tried[name], routing), tally, choices
            )


def _others(fold: Fold, inner: Fold, tally: Tally, choices: list[Choice]) -> None:
    """Per-pair W at its best τ, and no projection."""

    def through_pairs(which: Fold) -> Callable[[float], Floats]:
        bank = which.bank(START.regularization)
        base = SearchParams(projection="pair", hits=START.search.hits)
        return lambda tau: which.through(base.override(SearchParams(temperature=tau)), bank).vectors

    _tally(PER_PAIR, fold, inner, through_pairs(fold), through_pairs(inner), tally, choices)
    _note(NONE_AT_ALL, fold, fold.queries.questions, fold.queries.questions, tally)


def _tally(
    method: str,
    fold: Fold,
    inner: Fold,
    at: Callable[[float], Floats],
    tried: Callable[[float], Floats],
    tally: Tally,
    choices: list[Choice],
) -> None:
    """Note a method at the proposal's τ, and at the best on the training side."""
    found = {tau: _figures(inner, tried(tau)) for tau in TEMPERATURES}
    best = Choice(
        method=method,
        mrr=max(found, key=lambda tau: found[tau].mrr),
        cosine=max(found, key=lambda tau: found[tau].cosine),
    )
    choices.append(best)
    reference = at(REFERENCE_TEMPERATURE)
    _note(at_reference(method), fold, reference, reference, tally)
    _note(at_best(method), fold, at(best.mrr), at(best.cosine), tally)


def _figures(fold: Fold, projected: Floats) -> Figures:
    ranks = fold.ranks(fold.cosines(projected))
    return Figures(float((1 / ranks).mean()), mean_cosine(projected, fold.queries.answers))


def _note(method: str, fold: Fold, for_mrr: Floats, for_cosine: Floats, tally: Tally) -> None:
    reciprocal = 1 / fold.ranks(fold.cosines(for_mrr))
    tally.add(method, {MRR: reciprocal, COSINE: row_cosines(for_cosine, fold.queries.answers)})


def at_reference(method: str) -> str:
    """Name of a method at the proposal's τ."""
    return f"{method}, τ={REFERENCE_TEMPERATURE}"


def at_best(method: str) -> str:
    """Name of a method at its own best τ."""
    return f"{method}, best τ"


def _pairs() -> Iterator[tuple[str, str]]:
    """Every reading with every routing, and what has one routing only."""
    yield from ((name, routing) for name in READINGS for routing in ROUTINGS)
    yield PER_PAIR, "question"


def _method(tally: Tally, reading: str, routing: str) -> Method:
    name = reading if reading == PER_PAIR else f"{reading}, {routing}"
    reference, best = tally.figures(at_reference(name)), tally.figures(at_best(name))
    return Method(
        reading=reading,
        routing=routing,
        mrr_at_reference=reference[MRR],
        cosine_at_reference=reference[COSINE],
        mrr_at_best=best[MRR],
        cosine_at_best=best[COSINE],
    )


TIMES: tuple[tuple[str, Callable[[str], str]], ...] = (
    (f"τ {REFERENCE_TEMPERATURE}", at_reference),
    ("each at its best τ", at_best),
)


def _hypotheses(tally: Tally) -> Iterator[Hypothesis]:
    for name in READINGS:
        centroid, question = (f"{name}, {routing}" for routing in ROUTINGS)
        for when, at in TIMES:
            difference = tally.difference(at(centroid), NONE_AT_ALL)
            yield Hypothesis(claim=HELPS, reading=name, test=f"centroids, {when}", at_least=0, difference=difference)
        for claim, measure, at_least in ((MORE_COSINE, COSINE, 0.05), (FINDS_BETTER, MRR, 0.0)):
            for when, at in TIMES:
                difference = tally.difference(at(question), at(centroid), measure)
                test = f"questions against centroids, {when}"
                yield Hypothesis(claim=claim, reading=name, test=test, at_least=at_least, difference=difference)
        difference = tally.difference(at_best(question), at_best(PER_PAIR))
        test = "questions against per-pair W, each at its best τ"
        yield Hypothesis(claim=ONE_W, reading=name, test=test, at_least=0, difference=difference)
    if student_name(CENTRED, SIX_BY_THREE[1]) in tally.methods:
        yield from _about_students(tally)


def _about_students(tally: Tally) -> Iterator[Hypothesis]:
    best = student_name(CENTRED, SIX_BY_THREE[1])
    for _, layers in (shape for shape in DEEP if shape != SIX_BY_THREE):
        difference = tally.difference(best, student_name(CENTRED, layers), TO_TEACHER)
        yield Hypothesis(
            claim=LAYERS, reading=CENTRED, test=f"3 layers against {layers}", at_least=0, difference=difference
        )
    for name in TEACHERS[1:]:
        difference = tally.difference(best, student_name(name, SIX_BY_THREE[1]), TO_TEACHER)
        test = f"6x3 of the teacher {CENTRED} against 6x3 of this one"
        yield Hypothesis(claim=CEILING, reading=name, test=test, at_least=0, difference=difference)


EXPERIMENT = Experiment(
    "hypotheses",
    "The proposal's claims, by reading",
    Report[HypothesesRun],
    tables,
    findings,
    lambda _: [],
    (PREFACE,),
    overview_of=overview,
    summary_of=summary,
)
