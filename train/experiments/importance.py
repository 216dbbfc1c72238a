"""The experiment behind `qaserve bench importance`: does it help when some pairs count more than others?

Every importance of `train.importance` is compared with uniform weights in both of the proposal's uses: as `prior_i`
in the softmax of question routing, and as weights in the loss of distillation. Questions are those held out by the
phrasing split of each seed, all of them and the boundary quarter: those whose own routing has the highest entropy.

The routing measures see the training side only. The measures of the text are taken once for all questions; where the
encoder has no masked-language-model head, one is fitted to all questions' texts, held-out ones too, but to no answer
and no label. The weights are then scaled over the training side.

A control shows what chance does: the weights of `entropy`, dealt out to the pairs at random. That two weightings do the
same is only said where the whole interval of their difference lies within a margin; a wide interval says nothing. As
many differences are looked at, one only counts as such where it holds among all of them (Holm 1979).

Answers are ranked by projection and words as in a search that was not tuned, without words, and as the product does:
with topics, whitening and second pairs, in the shares that the training side of a split chooses.

With several trainings on each split a student's figure for a question is the mean over its trainings.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qaserve.common.progress import Advance
from qaserve.core.routing import Floats, leave_one_out_weights, normalized_entropy
from qaserve.core.splits import phrasing_split
from qaserve.core.student import StudentSpec
from qaserve.encoders.sentence_transformer import SentenceEncoder
from qaserve.schemas.params import SearchParams
from train.distillation.configs import SLOTS_RECIPE, Recipe
from train.distillation.teachers import RoutedTeacher
from train.distillation.training import distill
from train.experiments.datasets import Source, Weighing
from train.experiments.harness import (
    MRR,
    PRODUCT_MRR,
    Experiment,
    Report,
    Tally,
    evaluate,
    mean,
    product_mrr,
    row_cosines,
    tuned_search,
)
from train.experiments.importance_report import (
    CONTROL,
    ENTROPY,
    MRR_WITHOUT_WORDS,
    PREFACE,
    QUERIES,
    TO_ANSWER,
    TO_TEACHER,
    UNIFORM,
    USES,
    ImportanceRun,
    Queries,
    Result,
    Spread,
    Use,
    findings,
    plots,
    summary,
    tables,
)
from train.folds import Examples, Fold, make_fold, unit_rows
from train.importance.measures import PRIORS, ROUTING_MEASURES, TEXT_MEASURES, normalized, texts_needed, uncertainty
from train.importance.uncertainty import TokenEntropy, text_uncertainty, token_entropy
from train.tuning import START

BOUNDARY_SHARE = 0.25
SLOTS = 256
QUICK_PAIRS = 200
QUICK_EPOCHS = 2
OTHER_TRAINING = 1_000
"""Between the seeds of two trainings on one split; the splits have seeds 0, 1, 2 …"""


def run(source: Source, *, seeds: Sequence[int], quick: bool, advance: Advance) -> ImportanceRun:
    """Compare every weighting with uniform on the phrasing split of each seed; only the product's shares are tuned.

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
    tally, spreads, boundary, clusters = Tally(), [], [], []
    for seed in seeds:
        split = phrasing_split(examples.pairs, seed)
        fold = make_fold(examples.take(split.train), examples.take(split.test), seed)
        known = {name: values[split.train] for name, values in texts.values.items()}
        weights = _importances(fold, known, source.weighing, seed)
        tally.begin(fold.queries.intents)
        search = tuned_search(fold.train, seed, quick=quick)
        seeds_of_training = [seed + number * OTHER_TRAINING for number in range(source.weighing.trainings)]
        _measure(fold, weights, search, recipe, seeds_of_training, tally, advance)
        spreads.append([_spread(name, values, weights[ENTROPY]) for name, values in weights.items()])
        boundary.append(boundary_questions(fold))
        clusters.append(fold.count)
        advance(len(USES) * (len(_names(quick)) - len(weights)))
    left_out = tuple(name for name in PRIORS if set(texts_needed(name)) - texts.values.keys())
    return ImportanceRun(
        encoder=source.encoder,
        dimension=examples.questions.shape[1],
        pairs=len(examples),
        seeds=tuple(seeds),
        queries=sum(map(len, boundary)),
        boundary=int(sum(map(np.count_nonzero, boundary))),
        clusters=float(np.mean(clusters)),
        regularization=START.regularization,
        temperature=START.search.temperature,
        hits=START.search.hits,
        lexical_weight=START.search.lexical_weight,
        **source.weighing._asdict(),
        student=_student(examples).name,
        epochs=recipe.epochs,
        left_out=left_out,
        why_left_out=_why(quick) if left_out else "",
        head_perplexity=None if texts.token is None else texts.token.perplexity,
        unigram_perplexity=None if texts.token is None else texts.token.baseline_perplexity,
        spreads=tuple(_mean_spread(rows) for rows in zip(*spreads, strict=True)),
        results=tuple(_results(tally, np.concatenate(boundary))),
    )


def steps(seeds: Sequence[int], quick: bool) -> int:
    """How much `run` tells `advance` in all."""
    if quick:
        return len(seeds[:1]) * len(USES) * len(_names(quick))
    return len(TEXT_MEASURES) + len(seeds) * len(USES) * len(_names(quick))


def boundary_questions(fold: Fold) -> NDArray[np.bool_]:
    """(m,) which of the questions asked are in the quarter with the highest entropy of their (uniform) routing."""
    weights = fold.weights(START.search)
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


def _importances(fold: Fold, texts: Mapping[str, Floats], weighing: Weighing, seed: int) -> dict[str, Floats]:
    """(n,) importance of every training pair, by name, uniform first; without those that lack a measure of the text."""
    routing = leave_one_out_weights(
        fold.train.questions, fold.labels, fold.count, START.search.temperature, START.search.hits
    )
    names = [name for name in PRIORS if set(texts_needed(name)) <= texts.keys()]
    weights = {
        name: normalized(uncertainty(name, routing, fold.labels, texts, weighing.alpha), weighing.bounds)
        for name in names
    }
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
    means = {name: mean(getattr(row, name) for row in rows) for name in names}
    return Spread(weighting=rows[0].weighting, **means)


# What they are good for


def method(use: Use, weighting: str) -> str:
    """Name of a use of a weighting in the tally."""
    return f"{use}: {weighting}"


def _measure(
    fold: Fold,
    weights: Mapping[str, Floats],
    search: SearchParams,
    recipe: Recipe,
    seeds: Sequence[int],
    tally: Tally,
    advance: Advance,
) -> None:
    for name, values in weights.items():
        tally.add(method("prior", name), _figures(fold, fold.project(START, values).vectors, search))
        advance(1)
        trained = [_distilled(fold, values, search, recipe, seed) for seed in seeds]
        means = {one: np.mean([figures[one] for figures in trained], axis=0) for one in trained[0]}
        tally.add(method("distillation", name), means)
        advance(1)


def _distilled(fold: Fold, weights: Floats, search: SearchParams, recipe: Recipe, seed: int) -> dict[str, Floats]:
    """The teacher weighs all alike; only the loss does not."""
    train = fold.train.questions
    teacher = RoutedTeacher(train, fold.labels, fold.pipeline(START.search, fold.bank(START.regularization)))
    made = distill(train, teacher, _student(fold.train), recipe, importance=weights, seed=seed, device="cpu")
    projected = made.student.project(fold.queries.questions)
    return _figures(fold, projected, search) | {
        TO_TEACHER: row_cosines(projected, unit_rows(teacher(fold.queries.questions)))
    }


def _student(examples: Examples) -> StudentSpec:
    return StudentSpec(dimension=examples.questions.shape[1], form="slots", slots=SLOTS)


def _figures(fold: Fold, projected: Floats, search: SearchParams) -> dict[str, Floats]:
    def reciprocal(lexical_weight: float) -> Floats:
        scores = fold.scores(projected, SearchParams(lexical_weight=lexical_weight))
        return evaluate(scores, fold.candidates.intents, fold.queries.intents)[MRR]

    return {
        MRR: reciprocal(START.search.lexical_weight),
        MRR_WITHOUT_WORDS: reciprocal(0.0),
        PRODUCT_MRR: product_mrr(fold, projected, search),
        TO_ANSWER: row_cosines(projected, fold.queries.answers),
    }


def _results(tally: Tally, boundary: NDArray[np.bool_]) -> Iterator[Result]:
    for use in USES:
        for name in (name for name in (*PRIORS, CONTROL) if method(use, name) in tally.methods):
            for queries in QUERIES:
                yield _result(tally, use, name, queries, boundary if queries == "boundary" else np.ones_like(boundary))


def _result(tally: Tally, use: Use, name: str, queries: Queries, chosen: NDArray[np.bool_]) -> Result:
    own, uniform, entropy = method(use, name), method(use, UNIFORM), method(use, ENTROPY)
    gains = {one: tally.difference(own, uniform, one, chosen).gain for one in tally.figures(own) if name != UNIFORM}
    beyond = None if name in {UNIFORM, ENTROPY} else tally.difference(own, entropy, MRR, chosen).gain
    means = {one: mean(tally.pooled(own, one)[chosen]) for one in tally.figures(own)}
    return Result(use=use, weighting=name, queries=queries, metrics=means, gains=gains, over_entropy=beyond)


EXPERIMENT = Experiment(
    "importance",
    "Importance of a pair: do uncertain pairs deserve more weight?",
    Report[ImportanceRun],
    tables,
    findings,
    plots,
    (PREFACE,),
    summary_of=summary,
)
