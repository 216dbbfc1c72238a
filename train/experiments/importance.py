"""The experiment behind `qaserve bench importance`: does it help when some pairs count more than others?

Every importance of `train.importance` is compared with uniform weights in both of the proposal's uses: as `prior_i`
in the softmax of question routing, and as weights in the loss of distillation. Questions are those held out by the
phrasing split of each seed, all of them and the boundary quarter: those whose own routing has the highest entropy.

The routing measures see the training side only. The measures of the text are taken once for all questions; where the
encoder has no masked-language-model head, one is fitted to all questions' texts, held-out ones too, but to no answer
and no label. The weights are then scaled over the training side.

A control shows what chance does: the weights of `entropy`, dealt out to the pairs at random.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qaserve.bundle import Defaults
from qaserve.encoder import SentenceEncoder
from qaserve.progress import Advance
from qaserve.routing import Floats, normalized_entropy
from qaserve.student import StudentSpec
from train.distillation.configs import SLOTS_RECIPE, Recipe
from train.distillation.teachers import RoutedTeacher
from train.distillation.training import distill
from train.experiments.harness import Experiment, Source
from train.experiments.importance_report import (
    CONTROL,
    ENTROPY,
    MRR,
    MRR_WITHOUT_WORDS,
    QUERIES,
    TO_ANSWER,
    TO_TEACHER,
    UNIFORM,
    USES,
    ImportanceReport,
    ImportanceRun,
    Result,
    Spread,
    Use,
    findings,
    plots,
    tables,
)
from train.folds import Examples, Fold, make_fold, unit_rows
from train.importance.measures import (
    PRIORS,
    ROUTING_MEASURES,
    TEXT_MEASURES,
    leave_one_out_weights,
    normalized,
    text_uncertainty,
    texts_needed,
    uncertainty,
)
from train.importance.uncertainty import TokenEntropy, token_entropy
from train.metrics import paired_bootstrap
from train.splits import phrasing_split
from train.tuning import DEFAULT_ANCHOR

BOUNDARY_SHARE = 0.25
SLOTS = 256
QUICK_PAIRS = 200
QUICK_EPOCHS = 2

Figures = dict[str, Floats]
"""(m,) of every question asked, by metric."""
Method = tuple[Use, str]
"""A use and a weighting."""


def run(source: Source, *, seeds: Sequence[int], quick: bool, advance: Advance) -> ImportanceRun:
    """Compare every weighting with uniform on the phrasing split of each seed; nothing is tuned.

    Args:
        source: Pairs with vectors; without its model the measures of the text are left out.
        seeds: One split, one K-means and one student of every weighting each; the first alone where it is quick.
        quick: The first 200 pairs, two epochs, no measures of the text.
        advance: Told 1 after each measure of the text, and after each use of each weighting of each seed.
    """
    examples = source.examples.take(np.arange(min(len(source.examples), QUICK_PAIRS))) if quick else source.examples
    seeds = seeds[:1] if quick else seeds
    recipe = SLOTS_RECIPE.model_copy(update={"epochs": QUICK_EPOCHS}) if quick else SLOTS_RECIPE
    texts = _texts(source.model, examples, quick, advance)
    figures, spreads, boundary, intents, clusters = [], [], [], [], []
    for seed in seeds:
        split = phrasing_split(examples.pairs, seed)
        fold = make_fold(examples.take(split.train), examples.take(split.test), seed)
        weights = _importances(fold, {name: values[split.train] for name, values in texts.values.items()}, seed)
        figures.append(dict(_judged(fold, weights, recipe, seed, advance)))
        spreads.append([_spread(name, values, weights[ENTROPY]) for name, values in weights.items()])
        boundary.append(boundary_questions(fold))
        intents.append(np.array(fold.asked.intents))
        clusters.append(fold.count)
        advance(len(USES) * (len(_names(quick)) - len(weights)))
    product = Defaults()
    left_out = tuple(name for name in PRIORS if set(texts_needed(name)) - texts.values.keys())
    return ImportanceRun(
        encoder=source.encoder,
        dimension=examples.questions.shape[1],
        pairs=len(examples),
        seeds=tuple(seeds),
        queries=sum(map(len, boundary)),
        boundary=int(sum(map(np.count_nonzero, boundary))),
        clusters=float(np.mean(clusters)),
        anchor=DEFAULT_ANCHOR,
        temperature=product.temperature,
        hits=product.hits,
        lexical_weight=product.lexical_weight,
        student=_student(examples).name,
        epochs=recipe.epochs,
        left_out=left_out,
        why_left_out=_why(quick) if left_out else "",
        head_perplexity=None if texts.token is None else texts.token.perplexity,
        unigram_perplexity=None if texts.token is None else texts.token.baseline_perplexity,
        spreads=tuple(_mean_spread(rows) for rows in zip(*spreads, strict=True)),
        results=tuple(_results(figures, np.concatenate(boundary), np.concatenate(intents))),
    )


def steps(seeds: Sequence[int], quick: bool) -> int:
    """How much `run` tells `advance` in all."""
    if quick:
        return len(seeds[:1]) * len(USES) * len(_names(quick))
    return len(TEXT_MEASURES) + len(seeds) * len(USES) * len(_names(quick))


def boundary_questions(fold: Fold) -> NDArray[np.bool_]:
    """(m,) which of the questions asked are in the quarter with the highest entropy of their (uniform) routing."""
    weights = fold.by_questions(Defaults().temperature, Defaults().hits)
    entropies = np.array([normalized_entropy(row) for row in weights])
    return np.asarray(entropies >= np.quantile(entropies, 1 - BOUNDARY_SHARE))


# What the pairs weigh


def _names(quick: bool) -> tuple[str, ...]:
    """What is compared where the encoder is at hand."""
    measures = (UNIFORM, *ROUTING_MEASURES) if quick else PRIORS
    return (*measures, CONTROL)


def _why(quick: bool) -> str:
    return "a quick run takes no measures of the text" if quick else "the encoder was not at hand"


class Texts(NamedTuple):
    """What the encoder says about the questions' texts."""

    values: dict[str, Floats]
    """(n,) measures of the text, by name; empty without the encoder."""
    token: TokenEntropy | None
    """The measure `token` with the quality of its head."""


def _texts(model: SentenceEncoder | None, examples: Examples, quick: bool, advance: Advance) -> Texts:
    if quick or model is None:
        advance(0 if quick else len(TEXT_MEASURES))
        return Texts({}, None)
    questions = [pair.question for pair in examples.pairs]
    token = token_entropy(model, questions)
    advance(1)
    values = {"token": token.values}
    for name in TEXT_MEASURES:
        if name not in values:
            values[name] = text_uncertainty(name, model, questions)
            advance(1)
    return Texts(values, token)


def _importances(fold: Fold, texts: Mapping[str, Floats], seed: int) -> dict[str, Floats]:
    """(n,) importance of every known pair, by name, uniform first; those without their measure of the text left out."""
    routing = leave_one_out_weights(
        fold.known.questions, fold.labels, fold.count, Defaults().temperature, Defaults().hits
    )
    names = [name for name in PRIORS if set(texts_needed(name)) <= texts.keys()]
    weights = {name: normalized(uncertainty(name, routing, fold.labels, texts)) for name in names}
    return weights | {CONTROL: np.random.default_rng(seed).permutation(weights[ENTROPY])}


def _spread(name: str, values: Floats, entropy: Floats) -> Spread:
    varies = values.std() > 0 and entropy.std() > 0
    return Spread(
        weighting=name,
        lowest=float(values.min()),
        highest=float(values.max()),
        deviation=float(values.std()),
        with_entropy=float(np.corrcoef(values, entropy)[0, 1]) if varies else 0.0,
    )


def _mean_spread(rows: Sequence[Spread]) -> Spread:
    names = ("lowest", "highest", "deviation", "with_entropy")
    means = {name: float(np.mean([getattr(row, name) for row in rows])) for name in names}
    return Spread(weighting=rows[0].weighting, **means)


# What they are good for


def _judged(
    fold: Fold, weights: Mapping[str, Floats], recipe: Recipe, seed: int, advance: Advance
) -> Iterator[tuple[Method, Figures]]:
    for name, values in weights.items():
        yield ("prior", name), _as_prior(fold, values)
        advance(1)
        yield ("distillation", name), _distilled(fold, values, recipe, seed)
        advance(1)


def _as_prior(fold: Fold, prior: Floats) -> Figures:
    weights = fold.by_questions(Defaults().temperature, Defaults().hits, prior=prior)
    return _figures(fold, fold.bank(DEFAULT_ANCHOR).project_rows(fold.asked.questions, weights))


def _distilled(fold: Fold, weights: Floats, recipe: Recipe, seed: int) -> Figures:
    """The teacher weighs all alike; only the loss does not."""
    known, product = fold.known.questions, Defaults()
    teacher = RoutedTeacher(known, fold.labels, fold.bank(DEFAULT_ANCHOR), product.temperature, product.hits)
    made = distill(known, teacher, _student(fold.known), recipe, importance=weights, seed=seed, device="cpu")
    moved = made.student.project(fold.asked.questions)
    taught = teacher(fold.asked.questions)
    return _figures(fold, moved) | {TO_TEACHER: _cosines(moved, unit_rows(taught))}


def _student(examples: Examples) -> StudentSpec:
    return StudentSpec(dimension=examples.questions.shape[1], form="slots", slots=SLOTS)


def _figures(fold: Fold, moved: Floats) -> Figures:
    return {
        MRR: 1 / fold.ranks(fold.scores(moved, Defaults().lexical_weight)),
        MRR_WITHOUT_WORDS: 1 / fold.ranks(fold.scores(moved, 0.0)),
        TO_ANSWER: _cosines(moved, fold.asked.answers),
    }


def _cosines(moved: Floats, targets: Floats) -> Floats:
    """(m,) cosine of each row to its unit row."""
    return np.asarray((unit_rows(moved) * targets).sum(axis=1))


def _results(
    seeds: Sequence[Mapping[Method, Figures]], boundary: NDArray[np.bool_], intents: NDArray[np.str_]
) -> Iterator[Result]:
    pooled = {
        method: {metric: np.concatenate([seed[method][metric] for seed in seeds]) for metric in first}
        for method, first in seeds[0].items()
    }
    for (use, name), figures in pooled.items():
        uniform, entropy = pooled[use, UNIFORM], pooled[use, ENTROPY]
        for queries in QUERIES:
            rows = boundary if queries == "boundary" else np.ones_like(boundary)
            asked = intents[rows].tolist()
            gains = {
                metric: paired_bootstrap(values[rows], uniform[metric][rows], asked)
                for metric, values in figures.items()
                if name != UNIFORM
            }
            beyond = None
            if name not in {UNIFORM, ENTROPY}:
                beyond = paired_bootstrap(figures[MRR][rows], entropy[MRR][rows], asked)
            means = {metric: float(values[rows].mean()) for metric, values in figures.items()}
            yield Result(use=use, weighting=name, queries=queries, metrics=means, gains=gains, over_entropy=beyond)


EXPERIMENT = Experiment(
    "importance",
    "Importance of a pair: do uncertain pairs deserve more weight?",
    ImportanceReport,
    tables,
    findings,
    plots,
)
