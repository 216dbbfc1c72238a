"""What `qaserve bench importance` shows: tables, findings and plots, made from its report alone."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from qaserve.records import Record
from train.experiments.harness import Plot, Table
from train.importance.measures import PRIORS
from train.metrics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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

MRR, MRR_WITHOUT_WORDS = "mrr", "mrr_without_words"
TO_ANSWER, TO_TEACHER = "cosine_to_answer", "cosine_to_teacher"


class Result(Record):
    """What one weighting does in one use, over the questions of all seeds."""

    use: Use
    weighting: str
    queries: Queries
    metrics: dict[str, float] = Field(description="Means; mrr with the words' weight β, mrr_without_words with β = 0.")
    gains: dict[str, Interval] = Field(description="Differences to uniform, paired; empty for uniform itself.")
    over_entropy: Interval | None = Field(description="Difference in mrr to entropy; null for entropy and uniform.")


class Spread(Record):
    """What the weights of one measure look like, mean over the seeds."""

    weighting: str
    lowest: float
    highest: float
    deviation: float
    with_entropy: float = Field(description="Pearson correlation with the weights of entropy.")


class ImportanceRun(Record):
    """What the experiment found with one encoder."""

    encoder: str
    dimension: int
    pairs: int
    seeds: tuple[int, ...]
    queries: int = Field(description="Questions asked, all seeds together.")
    boundary: int = Field(description="How many of them are boundary questions.")
    clusters: float
    anchor: float
    temperature: float
    hits: int
    lexical_weight: float
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


class ImportanceReport(Record):
    """What the experiment found."""

    runs: tuple[ImportanceRun, ...]


def tables(report: ImportanceReport) -> list[Table]:
    """MRR and cosines of each use with each encoder, and what the weights look like."""
    found = []
    for one in report.runs:
        found += [table(one, use) for use in USES for table in (_mrr_table, _cosine_table)]
        found.append(_spread_table(one))
    return found


def _mrr_table(run: ImportanceRun, use: Use) -> Table:
    columns: Columns = {
        "MRR": lambda name: f"{run.result(use, name, 'all').metrics[MRR]:.4f}",
        "difference to uniform": _gain(run, use, "all", MRR),
        "on boundary questions": _gain(run, use, "boundary", MRR),
        "without words (β 0)": _gain(run, use, "all", MRR_WITHOUT_WORDS),
        "on boundary questions, without words": _gain(run, use, "boundary", MRR_WITHOUT_WORDS),
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
    rows = [(name, *(cell(name) for cell in columns.values())) for name in [UNIFORM, *run.weightings]]
    return Table(title, ("weights", *columns), tuple(rows))


def _conditions(run: ImportanceRun) -> str:
    return f"{run.encoder}, β {run.lexical_weight:g}, {len(run.seeds)} split{'s' * (len(run.seeds) > 1)}"


def _gain(run: ImportanceRun, use: Use, queries: Queries, metric: str) -> Callable[[str], str]:
    def cell(name: str) -> str:
        gains = run.result(use, name, queries).gains
        return _signed(gains[metric]) if gains else "–"

    return cell


def _spread_table(run: ImportanceRun) -> Table:
    rows = tuple(
        (one.weighting, f"{one.lowest:.2f}", f"{one.highest:.2f}", f"{one.deviation:.2f}", f"{one.with_entropy:+.2f}")
        for one in run.spreads
    )
    columns = ("weights", "lowest", "highest", "standard deviation", "correlation with entropy")
    return Table(f"What the weights look like, {run.encoder}", columns, rows)


def _signed(gain: Interval) -> str:
    """Four decimals: the differences are small."""
    return f"{gain.mean:+z.4f} ({gain.low:+z.4f} … {gain.high:+z.4f})"


class Claim(NamedTuple):
    """A hypothesis of the proposal, and where its figures are."""

    words: str
    use: Use
    queries: Queries
    weightings: tuple[str, ...]
    metric: str = MRR
    over: str = UNIFORM


BERT_MEASURES = ("token", "combined")
CLAIMS = (
    Claim("Counting uncertain pairs more in the routing softmax raises MRR", "prior", "all", MEASURES),
    Claim(
        "Counting uncertain pairs more in the routing softmax raises MRR on boundary questions",
        "prior",
        "boundary",
        MEASURES,
    ),
    Claim("Counting uncertain pairs more in the distillation loss raises MRR", "distillation", "all", MEASURES),
    Claim(
        "Counting uncertain pairs more in the distillation loss raises MRR on boundary questions",
        "distillation",
        "boundary",
        MEASURES,
    ),
    Claim(
        "Counting uncertain pairs more in the routing softmax brings questions nearer to their answers (cosine)",
        "prior",
        "all",
        MEASURES,
        TO_ANSWER,
    ),
    Claim(
        "Counting uncertain pairs more in the distillation loss brings the student nearer to its teacher (cosine)",
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
    Claim(
        "BERT's uncertainty makes better weights than entropy, in the distillation loss (MRR)",
        "distillation",
        "all",
        BERT_MEASURES,
        over=ENTROPY,
    ),
    Claim(
        "BERT's uncertainty makes better weights than entropy, in the routing softmax (MRR)",
        "prior",
        "all",
        BERT_MEASURES,
        over=ENTROPY,
    ),
)


def findings(report: ImportanceReport) -> list[str]:
    """Every hypothesis of the proposal about importance, and how it fared with each encoder."""
    return [f"{one.encoder}: {sentence}" for one in report.runs for sentence in _findings(one)]


def _findings(run: ImportanceRun) -> Iterator[str]:
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


def _judged(run: ImportanceRun, claim: Claim) -> str:
    """The claim, and for which weights it held, did not hold, or made no difference."""
    groups: dict[str, dict[str, Interval]] = {}
    for name in claim.weightings:
        if name in run.weightings:
            result = run.result(claim.use, name, claim.queries)
            gain = result.over_entropy if claim.over == ENTROPY else result.gains[claim.metric]
            if gain is not None:
                groups.setdefault(_verdict(gain), {})[name] = gain
    said = (f"{verdict} for {_listed(groups[verdict])}" for verdict in VERDICTS if verdict in groups)
    return f"{claim.words}: {'; '.join(said)}."


VERDICTS = ("held", "did not hold (worse)", "no difference")


def _verdict(gain: Interval) -> str:
    if gain.low > 0:
        return VERDICTS[0]
    return VERDICTS[1] if gain.high < 0 else VERDICTS[2]


def _listed(gains: Mapping[str, Interval]) -> str:
    """A few with their intervals, many with the range of their means."""
    if len(gains) <= 2:
        return ", ".join(f"{name} {_signed(gain)}" for name, gain in gains.items())
    means = [gain.mean for gain in gains.values()]
    return f"{', '.join(gains)} ({min(means):+z.4f} … {max(means):+z.4f})"


def _by_chance(run: ImportanceRun) -> str:
    gains = [one.gains[MRR] for one in run.results if one.weighting in MEASURES]
    above, below = sum(gain.low > 0 for gain in gains), sum(gain.high < 0 for gain in gains)
    return (
        f"Of {len(gains)} differences in MRR (each measure and use, all and boundary questions) {above} are above zero "
        f"and {below} below it with their whole interval; chance alone leaves about {len(gains) / 20:.0f} so."
    )


def plots(report: ImportanceReport) -> list[Plot]:
    """The differences in MRR, a plot per encoder."""
    return [
        Plot(
            f"differences-{one.encoder.replace('/', '-')}",
            f"MRR with each measure's weights less MRR with uniform weights, 95% intervals, {one.encoder}",
            partial(_draw, run=one),
        )
        for one in report.runs
    ]


COLOURS: dict[Queries, str] = {"all": "#0072B2", "boundary": "#D55E00"}
"""Blue and vermilion of Okabe & Ito (2008), told apart by colour-blind eyes too."""
OFFSETS: dict[Queries, float] = {"all": -0.17, "boundary": 0.17}


def _draw(axes: "Axes", run: ImportanceRun) -> None:
    names = run.weightings
    rows = [
        (use, name, place + number * (len(names) + 1.4))
        for number, use in enumerate(USES)
        for place, name in enumerate(names)
    ]
    for use, name, place in rows:
        for queries in QUERIES:
            gain, colour = run.result(use, name, queries).gains[MRR], COLOURS[queries]
            y = place + OFFSETS[queries]
            axes.plot([gain.low, gain.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
            axes.plot(gain.mean, y, "o" if queries == "all" else "D", color=colour, markersize=5)
    axes.axvline(0, color="0.3", linewidth=0.9, zorder=1)
    axes.set_yticks([place for _, _, place in rows], [name for _, name, _ in rows])
    axes.set_ylim(rows[-1][2] + 0.7, -2.1)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.set_xlabel("difference in MRR to uniform weights (right: better), 95% interval")
    across = axes.get_yaxis_transform()
    for number, use in enumerate(USES):
        place = number * (len(names) + 1.4) - 0.75
        axes.text(0.01, place, IN_WORDS[use], transform=across, fontweight="bold", va="center")
    axes.text(0.6, -1.7, "● all questions", transform=across, color=COLOURS["all"], va="center")
    axes.text(0.8, -1.7, "◆ boundary quarter", transform=across, color=COLOURS["boundary"], va="center")
