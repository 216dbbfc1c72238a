"""The experiment behind `qaserve bench routing`: every routing with every projection, on questions held out.

Three splits. *phrasing*: new phrasings of known answers; the one to judge by. *intent*: questions about intents of
which no question is known and on which nothing was fitted, while their answers can be found. *random*: the proposal's
own, for comparison only, because near-repeats of what is asked stay on the training side. The proposal's W, which take
a minute a split at D 768, the numbers chosen by trial and txtai are measured on phrasing alone.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from qaserve.bundle import Defaults, Trial
from qaserve.errors import UsageError
from qaserve.progress import Advance
from qaserve.routing import Floats
from qaserve.settings import FitSettings
from train.baselines import reciprocal_rank_fusion, txtai_scores
from train.experiments.comparison import COSINE, MRR, Tally, row_cosines
from train.experiments.harness import Experiment, Source
from train.experiments.routing_report import (
    BEST_QUESTION,
    BM25,
    CENTROID,
    CHOSEN,
    DEFAULT,
    FUSION,
    LEXICAL_WEIGHTS,
    PER_PAIR,
    PER_PAIR_SEED,
    QUESTION,
    QUESTION2,
    QUESTION_HITS,
    QUESTION_SEED_TEMPERATURE,
    RAW,
    RAW_QUESTIONS,
    SEED_CENTROID,
    SEED_CENTROIDS,
    SEED_QUESTION,
    SEED_QUESTION2,
    SEED_TEMPERATURE,
    TXTAI,
    TXTAI_BOTH,
    TXTAI_HYBRID,
    TXTAI_HYBRID_ANSWERS,
    RoutingReport,
    RoutingRun,
    SplitName,
    SplitResults,
    Tested,
    WordsPoint,
    findings,
    plots,
    tables,
    with_words,
)
from train.folds import Examples, Fold, make_fold
from train.metrics import intent_ranks
from train.splits import Split, check_families, first_families, intent_split, phrasing_split, random_split
from train.tuning import START, choose, ranks_of

SPLITS: dict[SplitName, Callable[..., Split]] = {
    "phrasing": phrasing_split,
    "intent": intent_split,
    "random": random_split,
}
QUICK_PAIRS = 300
QUICK_DIMENSION = 400
"""Above it, a quick run leaves the proposal's dense W out."""
RIVALS = (
    RAW,
    RAW_QUESTIONS,
    BM25,
    FUSION,
    SEED_CENTROID,
    SEED_QUESTION,
    SEED_QUESTION2,
    TXTAI,
    TXTAI_BOTH,
    TXTAI_HYBRID,
    TXTAI_HYBRID_ANSWERS,
    DEFAULT,
)
"""What the product is measured against; its own default numbers where it has others."""


class Hypothesis(NamedTuple):
    """What the proposal expects, as a difference that can be measured."""

    claim: str
    method: str
    reference: str
    measure: str = MRR
    at_least: float = 0.0
    split: SplitName = "phrasing"


HYPOTHESES = (
    Hypothesis(
        "routing by questions instead of centroids gives 5% more cosine or better, with the proposal's W",
        SEED_QUESTION,
        SEED_CENTROID,
        COSINE,
        0.05,
    ),
    Hypothesis(
        "routing by questions instead of centroids gives 5% more cosine or better, with anchored W",
        QUESTION_SEED_TEMPERATURE,
        CENTROID,
        COSINE,
        0.05,
    ),
    Hypothesis(
        "routing by questions at the product's temperature gives 5% more cosine or better, with anchored W",
        QUESTION,
        CENTROID,
        COSINE,
        0.05,
    ),
    Hypothesis("routing by questions finds better, with the proposal's W", SEED_QUESTION, SEED_CENTROID),
    Hypothesis("routing by questions finds better, with anchored W", QUESTION_SEED_TEMPERATURE, CENTROID),
    Hypothesis("routing by questions at the product's temperature finds better, with anchored W", QUESTION, CENTROID),
    Hypothesis(
        "routing by questions generalises better, to intents that nothing was fitted on",
        QUESTION_SEED_TEMPERATURE,
        CENTROID,
        split="intent",
    ),
    Hypothesis("a final softmax over the clusters finds better, with the proposal's W", SEED_QUESTION2, SEED_QUESTION),
    Hypothesis("a final softmax over the clusters finds better, with anchored W", QUESTION2, QUESTION),
    Hypothesis(
        "a cluster should weigh more with every question that matches, not by its best", QUESTION, BEST_QUESTION
    ),
    Hypothesis("projection with the proposal's W finds better than none", SEED_QUESTION, RAW),
    Hypothesis("one W for each cluster finds better than a blend of single pairs' W", QUESTION_HITS, PER_PAIR),
)

Method = Callable[[Fold], Floats]


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
    examples = source.examples
    if quick:
        examples, seeds = examples.take(first_families(examples.pairs, QUICK_PAIRS)), seeds[:1]
    check_families(examples.pairs)
    together = None if quick else _encoded_together(source)
    advance(1)
    dense = not quick or examples.questions.shape[1] <= QUICK_DIMENSION
    found = _Found({name: Tally() for name in SPLITS}, {name: [] for name in SPLITS}, [], {})
    for seed in seeds:
        for name, split in SPLITS.items():
            held_out = split(examples.pairs, seed)
            fold = fold_of(examples, held_out, seed, whole=name != "phrasing")
            found.sizes[name].append((len(fold.asked), len(fold.searched), fold.count))
            _everywhere(fold, found.tallies[name], advance)
            if name == "phrasing":
                texts = None if together is None else together[held_out.train]
                _phrasing_alone(fold, seed, dense, texts, found, advance)
    return _summary(source.encoder, examples, seeds, found)


def steps(seeds: Sequence[int], quick: bool) -> int:
    """How often `run` will call `advance`, each time with 1."""
    everywhere = len(SCORINGS) + len(METHODS) + len(LEXICAL_WEIGHTS)
    return 1 + len(seeds[:1] if quick else seeds) * (len(SPLITS) * everywhere + len(ALONE))


def fold_of(examples: Examples, split: Split, seed: int, *, whole: bool) -> Fold:
    """The fold of a split.

    Args:
        examples: All pairs.
        split: What is fitted on and what is asked.
        seed: Of K-means.
        whole: Search the answers of all pairs. The questions of those that are not fitted on stay unknown: they have no
            words in the lexicon and no vote.
    """
    known, asked = examples.take(split.train), examples.take(split.test)
    if not whole:
        return make_fold(known, asked, seed)
    fitted = set(split.train.tolist())
    pairs = [
        pair if row in fitted else pair.model_copy(update={"question": ""}) for row, pair in enumerate(examples.pairs)
    ]
    return make_fold(known, asked, seed, searched=Examples(pairs, examples.questions, examples.answers))


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
    """Questions asked, pairs searched and clusters, for each seed."""
    chosen: list[Trial]
    left_out: dict[str, None]


def _anchored(fold: Fold, weights: Floats) -> Floats:
    return fold.bank(START.anchor).project_rows(fold.asked.questions, weights)


def _best_questions(fold: Fold, temperature: float) -> Floats:
    """(m, K) cluster weights where the best question of a cluster votes for it, alone."""
    shares = fold.shares(temperature, None)
    best = np.stack([shares[:, fold.labels == cluster].max(axis=1) for cluster in range(fold.count)], axis=1)
    return np.asarray(best / best.sum(axis=1, keepdims=True))


T, HITS, FINAL = START.temperature, START.hits, Defaults().final_temperature
SEED_T, TOP = SEED_TEMPERATURE, SEED_CENTROIDS

SCORINGS: dict[str, Method] = {
    RAW_QUESTIONS: lambda fold: intent_ranks(fold.similarities, fold.known.intents, fold.asked.intents),
    BM25: lambda fold: fold.ranks(fold.lexical),
    FUSION: lambda fold: fold.ranks(reciprocal_rank_fusion(fold.cosines(fold.asked.questions), fold.lexical)),
}
"""What is compared without moving the question: (m,) ranks."""
METHODS: dict[str, Method] = {
    RAW: lambda fold: fold.asked.questions,
    CENTROID: lambda fold: _anchored(fold, fold.by_centroids(SEED_T, TOP)),
    QUESTION_SEED_TEMPERATURE: lambda fold: _anchored(fold, fold.by_questions(SEED_T, None)),
    QUESTION: lambda fold: _anchored(fold, fold.by_questions(T, None)),
    QUESTION_HITS: lambda fold: _anchored(fold, fold.by_questions(T, HITS)),
    QUESTION2: lambda fold: _anchored(fold, fold.by_questions(T, None, FINAL)),
    BEST_QUESTION: lambda fold: _anchored(fold, _best_questions(fold, T)),
    PER_PAIR_SEED: lambda fold: fold.through_pairs(fold.shares(SEED_T, None)),
    PER_PAIR: lambda fold: fold.through_pairs(fold.shares(T, HITS)),
}
"""What is compared by how it moves the questions: (m, D).

Where no number of hits is named all questions vote; centroid routing blends the top 10, as the proposal does, and
`question2` is question routing with its final softmax.
"""
SEED_METHODS: dict[str, Method] = {
    SEED_CENTROID: lambda fold: fold.through_centred(fold.by_centroids(SEED_T, TOP)),
    SEED_QUESTION: lambda fold: fold.through_centred(fold.by_questions(SEED_T, None)),
    SEED_QUESTION2: lambda fold: fold.through_centred(fold.by_questions(SEED_T, None, SEED_T)),
}
"""The proposal's."""
ALONE = ("the proposal's W", "the numbers chosen", "txtai")
"""What is measured on phrasing alone, in steps."""


def _everywhere(fold: Fold, tally: Tally, advance: Advance) -> None:
    """What is measured on every split."""
    tally.ask(fold.asked.intents)
    for method, move in METHODS.items():
        _add_moved(fold, method, move, tally)
        advance(1)
    for method, ranks_of_fold in SCORINGS.items():
        tally.add(method, ranks_of_fold(fold))
        advance(1)
    moved = METHODS[QUESTION_HITS](fold)
    for weight in LEXICAL_WEIGHTS:
        tally.add(with_words(weight), fold.ranks(fold.scores(moved, weight)))
        advance(1)


def _phrasing_alone(
    fold: Fold, seed: int, dense: bool, together: Floats | None, found: _Found, advance: Advance
) -> None:
    tally = found.tallies["phrasing"]
    if dense:
        for method, move in SEED_METHODS.items():
            _add_moved(fold, method, move, tally)
    else:
        found.left_out["the proposal's W, dense: a quick run has no time for them at this dimension"] = None
    advance(1)
    tuning = choose(fold.known, FitSettings(anchor=None, seed=seed), lambda _: None)
    if tuning is None:
        found.left_out["numbers chosen on the training side: it is too small to hold questions out of it"] = None
    else:
        tally.add(CHOSEN, ranks_of(fold, tuning.chosen))
        found.chosen.append(tuning.chosen)
    advance(1)
    try:
        for method, ranks in list(_txtai(fold, together)):
            tally.add(method, ranks)
    except UsageError as missing:
        found.left_out[f"txtai: {missing}; {missing.hint}"] = None
    advance(1)


def _add_moved(fold: Fold, method: str, move: Method, tally: Tally) -> None:
    moved = move(fold)
    tally.add(method, fold.ranks(fold.cosines(moved)), row_cosines(moved, fold.asked.answers))


def _txtai(fold: Fold, together: Floats | None) -> Iterator[tuple[str, Floats]]:
    """Names and ranks (m,) of txtai with vectors of the same encoder; `together`: as `_encoded_together`."""
    queries, vectors = [pair.question for pair in fold.asked.pairs], fold.asked.questions
    answers, both = [pair.answer for pair in fold.known.pairs], _joined(fold.known)
    yield TXTAI, fold.ranks(txtai_scores(answers, fold.known.answers, queries, vectors))
    if together is None:
        scores = txtai_scores(both, fold.known.answers, queries, vectors, hybrid=True)
        yield TXTAI_HYBRID_ANSWERS, fold.ranks(scores)
        return
    yield TXTAI_BOTH, fold.ranks(txtai_scores(both, together, queries, vectors))
    yield TXTAI_HYBRID, fold.ranks(txtai_scores(both, together, queries, vectors, hybrid=True))


def _summary(encoder: str, examples: Examples, seeds: Sequence[int], found: _Found) -> RoutingRun:
    phrasing = found.tallies["phrasing"]
    product = CHOSEN if CHOSEN in phrasing.methods else DEFAULT
    return RoutingRun(
        encoder=encoder,
        dimension=examples.questions.shape[1],
        pairs=len(examples),
        seeds=tuple(seeds),
        splits=tuple(_split_results(name, found) for name in SPLITS),
        words=tuple(_words_point(phrasing, weight) for weight in (0.0, *LEXICAL_WEIGHTS)),
        chosen=tuple(found.chosen),
        product=product,
        against=phrasing.differences(product, [name for name in RIVALS if name != product]),
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


EXPERIMENT = Experiment("routing", "Routing and projection", RoutingReport, tables, findings, plots)
