"""The experiment behind `qaserve bench routing`: every routing with every projection, on questions held out.

Three splits. *phrasing*: new phrasings of known answers; the one to judge by. *intent*: questions about intents of
which no question is known and on which nothing was fitted, while their answers can be found. *random*: upstream's
own, for comparison only, because near-repeats of the queries stay on the training side. The reference W, which take a
minute a split at D 768, the tuned hyperparameters and txtai are measured on phrasing alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from qaserve.common.errors import UsageError
from qaserve.common.progress import Advance
from qaserve.core.routing import Floats, softmax
from qaserve.core.splits import Split, check_families, intent_split, phrasing_split, random_split
from qaserve.schemas.explore import Headline, HeadlineBar
from qaserve.schemas.ingest import Interval
from qaserve.schemas.params import MAX_HITS, Hyperparameters, SearchParams, Trial
from qaserve.schemas.record import Record
from qaserve.settings import FitSettings
from train.experiments.baselines import reciprocal_rank_fusion, txtai_scores
from train.experiments.datasets import Source
from train.experiments.harness import (
    COSINE,
    MRR,
    NONE,
    SHOWN,
    Difference,
    Experiment,
    Plot,
    Report,
    Result,
    Run,
    Table,
    Tally,
    compared,
    differences_table,
    draw_gains,
    evaluate,
    is_difference,
    part_of,
    results_table,
    row_cosines,
    signed,
    style,
    table,
    versus,
)
from train.experiments.trec import Scored
from train.folds import Examples, Fold, split_fold
from train.tuning import DEFAULTS, START, tune

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SplitName = Literal["phrasing", "intent", "random"]
SPLITS: dict[SplitName, Callable[..., Split]] = {
    "phrasing": phrasing_split,
    "intent": intent_split,
    "random": random_split,
}
ABOUT: dict[SplitName, str] = {
    "phrasing": "new phrasings of known intents",
    "intent": "intents without a known question (all answers are searched)",
    "random": "upstream's random tenth, which leaks near-repeats (all answers are searched)",
}
QUICK_PAIRS = 300
QUICK_DIMENSION = 400
"""Above it, a quick run leaves the dense reference W out."""

# What is compared

REFERENCE_TEMPERATURE = 0.1
"""The proposal's."""
REFERENCE_CENTROIDS = 10
"""Upstream's; the proposal says "top-K"."""
LEXICAL_WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.5)
RAW, RAW_QUESTIONS, BM25 = "raw answers", "raw questions", "BM25 over question and answer"
FUSION = "reciprocal rank fusion of raw answers and BM25"
REFERENCE_CENTROID = f"reference W, centroid τ={REFERENCE_TEMPERATURE}"
REFERENCE_QUESTION = f"reference W, question τ={REFERENCE_TEMPERATURE}"
REFERENCE_QUESTION2 = f"reference W, question2 τ={REFERENCE_TEMPERATURE}"
CENTROID = f"anchored W, centroid τ={REFERENCE_TEMPERATURE}"
QUESTION_REFERENCE_TEMPERATURE = f"anchored W, question τ={REFERENCE_TEMPERATURE}"
QUESTION = f"anchored W, question τ={START.search.temperature:g}"
QUESTION_HITS = f"{QUESTION}, {START.search.hits} hits"
QUESTION2 = f"anchored W, question2 τ={START.search.temperature:g}"
BEST_QUESTION = f"anchored W, best question of each cluster τ={START.search.temperature:g}"
PER_PAIR_REFERENCE = f"per-pair W, τ={REFERENCE_TEMPERATURE}"
PER_PAIR = f"per-pair W, τ={START.search.temperature:g}, {START.search.hits} hits"
DEFAULT = "the product, default hyperparameters"
TUNED = "the product, hyperparameters tuned on the training side"
TUNED_PHRASINGS = "the product, hyperparameters tuned for new phrasings alone"
UNPROJECTED = "the product without projection, its other hyperparameters tuned on the training side"
PLAIN_WORDS = "plain search with words, their weight tuned on the training side"
TXTAI = "txtai over answers"
TXTAI_BOTH = "txtai over question and answer as one text"
TXTAI_HYBRID = "txtai hybrid over question and answer as one text"
TXTAI_HYBRID_ANSWERS = "txtai hybrid over question and answer, vectors of the answers"
RIVALS = (
    RAW,
    RAW_QUESTIONS,
    BM25,
    FUSION,
    PLAIN_WORDS,
    UNPROJECTED,
    REFERENCE_CENTROID,
    REFERENCE_QUESTION,
    REFERENCE_QUESTION2,
    TXTAI,
    TXTAI_BOTH,
    TXTAI_HYBRID,
    TXTAI_HYBRID_ANSWERS,
    DEFAULT,
)
"""What the product is measured against; its own default hyperparameters where it has others."""
RIVALS_UNKNOWN = (RAW, BM25, FUSION, PLAIN_WORDS, UNPROJECTED, DEFAULT)
"""The same where no question of the intent is known."""


def with_words(weight: float) -> str:
    """Name of the product's default routing and projection with words of weight β."""
    return f"{QUESTION_HITS}, words β={weight:g}"


WORDS = {with_words(weight) for weight in LEXICAL_WEIGHTS}
"""Methods that have a plot of their own."""


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
        "routing by questions instead of centroids gives 5% more cosine or better, with the reference W",
        REFERENCE_QUESTION,
        REFERENCE_CENTROID,
        COSINE,
        0.05,
    ),
    Hypothesis(
        "routing by questions instead of centroids gives 5% more cosine or better, with anchored W",
        QUESTION_REFERENCE_TEMPERATURE,
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
    Hypothesis("routing by questions finds better, with the reference W", REFERENCE_QUESTION, REFERENCE_CENTROID),
    Hypothesis("routing by questions finds better, with anchored W", QUESTION_REFERENCE_TEMPERATURE, CENTROID),
    Hypothesis("routing by questions at the product's temperature finds better, with anchored W", QUESTION, CENTROID),
    Hypothesis(
        "routing by questions generalises better, to intents that nothing was fitted on",
        QUESTION_REFERENCE_TEMPERATURE,
        CENTROID,
        split="intent",
    ),
    Hypothesis(
        "a final softmax over the clusters finds better, with the reference W", REFERENCE_QUESTION2, REFERENCE_QUESTION
    ),
    Hypothesis("a final softmax over the clusters finds better, with anchored W", QUESTION2, QUESTION),
    Hypothesis(
        "a cluster should weigh more with every question that matches, not by its best", QUESTION, BEST_QUESTION
    ),
    Hypothesis("projection with the reference W finds better than none", REFERENCE_QUESTION, RAW),
    Hypothesis("one W for each cluster finds better than a blend of single pairs' W", QUESTION_HITS, PER_PAIR),
)

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

# The report


class SplitResults(Record):
    """What came out on one split."""

    split: SplitName
    queries: float = Field(description="Questions asked, mean over the seeds.")
    searched: float = Field(description="Pairs whose answers are searched, mean over the seeds.")
    clusters: float = Field(description="K, mean over the seeds.")
    results: tuple[Result, ...]


class WordsPoint(Record):
    """MRR with some weight of the words."""

    weight: float = Field(description="β.")
    mrr: float
    gain: Interval = Field(description="Over β = 0.")


class Tested(Record):
    """A hypothesis of the proposal, and the difference that decides it."""

    claim: str
    split: SplitName
    at_least: float = Field(description="Share of the reference's figure that was promised; 0: more than nothing.")
    difference: Difference


class RoutingRun(Run):
    """What came out for one encoder."""

    dimension: int
    pairs: int
    seeds: tuple[int, ...]
    splits: tuple[SplitResults, ...]
    words: tuple[WordsPoint, ...]
    chosen: tuple[Trial, ...] = Field(description="Tuned on the training side of each phrasing split.")
    chosen_unknown: tuple[Trial, ...] = Field(description="Tuned on the training side of each intent split.")
    product: str = Field(description="The method that stands for the product in `against`.")
    against: tuple[Difference, ...] = Field(description="The product less what else there is, on phrasing.")
    against_unknown: tuple[Difference, ...] = Field(description="The same on intents without a known question.")
    hypotheses: tuple[Tested, ...]
    left_out: tuple[str, ...] = Field(description="What was not measured, and why.")


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


def tables(run: RoutingRun) -> Iterator[Table]:
    """The product against the rest, all methods on each split, and the tuned hyperparameters."""
    yield differences_table(f"{run.encoder}: the product against what else there is, new phrasings", run.against)
    title = f"{run.encoder}: the product against what else there is, {ABOUT['intent']}"
    yield differences_table(title, run.against_unknown)
    for part in run.splits:
        yield results_table(
            f"{run.encoder} (D {run.dimension}), {ABOUT[part.split]}: {run.pairs:,} pairs, mean of {len(run.seeds)} "
            f"splits with {part.queries:.0f} questions asked, {part.searched:.0f} pairs searched and "
            f"{part.clusters:.0f} clusters",
            part.results,
        )
    for split, chosen in (("phrasing", run.chosen), ("intent", run.chosen_unknown)):
        if not chosen:
            continue
        yield table(
            f"{run.encoder}: hyperparameters tuned on the training side of each {split} split",
            enumerate(chosen),
            {
                "split": lambda row: row[0],
                "projection": lambda row: f"{row[1].search.projection}, {row[1].search.projection_share:g}",
                "λ": lambda row: f"{row[1].regularization:g}",
                "ω": lambda row: f"{row[1].search.whitening:g}",
                "τ": lambda row: f"{row[1].search.temperature:g}",
                "N": lambda row: row[1].search.hits,
                "τ'": lambda row: (
                    f"{row[1].search.final_temperature:g}" if row[1].search.routing == "question2" else NONE
                ),
                "β": lambda row: f"{row[1].search.lexical_weight:g}",
                "θ": lambda row: f"{row[1].search.topic_weight:g}",
                "σ": lambda row: f"{row[1].search.second_share:g}",
                "MRR there, phrasings": lambda row: f"{row[1].phrasings:.3f}",
                "intents": lambda row: NONE if row[1].intents is None else f"{row[1].intents:.3f}",
            },
        )


def _final_temperature(trial: Trial) -> str:
    return f"{trial.search.final_temperature:g}" if trial.search.routing == "question2" else NONE


HEADLINE = {
    TUNED: "qaserve",
    UNPROJECTED: "qaserve without projection",
    PLAIN_WORDS: "plain search with words",
    TXTAI_HYBRID: "txtai, hybrid search",
    RAW: "plain search",
    BM25: "words alone (BM25)",
}
"""What the headline compares, by the names that the page shows."""


def headline(run: RoutingRun) -> Headline | None:
    """How often the right answer is first for new phrasings; None where nothing was tuned."""
    part = next(part for part in run.splits if part.split == "phrasing")
    first = {one.method: one.metrics["hit1"] for one in part.results}
    if TUNED not in first:
        return None
    return Headline(
        sentence=f"For {first[TUNED]:.0%} of new phrasings the right answer comes first, with a plain search for "
        f"{first[RAW]:.0%}.",
        measure=f"right answer first, of {part.queries * len(run.seeds):,.0f} questions held out ({run.encoder})",
        bars=tuple(
            HeadlineBar(label=label, share=first[method]) for method, label in HEADLINE.items() if method in first
        ),
    )


ASKED = {"phrasing": "On new phrasings of known questions", "intent": "On questions with no known phrasing"}
"""Splits of the summary, as a reader knows them."""


def summary(run: RoutingRun) -> Iterator[str]:
    """The product beside a plain search."""
    for part in run.splits:
        if part.split in ASKED:
            product, raw, gain = _beside_plain(part)
            yield f"{ASKED[part.split]}, {versus('qaserve', product, 'plain search', raw, gain)}."


def _beside_plain(part: SplitResults) -> tuple[float, float, Interval]:
    """MRR of the product and of a plain search, and their difference."""
    found = {one.method: one for one in part.results}
    product = found.get(TUNED, found[DEFAULT])
    return product.metrics[MRR], found[RAW].metrics[MRR], product.gain or Interval(low=0, mean=0, high=0)


OUTCOMES = {
    "better": "a higher MRR than",
    "no difference": "the same MRR, within its interval, as",
    "worse": "a lower MRR than",
}


def findings(run: RoutingRun) -> Iterator[str]:
    """The product on each split and against its rivals, every hypothesis, and what was left out."""
    for part in run.splits:
        yield _sentence_of_split(part)
    for asked, against in (("new phrasings", run.against), ("intents without a known question", run.against_unknown)):
        for outcome, sentence in OUTCOMES.items():
            told = [f"{one.reference} {signed(one.gain)}" for one in against if compared(one.gain) == outcome]
            if told:
                yield f"On {asked}, qaserve has {sentence} {'; '.join(told)}."
    yield from map(_sentence_of_hypothesis, run.hypotheses)
    for reason in run.left_out:
        yield f"left out: {reason}."


def _sentence_of_split(part: SplitResults) -> str:
    product, raw, gain = _beside_plain(part)
    said = versus("qaserve", product, "a plain search of the answers", raw, gain)
    return f"On {ABOUT[part.split]}, {said}, difference {signed(gain)}."


def _sentence_of_hypothesis(tested: Tested) -> str:
    one = tested.difference
    return (
        f'"{tested.claim}" {verdict(tested)}: {SHOWN[one.measure]} '
        f"{one.base:.3f} ({one.reference}) and {one.base + one.gain.mean:.3f} ({one.method}), "
        f"{tested.split} split, difference {signed(one.gain)}, {one.gain.mean / one.base:+z.1%}."
    )


def verdict(tested: Tested) -> str:
    """Whether a hypothesis held: by its whole interval, not by its mean."""
    gain, floor = tested.difference.gain, tested.at_least * tested.difference.base
    if not is_difference(gain):
        return "– no difference"
    if gain.low > floor:
        return "held"
    return "did not hold" if gain.high < floor else "is undecided"


def plots(runs: Sequence[RoutingRun]) -> list[Plot]:
    """What every method gains, and what the words add."""
    phrasing = {
        one.encoder: [result for result in part.results if result.method not in WORDS]
        for one in runs
        for part in one.splits
        if part.split == "phrasing"
    }
    return [
        Plot(
            "gains",
            "What every method gains in MRR over a plain search of the answers, asked new phrasings",
            lambda axes: draw_gains(axes, phrasing, RAW),
        ),
        Plot(
            "words",
            "MRR over β, the weight of the words; the band is the 95% interval of the difference to no words",
            lambda axes: _draw_words(axes, runs),
        ),
    ]


def _draw_words(axes: "Axes", runs: Sequence[RoutingRun]) -> None:
    for number, one in enumerate(runs):
        look, base = style(number), one.words[0].mrr
        weights = [point.weight for point in one.words]
        axes.plot(weights, [point.mrr for point in one.words], markersize=4, **look)
        low, high = ([base + getattr(point.gain, end) for point in one.words] for end in ("low", "high"))
        axes.fill_between(weights, low, high, color=look["color"], alpha=0.15, linewidth=0)
        axes.annotate(one.encoder, (weights[-1], one.words[-1].mrr), xytext=(6, 0), textcoords="offset points")
    axes.margins(x=0.12)
    axes.set_xlabel("β, weight of the words")
    axes.set_ylabel("MRR")


PREFACE = (
    f"The default weight of the words, β {START.search.lexical_weight:g}, was once chosen on held-out questions of the "
    "public corpus, so rows with the defaults are a little optimistic there. Tuned rows choose on the training side."
)
EXPERIMENT = Experiment(
    "routing",
    "Routing and projection",
    Report[RoutingRun],
    tables,
    findings,
    plots,
    (PREFACE,),
    headline_of=headline,
    summary_of=summary,
)
