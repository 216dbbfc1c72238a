"""The engine: a question in, answers and the reasons for them out."""

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from qaserve.builds import bundle as bundles
from qaserve.builds.catalog import activate, check_encoder, list_builds, naming_close, open_documents
from qaserve.builds.titles import read_title
from qaserve.common.errors import BuildNotFoundError, BundleError, NotFoundError, UsageError
from qaserve.common.text import control_character, fold, has_surrogate, shorten
from qaserve.core.calibration import NEAREST
from qaserve.encoders.base import Encoder
from qaserve.schemas.ask import AskRequest, AskResult, Timings
from qaserve.schemas.builds import BuildInfo, ClusterDetail
from qaserve.schemas.documents import DocumentDetail, SkillDetail, SkillIndex
from qaserve.schemas.pairs import PairsFound, StoredPair, pairs_of_intent
from qaserve.schemas.params import MAX_ASKED_CHARS, SearchParams
from qaserve.search import skills
from qaserve.search.build import OpenBuild
from qaserve.search.confidence import confidences_of
from qaserve.search.names import WEIGHT, named_skills, rare_names
from qaserve.search.outcome import Found, Outcome, Query, neighbors_of
from qaserve.search.ranking import rank_intents
from qaserve.search.skills import rank_skills, skills_of
from qaserve.search.trace import PLAIN_LIMIT, PlainSearch, answers_of, ids_to_read, trace_of
from qaserve.store import Build, BuildRef, Store
from qaserve.store.errors import damaged
from qaserve.store.points import ANSWER, INTENT, nearest, to_pair

P = ParamSpec("P")
T = TypeVar("T")


def _again_if_pruned(method: Callable[P, T]) -> Callable[P, T]:
    """Once more, from the new live build, where the one that was being read has been pruned meanwhile."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except (BuildNotFoundError, BundleError):
            return method(*args, **kwargs)

    return call


class Engine:
    """Answers questions from the live build of one corpus. Safe to share between threads."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        models_dir: Path,
        corpus: str,
        overrides: SearchParams | None = None,
        *,
        lock_wait: float = 0.0,
        writer: Store | None = None,
    ) -> None:
        """Remember the parts; nothing is loaded before `load` or the first question.

        Args:
            store: Where the builds are.
            encoder: Must be the one that the build was made with.
            models_dir: Where the bundles are.
            corpus: Which corpus to answer from.
            overrides: Parameters that the operator set for all questions that do not give them.
            lock_wait: Seconds that an activation waits for another change of the corpus.
            writer: What an activation changes, where `store` may only read.
        """
        self.store = store
        self.encoder = encoder
        self.corpus = corpus
        self._models_dir = models_dir
        self._overrides = overrides or SearchParams()
        self._lock_wait = lock_wait
        self.writer = writer or store
        self._live: OpenBuild | None = None
        self._lock = threading.Lock()

    def load(self) -> OpenBuild:
        """The live build, opened again when another is live.

        Raises:
            NotFoundError: The corpus has no live build.
            BundleError: Its bundle is missing or corrupt.
            EncoderMismatchError: It was made with another encoder.
            StoreError: It or pairs are missing.
        """
        ref = self.store.live(self.corpus)
        while True:
            try:
                return self._opened(ref)
            except (BuildNotFoundError, BundleError) as error:
                tried, ref = ref, self.store.live(self.corpus)
                if ref != tried:  # it has been pruned meanwhile
                    continue
                if isinstance(error, BuildNotFoundError):
                    raise damaged(ref, f"it is live, and it is not in {self.store.where}") from error
                raise

    def _opened(self, ref: BuildRef) -> OpenBuild:
        with self._lock:
            if self._live is None or self._live.ref != ref:
                self._live = self._read(ref)
            return self._live

    @property
    def loaded(self) -> str | None:
        """Id of the build that was opened last; None before the first. Nothing is read for it."""
        return None if self._live is None else self._live.ref.build

    def _read(self, ref: BuildRef) -> OpenBuild:
        points = self.store.open(ref)
        check_encoder(points.metadata, self.encoder.identity)
        bundle = bundles.read(self._models_dir, ref)
        found, expected = bundle.manifest_hash, points.metadata.bundle_hash
        if found != expected:
            raise BundleError(
                f"bundle {ref.build} has hash {found[:12]}…, its points were written with {expected[:12]}…",
                hint="`qaserve ingest` with the same files makes it again.",
            )
        return OpenBuild(points, bundle, open_documents(self.store, points.metadata))

    @_again_if_pruned
    def ask(self, request: AskRequest) -> AskResult:
        """Answer a question and say why.

        Raises:
            UsageError: The question is empty, too long or holds control characters; or the parameters contradict.
        """
        query = self.prepare(request)
        started = time.perf_counter()
        vector = self.encoder.encode_questions([query.question])[0]
        return self.search(query, vector, 1e3 * (time.perf_counter() - started)).result

    def prepare(self, request: AskRequest) -> Query:
        """Check a question and resolve its build and parameters, once. Raises as `ask`, before any work is done."""
        return self.prepare_all([request])[0]

    @_again_if_pruned
    def prepare_all(self, requests: Sequence[AskRequest]) -> list[Query]:
        """`prepare` for several questions, which are then answered from one build."""
        live = self.load()
        return [self._query(request, live) for request in requests]

    def _query(self, request: AskRequest, live: OpenBuild) -> Query:
        question, params = checked_question(request.question), self._params(request, live)
        query = Query(question, request, live, params, skills=named_skills(live.skills_by_plain_name, question))
        if "lexical_weight" in request.given.keys() | self._overrides.given.keys():
            return query
        names = rare_names(live.points, question, query.filters.given)
        weighed = params.model_copy(update={"lexical_weight": WEIGHT})
        return replace(query, params=weighed, names=names) if names else query

    def search(self, query: Query, vector: NDArray[np.floating], encode_ms: float) -> Outcome:
        """Answer a question that is encoded already, wholly from its build.

        Args:
            query: As `prepare` gave it.
            vector: (D,) unit vector of the question.
            encode_ms: Milliseconds that encoding took.

        Returns:
            The result, with the vectors that led to it.

        Raises:
            BuildNotFoundError, BundleError: The build has been pruned meanwhile.
        """
        clock = [time.perf_counter()]
        row, filters, points = vector.astype(np.float64), query.filters, query.build.points
        pipeline, explain = query.build.pipeline(query.params), query.request.explain
        voters, plainly = query.params.hits if pipeline.needs_neighbors else 0, PLAIN_LIMIT if explain else 0
        hits, near = nearest(points, row, voters, plainly, filters, with_vectors=pipeline.needs_vectors)
        clock.append(time.perf_counter())
        projected = pipeline.project(row[None, :], neighbors_of(hits, row.size))
        clock.append(time.perf_counter())
        most = max(query.request.top_k, NEAREST)
        target = projected.searched[0]
        asked = fold(query.question)
        known = [hit for hit in hits if _folded(hit.question) == asked]
        ranked = rank_intents(points, query.question, row, target, query.params, most, filters, known)
        best_skills = rank_skills(query, ranked, target)
        found = Found(row, hits, projected, ranked.intents, frozenset(hit.id for hit in known))
        plain = PlainSearch.of(query, found, near) if explain else PlainSearch()
        stored = points.retrieve(ids_to_read(query, found, plain), vectors=[ANSWER])
        pairs = {one: (to_pair(point), point.vectors[ANSWER]) for one, point in stored.items()}
        answers = answers_of(query, found, plain, pairs)
        sure = confidences_of(query, found, answers, best_skills)
        result = AskResult(
            question=query.question,
            build=query.build.ref.build,
            answers=answers,
            skills=skills_of(query, best_skills, sure.skills),
            confidence=sure.first,
            trace=trace_of(query, found, plain, pairs, answers) if explain else None,
            timings_ms=_timings(encode_ms, [*clock, time.perf_counter()]),
        )
        return Outcome(result, query, found)

    def _params(self, request: AskRequest, live: OpenBuild) -> SearchParams:
        params = live.defaults.override(self._overrides, request)
        if params.projection == "student" and live.bundle.manifest.student is None:
            raise UsageError(
                f"build {live.ref.build} has no student",
                hint="Use projection 'cluster'. `qaserve distill` trains a student for the build.",
            )
        if params.routing == "centroid" and params.projection == "pair":
            raise UsageError(
                "projection 'pair' needs known questions that vote, and routing 'centroid' asks none",
                hint="Use routing 'question' or 'question2', or projection 'cluster'.",
            )
        return params

    # What there is

    @_again_if_pruned
    def pairs(self, identifier: str, build: str | None = None) -> PairsFound:
        """The pairs that an id names: one for the id of a point, perhaps several for a pair_id (it is not unique).

        Args:
            identifier: Of the pair.
            build: Where to look; None means the live build.

        Raises:
            NotFoundError: There is no such pair or build.
        """
        points = self.load().points if build is None else self._open(BuildRef(self.corpus, build))
        name = points.metadata.build
        found: list[StoredPair] = []
        if not has_surrogate(identifier):
            found = [to_pair(point) for point in points.scroll({"pair_id": [identifier]}, vectors=())]
        if not found and _is_uuid(identifier):
            found = [to_pair(point) for point in points.retrieve([identifier]).values()]
        if not found:
            hint = pairs_of_intent(_pair_ids_of(points, identifier)) or "Give the pair_id or the id of an answer."
            raise NotFoundError(f"no pair {shorten(identifier, 80)!r} in build {name}", hint=hint)
        return PairsFound(build=name, pairs=tuple(found))

    def _open(self, ref: BuildRef) -> Build:
        with naming_close(self.store, ref):
            return self.store.open(ref)

    @_again_if_pruned
    def cluster(self, number: int) -> ClusterDetail:
        """A cluster and its pairs. Raises NotFoundError, naming the range, when there is none of that number."""
        live = self.load()
        if not 0 <= number < len(live.clusters):
            raise NotFoundError(
                f"no cluster {number}", hint=f"This build's clusters are 0 to {len(live.clusters) - 1}."
            )
        pairs = tuple(to_pair(point) for point in live.points.scroll({"cluster": [number]}, vectors=()))
        return ClusterDetail(build=live.ref.build, cluster=live.clusters[number], pairs=pairs)

    @_again_if_pruned
    def skills(self) -> SkillIndex:
        """Every skill."""
        return skills.index(self.load())

    @_again_if_pruned
    def skill(self, name: str) -> SkillDetail:
        """A skill with its document, pairs and neighbours. Raises NotFoundError where there is none of that name."""
        return skills.skill(self.load(), name)

    @_again_if_pruned
    def document(self, path: str) -> DocumentDetail:
        """A document of the live build. Raises NotFoundError where there is none at that path."""
        return skills.document(self.load(), path)

    def builds(self) -> list[BuildInfo]:
        """Every build of the corpus, newest first."""
        return list_builds(self.store, self._models_dir, self.corpus)

    def title(self) -> str:
        """What the corpus is called on the page; "" where it has only its name."""
        return read_title(self._models_dir, self.corpus)

    def activate(self, build: str) -> BuildInfo:
        """Make a build live, and answer from it from now on. The one that was live stays.

        Raises:
            NotFoundError, BundleError, UsageError: As `qaserve.builds.catalog.activate`; the live build is untouched.
            StoreLockedError: Another change of the corpus has not ended after `lock_wait` seconds.
            EncoderMismatchError: It was made with another encoder; the live build is untouched.
        """
        ref = BuildRef(self.corpus, build)
        with naming_close(self.store, ref):
            check_encoder(self.store.metadata(ref), self.encoder.identity)
        activate(self.writer, self._models_dir, ref, self._lock_wait)
        live = self.load().ref.build
        return next(info for info in self.builds() if info.build == live)


_folded = lru_cache(maxsize=10_000)(fold)
"""Of known questions: some dozens of them are compared with each question."""


def checked_question(text: str) -> str:
    """The question without outer spaces. Raises UsageError when it is empty, too long or not text."""
    question = text.strip()
    if not question:
        raise UsageError("the question is empty", hint="Ask something, for example: How do I add a pair?")
    if len(question) > MAX_ASKED_CHARS:
        raise UsageError(
            f"the question has {len(question):,} characters; at most {MAX_ASKED_CHARS:,} are taken",
            hint="Encoders read a few hundred words at most: ask a shorter question.",
        )
    control = control_character(question)
    if control is not None or has_surrogate(question):
        raise UsageError(
            f"the question holds {control or 'half a surrogate pair'}, which is not text",
            hint="Remove it and ask again.",
        )
    return question


def _timings(encode_ms: float, clock: list[float]) -> Timings:
    """`clock`: seconds at the start and after routing, projecting and searching."""
    route, project, search = (1e3 * float(step) for step in np.diff(clock))
    return Timings(
        encode=round(encode_ms, 3),
        route=round(route, 3),
        project=round(project, 3),
        search=round(search, 3),
        total=round(encode_ms + route + project + search, 3),
    )


def _pair_ids_of(points: Build, intent: str) -> list[str]:
    found = {} if has_surrogate(intent) else points.payloads({INTENT: [intent]}, ["pair_id"])
    return sorted(payload["pair_id"] for payload in found.values())


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
