"""Who answers `qaserve ask` and `skill`: the data of the settings in this process, or the API of QASERVE_API_URL."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from qaserve.cli.base import corpus_to_ask, err, make_encoder
from qaserve.common.errors import QaserveError
from qaserve.schemas.ask import AskRequest, AskResult
from qaserve.schemas.documents import SkillDetail, SkillIndex
from qaserve.settings import Settings

if TYPE_CHECKING:
    from qaserve.client.http import Client
    from qaserve.search.engine import Engine
    from qaserve.service.gaps import QuestionLog

API_CALLERS = 8
"""Questions of a file that are sent at once; the API encodes them together."""


class Answerer(Protocol):
    """Answers questions."""

    def ask(self, request: AskRequest) -> AskResult:
        """Answer a question."""

    def ask_many(self, requests: Sequence[AskRequest]) -> list[AskResult | QaserveError]:
        """Answer some questions in their order. Instead of an answer it gives an error of that question alone."""

    def skill(self, name: str) -> SkillDetail:
        """A skill. Raises NotFoundError where there is none of that name."""

    def skills(self) -> SkillIndex:
        """Every skill."""


@contextmanager
def answerer(settings: Settings) -> Iterator[Answerer]:
    """What answers, ready to do so, until the block ends.

    Raises:
        QaserveError: The build or the encoder cannot be used.
    """
    if settings.server.api_url is not None:
        from qaserve.client.http import Client

        with Client(**settings.server.client) as client:
            yield OverApi(client)
        return
    from qaserve.search.engine import Engine
    from qaserve.service.gaps import QuestionLog
    from qaserve.store import open_store

    with open_store(settings.store, read_only=True) as store:
        corpus = corpus_to_ask(settings, store)
        engine = Engine(store, make_encoder(settings), settings.store.models_dir, corpus, settings.search)
        with err.status("Loading the encoder …"):
            engine.load()
        yield InProcess(engine, QuestionLog(settings.store.data_dir, corpus, **settings.server.keeping))


class InProcess:
    """An engine of this process."""

    def __init__(self, engine: "Engine", kept: "QuestionLog") -> None:
        """Remember the engine, and where questions are kept."""
        self._engine, self._kept = engine, kept

    def ask(self, request: AskRequest) -> AskResult:
        """Answer a question."""
        result = self._engine.ask(request)
        self._kept.keep_abstained([result])
        return result

    def ask_many(self, requests: Sequence[AskRequest]) -> list[AskResult | QaserveError]:
        """Answer some questions, which are encoded together."""
        from qaserve.search.many import ask_many

        found = ask_many(self._engine, requests)
        self._kept.keep_abstained(one for one in found if isinstance(one, AskResult))
        return found

    def skill(self, name: str) -> SkillDetail:
        """A skill."""
        return self._engine.skill(name)

    def skills(self) -> SkillIndex:
        """Every skill."""
        return self._engine.skills()


class OverApi:
    """An API, asked by its client."""

    def __init__(self, client: "Client") -> None:
        """Remember the client."""
        self._client = client

    def ask(self, request: AskRequest) -> AskResult:
        """Answer a question."""
        return self._client.ask(request)

    def ask_many(self, requests: Sequence[AskRequest]) -> list[AskResult | QaserveError]:
        """Send some questions at once, so that the API encodes them together."""
        with ThreadPoolExecutor(API_CALLERS) as pool:
            return list(pool.map(self._one, requests))

    def skill(self, name: str) -> SkillDetail:
        """A skill."""
        return self._client.skill(name)

    def skills(self) -> SkillIndex:
        """Every skill."""
        return self._client.skill_index()

    def _one(self, request: AskRequest) -> AskResult | QaserveError:
        from qaserve.search.many import of_one_question

        try:
            return self._client.ask(request)
        except QaserveError as error:
            if of_one_question(error):
                return error
            raise
