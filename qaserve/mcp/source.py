"""Where the tools get their answers: from an API through its client, or from an engine in this process."""

from collections.abc import Callable, Sequence
from typing import Protocol

from qaserve import __version__
from qaserve.mcp.results import Added, NewPair
from qaserve.schemas.ask import AskRequest, AskResult
from qaserve.schemas.builds import BuildList, ClusterList
from qaserve.schemas.documents import SkillDetail, SkillIndex
from qaserve.schemas.pairs import PairsFound
from qaserve.schemas.service import Health
from qaserve.search.engine import Engine
from qaserve.service.gaps import QuestionLog

Add = Callable[[Sequence[NewPair]], Added]


class Source(Protocol):
    """What the tools need. `qaserve.client.http.Client` is one."""

    def ask(self, request: AskRequest) -> AskResult:
        """Answer a question."""

    def pairs(self, identifier: str) -> PairsFound:
        """The pairs of an id."""

    def skill(self, name: str) -> SkillDetail:
        """A skill; raises NotFoundError where there is none of that name."""

    def skill_index(self) -> SkillIndex:
        """Every skill."""

    def clusters(self) -> ClusterList:
        """Every cluster."""

    def builds(self) -> BuildList:
        """Every build."""

    def ready(self) -> Health:
        """Whether questions can be answered; raises what keeps it from that."""


class EngineSource:
    """An engine of this process."""

    def __init__(self, engine: Callable[[], Engine], kept: Callable[[], QuestionLog] | None = None) -> None:
        """Remember how to get the engine and where questions are kept: both are got at every call, so may come late."""
        self._engine, self._kept = engine, kept

    def ask(self, request: AskRequest) -> AskResult:
        """Answer a question."""
        result = self._engine().ask(request)
        if self._kept is not None:
            self._kept().keep_abstained([result])
        return result

    def pairs(self, identifier: str) -> PairsFound:
        """The pairs of an id."""
        return self._engine().pairs(identifier)

    def skill(self, name: str) -> SkillDetail:
        """A skill."""
        return self._engine().skill(name)

    def skill_index(self) -> SkillIndex:
        """Every skill."""
        return self._engine().skills()

    def clusters(self) -> ClusterList:
        """Every cluster."""
        live = self._engine().load()
        return ClusterList(build=live.ref.build, clusters=live.clusters)

    def builds(self) -> BuildList:
        """Every build."""
        engine = self._engine()
        return BuildList(corpus=engine.corpus, title=engine.title(), builds=tuple(engine.builds()))

    def ready(self) -> Health:
        """Whether questions can be answered."""
        engine = self._engine()
        return Health(version=__version__, corpus=engine.corpus, build=engine.load().ref.build)
