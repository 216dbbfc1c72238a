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

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qaserve.common.progress import Advance
from qaserve.core.routing import Floats, leave_one_out_weights, normalized_entropy
from qaserve.core.splits import phrasing_split
from qaserve.core.student import StudentSpec
from qaserve.encoders.sentence_transformer import SentenceEncoder
from qaserve.schemas.ingest import Interval
from qaserve.schemas.params import SearchParams
from qaserve.schemas.record import Record
from train.distillation.configs import SLOTS_RECIPE, Recipe
from train.distillation.teachers import RoutedTeacher
from train.distillation.training import distill
from train.experiments.datasets import Source, Weighing
from train.experiments.harness import (
    MRR,
    NONE,
    PRODUCT_MRR,
    Experiment,
    Plot,
    Report,
    Run,
    Table,
    Tally,
    draw_intervals,
    evaluate,
    mean,
    product_mrr,
    row_cosines,
    signed,
    table,
    tuned_search,
)
from train.folds import Examples, Fold, make_fold, unit_rows
from train.importance.measures import (
    BOUNDS,
    COMBINED_SHARE,
    PRIORS,
    ROUTING_MEASURES,
    TEXT_MEASURES,
    normalized,
    texts_needed,
    uncertainty,
)
from train.importance.uncertainty import TokenEntropy, text_uncertainty, token_entropy
from train.tuning import START

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BOUNDARY_SHARE = 0.25
SLOTS = 256
QUICK_PAIRS = 200
QUICK_EPOCHS = 2
OTHER_TRAINING = 1_000
"""Between the seeds of two trainings on one split; the splits have seeds 0, 1, 2 …"""
MARGIN = 0.01
"""Two weightings do the same where the whole interval of their difference, in MRR or cosine, is within ± this."""

Columns = dict[str, Callable[[str], str]]
"""Cells of a table by title: from the name of the weights."""
Use = Literal["prior", "distillation"]
Queries = Literal["all", "boundary"]

USES: tuple[Use, ...] = ("prior", "distillation")
QUERIES: tuple[Queries, ...] = ("all", "boundary")
IN_WORDS: dict[Use, str] = {"prior": "as prior in the routing softmax", "distillation": "in the distillation loss"}

UNIFORM, ENTROPY = "uniform", "entropy"
CONTROL = "shuffled entropy"
MEASURES = tuple(name for name in PRIORS if name != UNIFORM)

MRR_WITHOUT_WORDS = "mrr_without_words"
TO_ANSWER, TO_TEACHER = "cosine_to_answer", "cosine_to_teacher"
LEVEL = 0.05
"""Probability that chance alone makes one or more of all differences of a run count as such."""
SPREAD = 2 * 1.96
"""Standard errors in a 95% interval."""


class Result(Record):
    """What one weighting does in one use, over the questions of all seeds."""

    use: Use
    weighting: str
    queries: Queries
    metrics: dict[str, float] = Field(
        description="Means; mrr with β, mrr_without_words with β 0, product_mrr with all evidence."
    )
    gains: dict[str, Interval] = Field(description="Differences to uniform, paired; empty for uniform itself.")
    over_entropy: Interval | None = Field(description="Difference in mrr to entropy; null for entropy and uniform.")


class Spread(Record):
    """What the weights of one measure look like, mean over the seeds."""

    weighting: str
    lowest: float
    highest: float
    deviation: float
    with_entropy: float = Field(description="Pearson correlation with the weights of entropy.")


class ImportanceRun(Run):
    """What the experiment found with one encoder."""

    dimension: int
    pairs: int
    seeds: tuple[int, ...]
    queries: int = Field(description="Questions asked, all seeds together.")
    boundary: int = Field(description="How many of them are boundary questions.")
    clusters: float
    regularization: float
    temperature: float
    hits: int
    lexical_weight: float
    alpha: float = Field(COMBINED_SHARE, description="Share of the entropy in combined.")
    bounds: tuple[float, float] = Field(BOUNDS, description="Lowest and highest weight.")
    trainings: int = Field(1, description="Students of each weighting trained on a split.")
    student: str
    epochs: int = Field(description="At most, of a student's training.")
    left_out: tuple[str, ...] = Field(description="Measures that were not taken.")
    why_left_out: str
    head_perplexity: float | None = Field(
        None, description="Of the fitted masked-language-model head on held-out texts; null: none had to be fitted."
    )
    unigram_perplexity: float | None = Field(None, description="Of the tokens' frequencies alone, on the same texts.")
    spreads: tuple[Spread, ...]
    results: tuple[Result, ...]

    def result(self, use: Use, weighting: str, queries: Queries) -> Result:
        """The result of this name."""
        return next(one for one in self.results if (one.use, one.weighting, one.queries) == (use, weighting, queries))

    @property
    def weightings(self) -> list[str]:
        """The names of what was compared with uniform."""
        return [one.weighting for one in self.spreads if one.weighting != UNIFORM]


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


# What is shown


def tables(run: ImportanceRun) -> Iterator[Table]:
    """MRR and cosines of each use, and what the weights look like."""
    for use in USES:
        yield _mrr_table(run, use)
        yield _cosine_table(run, use)
    yield table(
        f"What the weights look like, {run.encoder}, α {run.alpha:g}",
        run.spreads,
        {
            "weights": lambda one: one.weighting,
            "lowest": lambda one: f"{one.lowest:.2f}",
            "highest": lambda one: f"{one.highest:.2f}",
            "standard deviation": lambda one: f"{one.deviation:.2f}",
            "correlation with entropy": lambda one: f"{one.with_entropy:+.2f}",
        },
    )


def _mrr_table(run: ImportanceRun, use: Use) -> Table:
    columns: Columns = {
        "MRR": lambda name: f"{run.result(use, name, 'all').metrics[MRR]:.4f}",
        "difference to uniform": _gain(run, use, "all", MRR),
        "on boundary questions": _gain(run, use, "boundary", MRR),
        "without words (β 0)": _gain(run, use, "all", MRR_WITHOUT_WORDS),
        "on boundary questions, without words": _gain(run, use, "boundary", MRR_WITHOUT_WORDS),
        "MRR of the product": lambda name: f"{run.result(use, name, 'all').metrics[PRODUCT_MRR]:.4f}",
        "difference, the product": _gain(run, use, "all", PRODUCT_MRR),
        "on boundary questions, the product": _gain(run, use, "boundary", PRODUCT_MRR),
    }
    return _table(f"Importance {IN_WORDS[use]}: MRR, {_conditions(run)}", columns, run)


def _cosine_table(run: ImportanceRun, use: Use) -> Table:
    target, metric = ("teacher", TO_TEACHER) if use == "distillation" else ("answer", TO_ANSWER)
    columns: Columns = {
        f"cosine to the {target}": lambda name: f"{run.result(use, name, 'all').metrics[metric]:.4f}",
        "difference to uniform": _gain(run, use, "all", metric),
        "on boundary questions": _gain(run, use, "boundary", metric),
    }
    if use == "distillation":
        columns["difference in cosine to the answer"] = _gain(run, use, "all", TO_ANSWER)
    return _table(f"Importance {IN_WORDS[use]}: cosines, {_conditions(run)}", columns, run)


def _table(title: str, columns: Columns, run: ImportanceRun) -> Table:
    return table(title, [UNIFORM, *run.weightings], {"weights": str} | columns)


def _conditions(run: ImportanceRun) -> str:
    return f"{run.encoder}, β {run.lexical_weight:g}, {len(run.seeds)} split{'s' * (len(run.seeds) > 1)}"


def _gain(run: ImportanceRun, use: Use, queries: Queries, metric: str) -> Callable[[str], str]:
    def cell(name: str) -> str:
        gains = run.result(use, name, queries).gains
        return _signed(gains[metric]) if gains else NONE

    return cell


def _signed(gain: Interval) -> str:
    return signed(gain, digits=4)  # the differences are small


class Claim(NamedTuple):
    """A hypothesis of the proposal, and where its figures are."""

    words: str
    use: Use
    queries: Queries
    weightings: tuple[str, ...]
    metric: str = MRR
    over: str = UNIFORM


MORE = "Counting uncertain pairs more in the"
PLACES: dict[Use, str] = {"prior": "routing softmax", "distillation": "distillation loss"}
ON: dict[Queries, str] = {"all": "", "boundary": " on boundary questions"}
BERT = "BERT's uncertainty makes better weights than entropy, in the"
CLAIMS = (
    *(
        Claim(f"{MORE} {PLACES[use]} raises MRR{ON[queries]}", use, queries, MEASURES)
        for use in USES
        for queries in QUERIES
    ),
    *(Claim(f"{MORE} {PLACES[use]} raises the MRR of the product", use, "all", MEASURES, PRODUCT_MRR) for use in USES),
    Claim(
        f"{MORE} routing softmax brings questions nearer to their answers (cosine)", "prior", "all", MEASURES, TO_ANSWER
    ),
    Claim(
        f"{MORE} distillation loss brings the student nearer to its teacher (cosine)",
        "distillation",
        "all",
        MEASURES,
        TO_TEACHER,
    ),
    Claim(
        "Entropy weighting brings the student nearer to its teacher on boundary questions (cosine)",
        "distillation",
        "boundary",
        (ENTROPY,),
        TO_TEACHER,
    ),
    Claim(
        "Fisher weights do better than entropy in the distillation loss (MRR)",
        "distillation",
        "all",
        ("fisher-empirical", "fisher-expected"),
        over=ENTROPY,
    ),
    *(Claim(f"{BERT} {PLACES[use]} (MRR)", use, "all", ("token", "combined"), over=ENTROPY) for use in reversed(USES)),
)


def findings(run: ImportanceRun) -> Iterator[str]:
    """Every hypothesis of the proposal about importance, and how it fared."""
    for claim in CLAIMS:
        if set(claim.weightings) & set(run.weightings):
            yield _judged(run, claim)
    control = [run.result(use, CONTROL, "all").gains[MRR] for use in USES]
    yield (
        f"Control, the weights of entropy dealt out at random: MRR {_signed(control[0])} in the softmax, "
        f"{_signed(control[1])} in the distillation loss. The intervals cover the choice of questions; "
        "the luck of training shows here."
    )
    yield _by_chance(run)
    everywhere, boundary = (run.result("prior", UNIFORM, queries).metrics[MRR] for queries in QUERIES)
    yield f"Uniform weights reach MRR {boundary:.3f} on boundary questions and {everywhere:.3f} on all."
    if run.head_perplexity is not None and run.unigram_perplexity is not None:
        yield (
            "The encoder has no masked-language-model head; the one fitted to it for token and combined names masked "
            f"tokens with a perplexity of {run.head_perplexity:.0f}, their frequencies alone with one of "
            f"{run.unigram_perplexity:.0f}."
        )
    if run.left_out:
        yield f"Not compared: {', '.join(run.left_out)}; {run.why_left_out}."


def summary(run: ImportanceRun) -> Iterator[str]:
    """By how much the importance of pairs changes what the product finds, at most."""
    names = [name for name in run.weightings if name != CONTROL]
    gains = [run.result(use, name, "all").gains[PRODUCT_MRR] for use in USES for name in names]
    most = max(max(abs(gain.low), abs(gain.high)) for gain in gains)
    measures = len(gains) // len(USES)
    yield (
        f"Counting some pairs more than others changes MRR by {most:.3f} at most (95% intervals), by any of {measures} "
        "measures of importance."
    )


def _judged(run: ImportanceRun, claim: Claim) -> str:
    """The claim, and for which weights it held, did not hold, did the same, or is undecided."""
    groups: dict[str, dict[str, Interval]] = {}
    among_all = _among_all(_comparisons(run))
    for name in claim.weightings:
        key = Comparison(claim.use, name, claim.queries, claim.metric, claim.over)
        if key in among_all:
            gain, holds = among_all[key]
            groups.setdefault(_verdict(gain, holds=holds), {})[name] = gain
    said = (f"{verdict} for {_listed(groups[verdict])}" for verdict in VERDICTS if verdict in groups)
    return f"{claim.words}: {'; '.join(said)}."


VERDICTS = ("held", "did not hold (worse)", f"the same within ±{MARGIN:g}", "undecided")


def _verdict(gain: Interval, *, holds: bool) -> str:
    if holds:
        return VERDICTS[0] if gain.mean > 0 else VERDICTS[1]
    return VERDICTS[2] if gain.low > -MARGIN and gain.high < MARGIN else VERDICTS[3]


def _listed(gains: Mapping[str, Interval]) -> str:
    """A few with their intervals, many with the range of their means."""
    if len(gains) <= 2:
        return ", ".join(f"{name} {_signed(gain)}" for name, gain in gains.items())
    means = [gain.mean for gain in gains.values()]
    return f"{', '.join(gains)} ({min(means):+z.4f} … {max(means):+z.4f})"


class Comparison(NamedTuple):
    """A difference that was looked at: of what, and to which weights."""

    use: Use
    weighting: str
    queries: Queries
    metric: str
    over: str


def _comparisons(run: ImportanceRun) -> dict[Comparison, Interval]:
    """Every difference of a measure; those of the control are none."""
    found: dict[Comparison, Interval] = {}
    for one in run.results:
        if one.weighting in MEASURES:
            name = one.use, one.weighting, one.queries
            found |= {Comparison(*name, metric, UNIFORM): gain for metric, gain in one.gains.items()}
            if one.over_entropy is not None:
                found[Comparison(*name, MRR, ENTROPY)] = one.over_entropy
    return found


def _among_all(found: Mapping[Comparison, Interval]) -> dict[Comparison, tuple[Interval, bool]]:
    """Each difference, and whether it holds among all: Holm's step-down method, p by the width of the interval."""
    in_order = sorted(found, key=lambda one: p_value(found[one]))
    holding = takewhile(
        lambda place: p_value(found[in_order[place]]) * (len(found) - place) <= LEVEL, range(len(found))
    )
    kept = {in_order[place] for place in holding}
    return {one: (gain, one in kept) for one, gain in found.items()}


def p_value(gain: Interval) -> float:
    """Two-sided p of no difference, for a normal error as wide as the interval says."""
    if gain.low == gain.high:
        return float(gain.mean == 0)
    return math.erfc(abs(gain.mean) / ((gain.high - gain.low) / SPREAD) / math.sqrt(2))


def _by_chance(run: ImportanceRun) -> str:
    among_all = _among_all(_comparisons(run))
    gains = [gain for gain, _ in among_all.values()]
    above, below = sum(gain.low > 0 for gain in gains), sum(gain.high < 0 for gain in gains)
    holding = [gain.mean for gain, holds in among_all.values() if holds]
    up = sum(one > 0 for one in holding)
    return (
        f"Of all {len(gains)} differences (each measure and use, all and boundary questions, MRR with and without "
        f"words and of the product, cosines, to uniform and to entropy) {above} are above zero and {below} below it "
        f"with their whole interval; chance alone leaves about {len(gains) / 20:.0f} so. Corrected for their number "
        f"(Holm), {up} stay above and {len(holding) - up} below; only these are called held or worse."
    )


def plots(runs: Sequence[ImportanceRun]) -> list[Plot]:
    """The differences in MRR, a plot per encoder."""
    return [
        Plot(
            f"differences-{one.encoder.replace('/', '-')}",
            f"MRR with each measure's weights less MRR with uniform weights, 95% intervals, {one.encoder}",
            partial(_draw, run=one),
        )
        for one in runs
    ]


def _draw(axes: "Axes", run: ImportanceRun) -> None:
    rows = {f"{name}, {use}": (use, name) for use in USES for name in run.weightings}
    titles = dict(zip(QUERIES, ("all questions", "boundary quarter"), strict=True))
    series = {
        titles[queries]: {row: run.result(*of, queries).gains[MRR] for row, of in rows.items()} for queries in QUERIES
    }
    draw_intervals(axes, list(rows), series, "difference in MRR to uniform weights (right: better), 95% interval")


PREFACE = (
    "The weights act on routing and projection, so answers are ranked by these and the words; the MRR of the product "
    "is that with topics, whitening and second pairs too, in the shares that the training side chose."
)

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
