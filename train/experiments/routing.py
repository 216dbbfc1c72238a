"""The experiment behind `qaserve bench routing`: every routing with every projection, on questions held out.

Three splits. *phrasing*: new phrasings of known answers; the one to judge by. *intent*: questions about intents of
which no question is known and on which nothing was fitted, while their answers can be found. *random*: upstream's
own, for comparison only, because near-repeats of the queries stay on the training side. The reference W, which take a
minute a split at D 768, the tuned hyperparameters and txtai are measured on phrasing alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from qaserve.common.errors import UsageError
from qaserve.common.progress import Advance
from qaserve.core.routing import Floats, softmax
from qaserve.core.splits import Split, check_families, intent_split, phrasing_split, random_split
from qaserve.schemas.params import MAX_HITS, Hyperparameters, SearchParams, Trial
from qaserve.settings import FitSettings
from train.experiments.baselines import reciprocal_rank_fusion, txtai_scores
from train.experiments.datasets import Source
from train.experiments.harness import (
    COSINE,
    Experiment,
    Report,
    Tally,
    evaluate,
    part_of,
    row_cosines,
)
from train.experiments.routing_report import (
    BEST_QUESTION,
    BM25,
    CENTROID,
    DEFAULT,
    FUSION,
    HYPOTHESES,
    LEXICAL_WEIGHTS,
    PER_PAIR,
    PER_PAIR_REFERENCE,
    PLAIN_WORDS,
    PREFACE,
    QUESTION,
    QUESTION2,
    QUESTION_HITS,
    QUESTION_REFERENCE_TEMPERATURE,
    RAW,
    RAW_QUESTIONS,
    REFERENCE_CENTROID,
    REFERENCE_CENTROIDS,
    REFERENCE_QUESTION,
    REFERENCE_QUESTION2,
    REFERENCE_TEMPERATURE,
    RIVALS,
    RIVALS_UNKNOWN,
    TUNED,
    TUNED_PHRASINGS,
    TXTAI,
    TXTAI_BOTH,
    TXTAI_HYBRID,
    TXTAI_HYBRID_ANSWERS,
    UNDETERMINED,
    UNPROJECTED,
    RoutingRun,
    SplitName,
    SplitResults,
    Tested,
    WordsPoint,
    findings,
    headline,
    plots,
    summary,
    tables,
    with_words,
)
from train.experiments.trec import Scored
from train.folds import Examples, Fold, split_fold
from train.tuning import DEFAULTS, START, tune

SPLITS: dict[SplitName, Callable[..., Split]] = {
    "phrasing": phrasing_split,
    "intent": intent_split,
    "random": random_split,
}
QUICK_PAIRS = 300
QUICK_DIMENSION = 400
"""Above it, a quick run leaves the dense reference W out."""

Method = Callable[[Fold], Floats]
T, HITS, FINAL = START.search.temperature, START.search.hits, START.search.final_temperature
REFERENCE_T, TOP, ALL = REFERENCE_TEMPERATURE, REFERENCE_CENTROIDS, MAX_HITS


def _through(*, reference: bool = False, **params: Any) -> Method:
    """Projection with these parameters, through anchored W or the proposal's."""

    def method(fold: Fold) -> Floats:
        bank = fold.reference_bank if reference else fold.bank(START.regularization)
        return fold.through(SearchParams(**params), bank).searched

    return method


def _through_best_questions(fold: Fold) -> Floats:
    """Only the best question of a cluster votes for it."""
    neighbors = fold.neighbors(ALL)
    shares = softmax(neighbors.similarities, T, neighbors.priors)
    best = np.zeros((len(shares), fold.count))
    np.maximum.at(best, (np.arange(len(shares))[:, None], neighbors.clusters), shares)
    weights = best / best.sum(axis=1, keepdims=True)
    return fold.bank(START.regularization).project_rows(fold.queries.questions, weights)


SCORINGS: dict[str, Method] = {
    BM25: lambda fold: fold.lexical,
    FUSION: lambda fold: reciprocal_rank_fusion(fold.cosines(fold.queries.questions), fold.lexical),
}
"""What is compared without projecting the query: (m, c) scores of the candidates."""
METHODS: dict[str, Method] = {
    RAW: lambda fold: fold.queries.questions,
    CENTROID: _through(routing="centroid", temperature=REFERENCE_T, centroids=TOP),
    QUESTION_REFERENCE_TEMPERATURE: _through(temperature=REFERENCE_T, hits=ALL),
    QUESTION: _through(temperature=T, hits=ALL),
    QUESTION_HITS: _through(temperature=T, hits=HITS),
    QUESTION2: _through(routing="question2", temperature=T, hits=ALL, final_temperature=FINAL),
    BEST_QUESTION: _through_best_questions,
    PER_PAIR_REFERENCE: _through(projection="pair", temperature=REFERENCE_T, hits=ALL),
    PER_PAIR: _through(projection="pair", temperature=T, hits=HITS),
}
"""What is compared by how it projects the queries: (m, D).

Where no number of hits is named all questions vote; centroid routing blends the top 10, as upstream does, and
`question2` is question routing with its final softmax.
"""
REFERENCE_METHODS: dict[str, Method] = {
    REFERENCE_CENTROID: _through(reference=True, routing="centroid", temperature=REFERENCE_T, centroids=TOP),
    REFERENCE_QUESTION: _through(reference=True, temperature=REFERENCE_T, hits=ALL),
    REFERENCE_QUESTION2: _through(
        reference=True, routing="question2", temperature=REFERENCE_T, hits=ALL, final_temperature=REFERENCE_T
    ),
}
"""The proposal's."""
ALONE = ("the reference W", "txtai")
"""What is measured on phrasing alone, in steps."""
TUNED_ON: tuple[SplitName, ...] = ("phrasing", "intent")
"""Splits whose training sides hyperparameters are tuned on; the random split leaks, also to tuning."""


def run(source: Source, *, seeds: Sequence[int], quick: bool, advance: Advance) -> RoutingRun:
    """Compare all methods on the three splits of each seed; nothing is tuned on the questions asked.

    Args:
        source: Pairs and vectors. With the encoder that made them, txtai gets vectors of "question answer" as one text.
        seeds: One of each split and one K-means each.
        quick: The first of the seeds alone, about 300 pairs, no text encoded.
        advance: Told as often as `steps` says.

    Raises:
        CorpusError: No phrasing can be held out, or all pairs are of one intent.
        EncoderError: The encoder cannot be loaded.
    """
    examples, seeds = part_of(source.examples, seeds, QUICK_PAIRS, quick=quick)
    check_families(examples.pairs)
    together = None if quick else _encoded_together(source)
    advance(1)
    dense = not quick or examples.questions.shape[1] <= QUICK_DIMENSION
    found = _Found(
        {name: Tally() for name in SPLITS}, {name: [] for name in SPLITS}, {name: [] for name in TUNED_ON}, {}
    )
    for seed in seeds:
        for name, split in SPLITS.items():
            held_out = split(examples.pairs, seed)
            fold = split_fold(examples, held_out, seed, whole=name != "phrasing")
            found.sizes[name].append((len(fold.queries), len(fold.candidates), fold.count))
            _everywhere(fold, found.tallies[name], advance)
            tried: dict[str, Hyperparameters] = {DEFAULT: DEFAULTS}
            if name in TUNED_ON:
                tried |= _tuned(fold, seed, name, found)
                advance(1)
            if source.trec is not None:
                source.trec.write(name, seed, fold, _exported(fold, tried))
            if name == "phrasing":
                texts = None if together is None else together[held_out.train]
                _phrasing_alone(fold, dense, texts, found, advance)
    return _summary(source.encoder, examples, seeds, found)


def steps(seeds: Sequence[int], quick: bool) -> int:
    """How often `run` will call `advance`, each time with 1."""
    everywhere = 1 + len(SCORINGS) + len(METHODS) + len(LEXICAL_WEIGHTS)
    return 1 + len(seeds[:1] if quick else seeds) * (len(SPLITS) * everywhere + len(TUNED_ON) + len(ALONE))


def _encoded_together(source: Source) -> Floats | None:
    """(n, D) unit vectors of "question answer" as one text."""
    if source.model is None:
        return None
    return source.model.encode_answers(_joined(source.examples)).astype(np.float64)


def _joined(examples: Examples) -> list[str]:
    return [f"{pair.question} {pair.answer}" for pair in examples.pairs]


class _Found(NamedTuple):
    """What the seeds have given so far."""

    tallies: dict[SplitName, Tally]
    sizes: dict[SplitName, list[tuple[int, int, int]]]
    """Queries, candidates and clusters of each seed."""
    chosen: dict[SplitName, list[Trial]]
    left_out: dict[str, None]


def _everywhere(fold: Fold, tally: Tally, advance: Advance) -> None:
    """What is measured on every split."""
    tally.begin(fold.queries.intents)
    for method, project in METHODS.items():
        _add_projected(fold, method, project, tally)
        advance(1)
    tally.add(RAW_QUESTIONS, evaluate(fold.similarities, fold.train.intents, fold.queries.intents))
    advance(1)
    for method, scores_of in SCORINGS.items():
        _add(fold, method, scores_of(fold), tally)
        advance(1)
    projected = METHODS[QUESTION_HITS](fold)
    for weight in LEXICAL_WEIGHTS:
        _add(fold, with_words(weight), fold.scores(projected, SearchParams(lexical_weight=weight)), tally)
        advance(1)
    _add_product(fold, DEFAULT, DEFAULTS, tally)


def _phrasing_alone(fold: Fold, dense: bool, together: Floats | None, found: _Found, advance: Advance) -> None:
    tally = found.tallies["phrasing"]
    if dense:
        for method, project in REFERENCE_METHODS.items():
            _add_projected(fold, method, project, tally)
    else:
        found.left_out["the reference W, dense: a quick run has no time for them at this dimension"] = None
    advance(1)
    try:
        for method, scores in list(_txtai(fold, together)):
            _add(fold, method, scores, tally)
    except UsageError as missing:
        found.left_out[f"txtai: {missing}; {missing.hint}"] = None
    advance(1)


def _tuned(fold: Fold, seed: int, name: SplitName, found: _Found) -> dict[str, Trial]:
    """What is tuned on the training side, by method: the product, and a plain search with words."""
    fit = FitSettings(regularization=None, seed=seed)
    tuning = tune(fold.train, fit, lambda _: None)
    if tuning is None:
        found.left_out["tuned hyperparameters: the training side is too small to hold queries out of it"] = None
        return {}
    tried = {TUNED: tuning.chosen, UNPROJECTED: tuning.unprojected, PLAIN_WORDS: tuning.plain}
    alone = tune(fold.train, fit, lambda _: None, unknown=False) if name == "phrasing" else None
    if alone is not None:
        tried[TUNED_PHRASINGS] = alone.chosen
    for method, trial in tried.items():
        _add_product(fold, method, trial, found.tallies[name])
    found.chosen[name].append(tuning.chosen)
    return tried


def _exported(fold: Fold, tried: Mapping[str, Hyperparameters]) -> Iterator[Scored]:
    """Plain baselines, and what was tried of the product."""
    yield Scored(RAW, fold.cosines(fold.queries.questions))
    yield Scored(BM25, fold.lexical)
    for method, one in tried.items():
        yield Scored(method, fold.parts(fold.cosines_of(one), one.search).total, one.search.second_share)


def _add_product(fold: Fold, method: str, hyperparameters: Hyperparameters, tally: Tally) -> None:
    search = hyperparameters.search
    scores = fold.parts(fold.cosines_of(hyperparameters), search).total
    tally.add(method, evaluate(scores, fold.candidates.intents, fold.queries.intents, search.second_share))


def _add(fold: Fold, method: str, scores: Floats, tally: Tally) -> None:
    tally.add(method, evaluate(scores, fold.candidates.intents, fold.queries.intents))


def _add_projected(fold: Fold, method: str, project: Method, tally: Tally) -> None:
    projected = project(fold)
    figures = evaluate(fold.cosines(projected), fold.candidates.intents, fold.queries.intents)
    tally.add(method, figures | {COSINE: row_cosines(projected, fold.queries.answers)})


def _txtai(fold: Fold, together: Floats | None) -> Iterator[tuple[str, Floats]]:
    """Names and scores (m, c) of txtai with vectors of the same encoder; `together`: as `_encoded_together`."""
    search = partial(
        txtai_scores, queries=[pair.question for pair in fold.queries.pairs], query_vectors=fold.queries.questions
    )
    yield TXTAI, search([pair.answer for pair in fold.train.pairs], fold.train.answers)
    both = _joined(fold.train)
    if together is None:
        yield TXTAI_HYBRID_ANSWERS, search(both, fold.train.answers, hybrid=True)
        return
    yield TXTAI_BOTH, search(both, together)
    yield TXTAI_HYBRID, search(both, together, hybrid=True)


def _summary(encoder: str, examples: Examples, seeds: Sequence[int], found: _Found) -> RoutingRun:
    phrasing, unknown = found.tallies["phrasing"], found.tallies["intent"]
    product = TUNED if {TUNED} <= phrasing.methods & unknown.methods else DEFAULT
    return RoutingRun(
        encoder=encoder,
        dimension=examples.questions.shape[1],
        pairs=len(examples),
        seeds=tuple(seeds),
        splits=tuple(_split_results(name, found) for name in SPLITS),
        words=tuple(_words_point(phrasing, weight) for weight in (0.0, *LEXICAL_WEIGHTS)),
        chosen=tuple(found.chosen["phrasing"]),
        chosen_unknown=tuple(found.chosen["intent"]),
        product=product,
        against=phrasing.differences(product, [name for name in RIVALS if name != product]),
        against_unknown=unknown.differences(product, [name for name in RIVALS_UNKNOWN if name != product]),
        hypotheses=tuple(
            Tested(
                claim=one.claim,
                split=one.split,
                at_least=one.at_least,
                difference=found.tallies[one.split].difference(one.method, one.reference, one.measure),
            )
            for one in HYPOTHESES
            if {one.method, one.reference} <= found.tallies[one.split].methods
        ),
        left_out=tuple(found.left_out),
    )


def _split_results(name: SplitName, found: _Found) -> SplitResults:
    queries, searched, clusters = np.mean(found.sizes[name], axis=0).tolist()
    results = found.tallies[name].results(RAW)
    return SplitResults(split=name, queries=queries, searched=searched, clusters=clusters, results=results)


def _words_point(tally: Tally, weight: float) -> WordsPoint:
    one = tally.difference(with_words(weight) if weight else QUESTION_HITS, QUESTION_HITS)
    return WordsPoint(weight=weight, mrr=one.base + one.gain.mean, gain=one.gain)


# What is shown


EXPERIMENT = Experiment(
    "routing",
    "Routing and projection",
    Report[RoutingRun],
    tables,
    findings,
    plots,
    (PREFACE, UNDETERMINED),
    headline_of=headline,
    summary_of=summary,
)
