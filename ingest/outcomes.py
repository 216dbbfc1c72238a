"""What became of the clusters and the numbers, and what the gate measured: the heavier parts of a report."""

from typing import Self

from pydantic import Field

from qaserve.bundle import Defaults, Manifest
from qaserve.records import Record
from train.metrics import Interval


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


class Numbers(Record):
    """What a build answers with."""

    anchor: float = Field(description="λ.")
    defaults: Defaults
    threshold: float | None = Field(description="Confidence below which it abstains; null: it is not calibrated.")

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Those of a build."""
        calibration = manifest.calibration
        threshold = None if calibration is None else calibration.threshold
        return cls(anchor=manifest.anchor, defaults=manifest.defaults, threshold=threshold)


class NumberChanges(Record):
    """How the numbers of a build differ from those of the live one."""

    chosen: bool = Field(description="Chosen on these pairs; false: those of the live build, or the plain ones.")
    live: Numbers | None = Field(description="Null: there is no live build, or its bundle is broken.")
    new: Numbers

    @classmethod
    def between(cls, live: Manifest | None, new: Manifest) -> Self:
        """From the live build's manifest to that of the new one."""
        before = None if live is None else Numbers.of(live)
        return cls(chosen=new.tuning is not None, live=before, new=Numbers.of(new))


class Figures(Record):
    """How well a build answers a set of questions."""

    mrr: float
    hit3: float
    mrr_among_all: float | None = Field(None, description="Among all answers of the build; null: mrr is that.")
    abstained: float | None = Field(None, description="Share abstained on; null: the build is not calibrated.")


class Worse(Record):
    """A question that the new build answers worse."""

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
    worse: tuple[Worse, ...] = Field(description="The questions that lose most, most first.")


class GateReport(Record):
    """What the gate measured, and whether the build may go live."""

    tolerance: float
    passed: bool = Field(description="The new build does not find clearly less.")
    forced: bool = Field(description="It does, and is made live all the same.")
    stops: bool = Field(description="It does, and is not made live.")
    held_out: Comparison | None = Field(description="Null: the builds share too few phrasings.")
    golden: Comparison | None = Field(description="Null: too few golden questions that both builds can find.")
