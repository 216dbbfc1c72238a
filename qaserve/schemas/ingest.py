"""What an ingest did, or would do."""

from pydantic import Field

from qaserve.schemas.documents import DocumentsReport
from qaserve.schemas.params import Hyperparameters, Tuning
from qaserve.schemas.record import Record

REPORTED = 1_000


class Rejection(Record):
    """A line, or one question of it, that made no pair."""

    file: str
    line: int = Field(description="1 is the first line.")
    element: int | None = Field(None, description="Of a JSON array: its number, 1 is the first; null: of another file.")
    field: str | None
    reason: str

    @property
    def said(self) -> str:
        """Line, element, field and reason in one line."""
        element = "" if self.element is None else f", element {self.element}"
        field = f", field {self.field}" if self.field else ""
        return f"{self.line}{element}{field}: {self.reason}"


class BadFile(Record):
    """A file that holds nothing good. The others were read."""

    file: str
    reason: str
    hint: str


class PreviewPair(Record):
    """A pair as it would be read."""

    line: int
    question: str
    answer: str
    topics: tuple[str, ...]


class Preview(Record):
    """How a file would be read: its first rows."""

    file: str
    format: str
    fields: tuple[str, ...] = Field(description="Of its first rows; those of an object with a dot.")
    mapping: tuple[str, ...] = Field(description="FIELD=PATH: what is said of where the fields of a pair are.")
    guessed: tuple[str, ...] = Field(description="The same where nothing says so: guessed from usual names.")
    pairs: tuple[PreviewPair, ...]
    rejected: tuple[Rejection, ...]
    problem: str | None = Field(description="Why the whole file gives no pair.")


class Interval(Record):
    """A mean difference and its 95% interval; one that holds zero is called no difference."""

    low: float
    mean: float
    high: float


class Renumbered(Record):
    """A cluster that goes on under another number: numbers have no holes."""

    name: str
    was: int
    now: int


class Regrouped(Record):
    """Clusters that became others, by name."""

    before: tuple[str, ...]
    after: tuple[str, ...]


class Regrouping(Record):
    """How the clusters of a build differ from those of another. Only pairs that are in both are compared."""

    moved: int = Field(description="Pairs in another cluster than the one that theirs goes on as.")
    appeared: tuple[str, ...] = Field(description="Clusters that none goes on as.")
    vanished: tuple[str, ...] = Field(description="Clusters that go on as none.")
    split: tuple[Regrouped, ...]
    merged: tuple[Regrouped, ...]
    renumbered: tuple[Renumbered, ...]


class Drift(Record):
    """How far the pairs are from those that the clusters were made of."""

    rank: float = Field(description="Relative change of the effective rank.")
    inertia: float = Field(description="Relative change of the mean squared distance to the cluster's mean answer.")
    far: float = Field(description="Share of this ingest's new answers beyond the 95th percentile of distances.")
    changed: float = Field(description="Pairs that came, went or got another answer since, over the pairs now.")
    reasons: tuple[str, ...] = Field(description="The measures beyond their thresholds, in words; none: no drift.")

    def __bool__(self) -> bool:
        """Whether there is drift."""
        return bool(self.reasons)


class ClusterChanges(Regrouping):
    """What became of the live build's clusters, and why."""

    reclustered: bool = Field(description="False: the live clusters were kept, and new pairs joined the nearest.")
    recommended: bool = Field(description="There is drift, but QASERVE_DRIFT asks only for it to be said.")
    drift: Drift | None = Field(description="Null: the builds cannot be compared.")


class BuildParams(Hyperparameters):
    """What a build answers with."""

    threshold: float | None = Field(description="Confidence below which it abstains; null: it is not calibrated.")


class ParamChanges(Record):
    """How the parameters of a build differ from those of the live one."""

    tuning: Tuning | None = Field(description="How they were tuned; null: those of the live build, or the defaults.")
    live: BuildParams | None = Field(description="Null: there is no live build, or its bundle is broken.")
    new: BuildParams


class Figures(Record):
    """How well a build answers a set of questions."""

    mrr: float
    hit3: float
    mrr_among_all: float | None = Field(None, description="Among all answers of the build; null: mrr is that.")
    abstained: float | None = Field(None, description="Share abstained on; null: the build is not calibrated.")


class RankChange(Record):
    """A question whose answer is at another rank in the new build."""

    id: str = Field(description="Of the point.")
    pair_id: str
    question: str
    before: float | None = Field(description="Rank of the wanted intent; null: not found.")
    after: float | None


class Comparison(Record):
    """Two builds on the same questions."""

    questions: int
    live: Figures
    new: Figures
    difference: Interval = Field(description="Of MRR, new less live.")
    passed: bool
    worse: tuple[RankChange, ...] = Field(description="The questions that lose most, most first.")
    better: tuple[RankChange, ...] = Field((), description="The questions that gain most, most first.")


class GateReport(Record):
    """What the gate measured, and whether the build may go live."""

    tolerance: float
    passed: bool = Field(description="The new build does not find clearly less.")
    forced: bool = Field(description="It does, and is made live all the same.")
    stops: bool = Field(description="It does, and is not made live.")
    held_out: Comparison | None = Field(description="Null: the builds share too few phrasings.")
    golden: Comparison | None = Field(description="Null: too few golden questions that both builds can find.")


LISTED = 10_000
"""At most this many of a kind are listed; the rest is counted, so that a report stays small."""

EDITS_KEPT = 50
"""Edited pairs whose texts the report shows."""

EDIT_CHARS = 400

CONTEXT_CHARS = 40

QUESTION_CHARS = 200


class Place(Record):
    """Where a row was read."""

    file: str
    line: int


class RepeatedQuestion(Record):
    """A question that several rows ask, by folded text."""

    question: str
    answers: int = Field(description="Different answers it leads to; more than 1 is a conflict.")
    rows: tuple[Place, ...]


class ListedPair(Record):
    """A pair that changes."""

    id: str = Field(description="Of its point.")
    pair_id: str
    question: str
    file: str = Field(description="Where it was read; of a pair that was not read now, its source_file.")
    line: int | None = Field(description="Null: it was not read now.")


class Edit(Record):
    """How a pair differs from the live one."""

    id: str
    pair_id: str
    question: str
    fields: tuple[str, ...] = Field(description="What differs.")
    before: str | None = Field(description="The live answer around what differs; null: the answer is the same.")
    after: str | None


class ListedHeading(Record):
    """A heading of a Markdown file that asks nothing, with text that is in no pair."""

    file: str
    line: int
    heading: str


class PairChanges(Record):
    """The pairs that change, in the order of ids: the first 10,000 of each kind; the report counts all."""

    added: tuple[ListedPair, ...] = ()
    updated: tuple[ListedPair, ...] = ()
    removed: tuple[ListedPair, ...] = ()


class FileCounts(Record):
    """What a file brought."""

    file: str
    format: str = Field("", description="In words, with what was detected of delimiter and encoding.")
    read: int = Field(description="Pairs.")
    added: int
    updated: int
    unchanged: int
    rejected: int


class IngestReport(Record):
    """The contract's report."""

    build: str | None = Field(description="The live build afterwards, or what a dry run says it would be.")
    corpus: str
    dry_run: bool
    bad_files: tuple[BadFile, ...] = Field((), description="Files that hold nothing good; they were passed over.")
    read: int = Field(description="Pairs read.")
    added: int
    updated: int
    unchanged: int
    removed: int
    rejected: tuple[Rejection, ...] = Field(description=f"The first {REPORTED:,}.")
    rejections: int = Field(description="How many there are in all.")
    rejected_file: str | None = Field(
        description="In the data folder: the rejected lines as they were read, to be corrected and ingested."
    )
    repeats: int = Field(description="Rows whose question an earlier row asks. They are kept.")
    conflicts: int = Field(description="Questions that lead to different answers. They are kept.")
    late_fences: int = Field(
        0, description="Pairs whose answer has a code fence in the middle of a line. They are kept, and shown as code."
    )
    late_fence_pairs: tuple[ListedPair, ...] = Field((), description=f"The first {LISTED:,}.")
    passed_over: int = Field(
        0, description="Headings of Markdown files that ask nothing, with text. No pair is made of them."
    )
    passed_over_headings: tuple[ListedHeading, ...] = Field((), description=f"The first {REPORTED:,}.")
    repeated_questions: tuple[RepeatedQuestion, ...] = Field(description=f"The first {LISTED:,}.")
    changes: PairChanges
    edits: tuple[Edit, ...] = Field(description=f"The first {EDITS_KEPT} of the updated pairs: what differs.")
    files: tuple[FileCounts, ...]
    documents: DocumentsReport | None = Field(None, description="Null: there are none, and none were named.")
    encoded: int = Field(description="Texts that go through the encoder.")
    pairs: int = Field(description="Pairs in the build.")
    clusters: int | None = Field(description="Clusters in the build.")
    cluster_changes: ClusterChanges | None = Field(None, description="Null: no new build, or none before it.")
    params: ParamChanges | None = Field(None, description="What the build answers with; null: no new build.")
    metrics: dict[str, float] = Field(default_factory=dict, description="Of the new build, as its manifest has them.")
    gate: GateReport | None = Field(None, description="Null: no new build, or none before it to compare with.")
    encoder: str
    seconds: float
    stages: dict[str, float] = Field(description="Seconds by stage.")
    cleaned: tuple[str, ...] = Field((), description="Orphans of interrupted ingests that were, or would be, removed.")
