"""What the page knows of the API. A rerun of the page repeats no request that was answered a moment ago."""

import json
from typing import Protocol, TypeVar

import streamlit as st

from qaserve.client.http import Client
from qaserve.schemas.ask import AskRequest, AskResult
from qaserve.schemas.builds import BuildInfo, BuildList, ClusterDetail, ClusterInfo
from qaserve.schemas.documents import SkillDetail, SkillSummary
from qaserve.schemas.explore import (
    ClusterView,
    CorpusMap,
    Facets,
    OverlapList,
    PlacedAsk,
    QualityList,
    ReportList,
    ReportView,
)
from qaserve.schemas.gaps import GapList
from qaserve.settings import get_settings

T = TypeVar("T", bound="OfBuild")


class OfBuild(Protocol):
    """A reply that says which build it is about."""

    @property
    def build(self) -> str:
        """Its id."""


EXAMPLES = 5
TRIES = 3
"""Questions of a cluster that are tried as an example."""
KEPT_SECONDS = 600
BUILDS_SECONDS = 30
"""An answer of another build ends this sooner."""


@st.cache_resource
def client() -> Client:
    """The one client of this process."""
    return Client(**get_settings().server.client)


@st.cache_data(ttl=BUILDS_SECONDS, show_spinner=False)
def builds() -> BuildList:
    """Every build of the corpus."""
    return client().builds()


def _of(build: str, reply: T) -> T:
    """A reply about this build. Where another is live by now, it is not kept: the page is drawn again, with that."""
    if reply.build != build:
        builds.clear()
        st.rerun()
    return reply


def may_change() -> bool:
    """Whether the key of this page lets it change something; else it only asks."""
    return builds().may_change


def kept_days() -> int:
    """For how many days questions without an answer are kept; 0: they are not."""
    found = builds()
    return found.keep_days if found.keeps_questions else 0


@st.cache_data(ttl=10, max_entries=2, show_spinner="Grouping the questions …")
def gaps(build: str) -> GapList:
    """Questions that found no answer."""
    return _of(build, client().gaps())


def live_build() -> BuildInfo | None:
    """The build that answers."""
    return next((build for build in builds().builds if build.live), None)


@st.cache_data(ttl=KEPT_SECONDS, max_entries=512, show_spinner="Searching …")
def _ask(request: str, build: str) -> AskResult:
    result = _of(build, client().ask(AskRequest.model_validate_json(request)))
    if result.confidence.abstained:
        gaps.clear()  # the question may be one of them now
    return result


def ask(request: AskRequest, build: str) -> AskResult:
    """The answer to a request."""
    return _ask(json.dumps(request.to_json()), build)


@st.cache_data(ttl=KEPT_SECONDS, max_entries=64, show_spinner="Drawing the map …")
def _place(request: str, build: str) -> PlacedAsk:  # noqa: ARG001 - the build is part of the cache's key
    return client().place(AskRequest.model_validate_json(request))


def place(request: AskRequest, build: str) -> PlacedAsk:
    """An ask on the map."""
    return _place(json.dumps(request.to_json()), build)


@st.cache_resource(ttl=KEPT_SECONDS, max_entries=4, show_spinner="Drawing the map. The first time takes some seconds …")
def corpus_map(build: str) -> CorpusMap:
    """Clusters and answers of the live build in two dimensions."""
    return _of(build, client().corpus_map())


@st.cache_data(
    ttl=KEPT_SECONDS, max_entries=4, show_spinner="Measuring the clusters. The first time takes some seconds …"
)
def quality(build: str) -> QualityList:
    """How good the live build's clusters are."""
    return _of(build, client().quality())


@st.cache_data(ttl=KEPT_SECONDS, max_entries=4, show_spinner="Comparing the intents …")
def overlaps(build: str) -> OverlapList:
    """Intents of the live build that nearly coincide."""
    return _of(build, client().overlaps())


@st.cache_data(ttl=KEPT_SECONDS, max_entries=64, show_spinner="Opening the cluster …")
def cluster_view(number: int, build: str) -> ClusterView:
    """One cluster from above."""
    return _of(build, client().cluster_quality(number))


@st.cache_data(ttl=KEPT_SECONDS, max_entries=64, show_spinner=False)
def cluster_pairs(number: int, build: str) -> ClusterDetail:
    """One cluster with its pairs."""
    return _of(build, client().cluster(number))


@st.cache_data(ttl=KEPT_SECONDS, max_entries=4, show_spinner=False)
def facets(build: str) -> Facets:
    """What answers can be filtered by."""
    return _of(build, client().facets())


@st.cache_data(ttl=KEPT_SECONDS, max_entries=8, show_spinner=False)
def clusters(build: str) -> tuple[ClusterInfo, ...]:
    """Every cluster of the live build."""
    return _of(build, client().clusters()).clusters


@st.cache_data(ttl=KEPT_SECONDS, max_entries=4, show_spinner=False)
def skills(build: str) -> dict[str, SkillSummary]:
    """Every skill by name."""
    return {one.name: one for one in _of(build, client().skill_index()).skills}


@st.cache_data(ttl=KEPT_SECONDS, max_entries=16, show_spinner="Opening the document …")
def skill(name: str, build: str) -> SkillDetail:
    """A skill with its document."""
    return _of(build, client().skill(name))


@st.cache_data(ttl=KEPT_SECONDS, max_entries=8, show_spinner=False)
def example_questions(build: str) -> list[str]:
    """Real questions that find their own answers, from clusters far apart in size."""
    count = len(clusters(build))
    chosen = sorted({round(step * (count - 1) / EXAMPLES) for step in range(EXAMPLES)})
    details = [cluster_pairs(number, build) for number in chosen]
    plainest = [sorted((pair.pair.question for pair in found.pairs), key=_plainness)[:TRIES] for found in details]
    found = [next((one for one in questions if _answered_well(one, build)), questions[0]) for questions in plainest]
    return list(dict.fromkeys(found))


def _answered_well(question: str, build: str) -> bool:
    """Whether the answer of the known question comes first."""
    result = ask(AskRequest(question=question), build)
    return result.answers[0].pair_id == result.explained.hits[0].pair_id if result.explained.hits else True


def _plainness(question: str) -> tuple[bool, int]:
    return not question.endswith("?"), len(question)


@st.cache_data(ttl=KEPT_SECONDS, show_spinner=False)
def reports() -> ReportList:
    """The experiments that were measured."""
    return client().reports()


@st.cache_data(ttl=KEPT_SECONDS, max_entries=8, show_spinner="Reading the report …")
def report(name: str) -> ReportView:
    """What one experiment found."""
    return client().report(name)
