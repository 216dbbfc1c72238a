"""Records of what the page shows beyond answers: maps, how good clusters are, facets, reports."""

from typing import Annotated

from pydantic import Field

from qaserve.schemas.ask import AskResult
from qaserve.schemas.record import Record

OVERLAP_THRESHOLD = 0.95
"""Cosine from which intents overlap. With MiniLM on the public corpus: 64 pairs of its 384 intents.

There, each of them asks or answers the same. From 0.91 to 0.95 more and more only share their subject.
"""
MAX_OVERLAPS = 1_000

OverlapThreshold = Annotated[float, Field(ge=0.5, le=1)]
OverlapLimit = Annotated[int, Field(ge=1, le=MAX_OVERLAPS)]


class MapCluster(Record):
    """A cluster of answers on the map."""

    cluster: int
    name: str
    size: int
    x: float
    y: float


class MapAnswer(Record):
    """An answer on the map."""

    id: str
    question: str = Field(description="That it answers.")
    cluster: int
    topic: str = Field("", description="The first; empty where there is none.")
    skill: str = Field("", description="The first; empty where there is none.")
    own: float = Field(0.0, description="Weight that the other known questions give to its cluster for its question.")
    x: float
    y: float


class CorpusMap(Record):
    """Clusters and answers in two dimensions: what is near is alike, and the axes mean nothing by themselves."""

    build: str
    clusters: tuple[MapCluster, ...]
    answers: tuple[MapAnswer, ...] = Field(description="At most as many as a map can show.")
    total: int = Field(description="Answers that the build holds.")


class MapMark(Record):
    """A text placed on the map."""

    label: str
    cluster: int
    x: float
    y: float


class Spot(Record):
    """A place on the map."""

    x: float
    y: float


class PlacedAsk(Record):
    """An ask on the map of its build."""

    result: AskResult
    question: Spot
    turned: Spot = Field(description="The question after its projection.")
    turned_by: tuple[MapMark, ...] = Field(
        (),
        description="The question after the W of each cluster alone, largest weight first; none where no W was "
        "used, and without `explain`.",
    )
    hits: tuple[MapMark, ...] = Field(description="The known questions that voted.")
    answers: tuple[MapMark, ...]


class ClusterQuality(Record):
    """How a cluster of answers looks, and how well questions find it."""

    cluster: int
    name: str
    terms: tuple[str, ...]
    skills: tuple[str, ...]
    size: int
    spread: float = Field(description="1 - mean cosine of its answers to their mean: 0 all alike.")
    turn: float = Field(description="Mean angle, in degrees, by which its W turns its own questions.")
    before: float = Field(description="Mean cosine of its questions to their answers.")
    after: float = Field(description="The same once its W has turned them; it was fitted to these very pairs.")
    found: float = Field(
        description="Share of its questions that route to it when all the others vote and the question itself does not."
    )
    entropy: float = Field(description="Mean entropy of those votes over log K: 0 sure, 1 all clusters alike.")


class QualityList(Record):
    """The quality of every cluster of the live build."""

    build: str
    pairs: int = Field(description="Pairs in the build.")
    looked_at: int = Field(description="Pairs that were looked at; fewer than there are where a build is large.")
    found: float = Field(description="Share of all questions that route home when they do not vote themselves.")
    clusters: tuple[ClusterQuality, ...]


class Neighbour(Record):
    """A cluster whose answers are near."""

    cluster: int
    name: str
    similarity: float = Field(description="Cosine of the two mean answers.")


class BorderPair(Record):
    """A pair whose question routes partly, or mostly, to another cluster when it does not vote itself."""

    id: str
    pair_id: str
    question: str
    entropy: float
    own: float = Field(description="Weight that the others give to its own cluster.")
    rival: int = Field(description="The other cluster with most weight.")
    rival_name: str
    rival_weight: float


class ClusterView(Record):
    """One cluster: how good it is, what is near it, and where its questions are unsure."""

    build: str
    quality: ClusterQuality
    neighbours: tuple[Neighbour, ...]
    border: tuple[BorderPair, ...] = Field(description="The pairs whose votes are least decided, first.")
    elsewhere: tuple[BorderPair, ...] = Field(description="The pairs whose question routes to another cluster.")


class IntentOverlap(Record):
    """Two intents whose questions or answers nearly coincide, and how to merge them."""

    keep: str = Field(description="The cluster_id to keep.")
    merge: str = Field(description="The cluster_id whose pairs would get the other one.")
    reason: str = Field(description="Why, and what to look at first.")
    question: float = Field(description="Highest cosine of a question of one to a question of the other.")
    answer: float = Field(description="The same of their answers.")
    keep_pairs: int
    merge_pairs: int
    keep_text: str = Field(description="The nearest question of the one to keep; the answer where answers are nearer.")
    merge_text: str = Field(description="The same of the other.")


class OverlapList(Record):
    """Near-duplicate intents of the live build, the nearest first."""

    build: str
    pairs: int = Field(description="Pairs in the build.")
    looked_at: int = Field(description="Pairs that were compared; fewer than there are where a build is large.")
    intents: int = Field(description="Intents of these pairs.")
    threshold: float = Field(description="A pair of intents is listed from this cosine of questions or answers.")
    found: int = Field(description="How many pairs of intents there are.")
    overlaps: tuple[IntentOverlap, ...] = Field(description="At most as many as were asked for.")


class FacetValue(Record):
    """A value that answers can be filtered by."""

    value: str
    label: str
    count: int


class Facets(Record):
    """What answers can be filtered by, with how many pairs have it; the most frequent values first."""

    build: str
    topics: tuple[FacetValue, ...]
    tags: tuple[FacetValue, ...]
    related_skills: tuple[FacetValue, ...]
    source_file: tuple[FacetValue, ...]
    cluster: tuple[FacetValue, ...]


class Suggestions(Record):
    """Known questions that a text being typed may become."""

    build: str
    questions: tuple[str, ...] = Field(description="Those that begin with the text first, the shorter first.")


class ReportTable(Record):
    """A table of a report; columns after the first hold figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class ReportPicture(Record):
    """A plot of a report."""

    title: str = Field(description="What one sees, for those who cannot see it.")
    png: str = Field(description="The picture, in Base64.")


class HeadlineBar(Record):
    """What one way of searching reached."""

    label: str
    share: float = Field(ge=0, le=1)


class Headline(Record):
    """The result that is told first, in one sentence."""

    sentence: str
    measure: str = Field(description="What the shares are shares of.")
    bars: tuple[HeadlineBar, ...] = Field(description="qaserve first.")


class ReportInfo(Record):
    """An experiment that was measured."""

    name: str
    title: str
    date: str
    findings: int = Field(description="How many sentences it comes to.")


class ReportList(Record):
    """The reports there are, and files that are none."""

    reports: tuple[ReportInfo, ...]
    unreadable: tuple[str, ...] = Field(description="Why a file was left out, one sentence each.")
    headline: Headline | None = Field(None, description="Of the first report that has one.")
    public: bool = Field(False, description="Whether these ship with qaserve and were measured on the public corpus.")


class ReportView(Record):
    """What an experiment found."""

    name: str
    title: str
    summary: tuple[str, ...] = Field((), description="What came out, in plain sentences; the first is the headline.")
    findings: tuple[str, ...]
    tables: tuple[ReportTable, ...]
    pictures: tuple[ReportPicture, ...]
    command: str
    date: str
    measured_on: str
