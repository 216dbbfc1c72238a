"""The engine: a question in, answers and the reasons for them out."""

import threading
import time
import uuid
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from qaserve.builds import bundle as bundles
from qaserve.builds.catalog import activate, check_encoder, list_builds
from qaserve.common.errors import BuildNotFoundError, BundleError, NotFoundError, UsageError
from qaserve.common.text import control_character, has_surrogate, shorten
from qaserve.core.calibration import NEAREST
from qaserve.core.projection import project_by_pairs
from qaserve.core.routing import Floats, final_softmax, redistribute, route_by_centroids, route_by_questions
from qaserve.encoders.sentence_transformer import Encoder
from qaserve.schemas.ask import Answer, AskRequest, AskResult, Filters, RawAnswer, ScoreParts, Timings
from qaserve.schemas.builds import BuildInfo, ClusterDetail
from qaserve.schemas.pairs import PairsFound, StoredPair
from qaserve.schemas.params import MAX_ASKED_CHARS
from qaserve.search.ranking import Scored, Words, rank_intents
from qaserve.search.trace import Expected, LiveBuild, Options, Pairs, Route, confidence_of, cosine, trace_of
from qaserve.settings import RoutingSettings
from qaserve.store.points import AnswerHit
from qaserve.store.qdrant import Store

RAW_LOOK = 50
"""Answers of the plain search that raw_rank is read from."""
RAW_SHOWN = 3
"""How many of those a trace shows at the least."""
EXPECTED = 3
"""How many of the first plain answers, and of the strongest voters, a trace says why they are missing."""


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
        self, store: Store, encoder: Encoder, models_dir: Path, corpus: str, routing: RoutingSettings | None = None
    ) -> None:
        """Remember the parts; nothing is loaded before `load` or the first question.

        Args:
            store: Where the builds are.
            encoder: Must be the one that the build was made with.
            models_dir: Where the bundles are.
            corpus: Which corpus to answer from.
            routing: What the operator set for all questions that do not say.
        """
        self.store = store
        self.encoder = encoder
        self.corpus = corpus
        self._models_dir = models_dir
        self._routing = routing or RoutingSettings()
        self._live: LiveBuild | None = None
        self._lock = threading.Lock()

    def load(self) -> LiveBuild:
        """The live build, read again when the alias has moved.

        Raises:
            NotFoundError: The corpus has no live build.
            BundleError: Its bundle is missing or corrupt.
            EncoderMismatchError: It was made with another encoder.
        """
        build = self.store.live(self.corpus)
        with self._lock:
            if self._live is None or self._live.info.build != build:
                self._live = self._read(build)
            return self._live

    def _read(self, build: str) -> LiveBuild:
        info = self.store.info(self.corpus, build)
        check_encoder(info, self.encoder.identity)
        bundle = bundles.read(self._models_dir, self.corpus, build)
        found = bundle.manifest_hash
        if found != info.bundle_hash:
            raise BundleError(
                f"bundle {build} has hash {found[:12]}…, its collection was written with {info.bundle_hash[:12]}…",
                hint="`qaserve ingest` with the same files makes it again.",
            )
        return LiveBuild(info, bundle)

    def ask(self, request: AskRequest) -> AskResult:
        """Answer a question and say why.

        Raises:
            UsageError: The question is empty, too long or holds control characters; or the options contradict.
        """
        question = self.check(request)
        started = time.perf_counter()
        query = self.encoder.encode_questions([question])[0]
        return self.answer(request, query, 1e3 * (time.perf_counter() - started))

    @_again_if_pruned
    def check(self, request: AskRequest) -> str:
        """The question as it will be encoded. Raises as `ask` does, before any work is done."""
        question = checked_question(request.question)
        self._options(request, self.load())
        return question

    @_again_if_pruned
    def answer(self, request: AskRequest, vector: NDArray[np.floating], encode_ms: float) -> AskResult:
        """Answer a question that is encoded already, wholly from one build.

        Args:
            request: The question and its options.
            vector: (D,) unit vector of the question.
            encode_ms: Milliseconds that encoding took.

        Raises:
            UsageError: As `ask`.
        """
        clock = [time.perf_counter()]
        live = self.load()
        question, query = checked_question(request.question), vector.astype(np.float64)
        how = self._options(request, live)
        route = self._route(query, how, request.filters, live)
        clock.append(time.perf_counter())
        projected = _project(query, how, route, live)
        clock.append(time.perf_counter())
        place = self.corpus, live.info.build
        best = rank_intents(
            self.store,
            *place,
            projected,
            max(request.top_k, NEAREST),
            _words(question, how, live),
            request.filters,
        )
        raw = self.store.nearest_answers(*place, query, RAW_LOOK, request.filters) if request.explain else []
        intents = _first_per_intent(raw)
        shown = intents[: max(request.top_k, RAW_SHOWN)]
        expected = self._expected(request, query, raw, route, live)
        wanted = [*(one.hit.id for one in best[: request.top_k]), *(hit.id for hit in shown), *expected.ids]
        pairs = self.store.retrieve(*place, list(dict.fromkeys(wanted)))
        answers = _answers(best[: request.top_k], question, query, intents, pairs, live)
        excluded = expected.excluded(answers, pairs, query, projected, request.filters)
        confidence = confidence_of(how, route, [one.score for one in best], answers, live)
        clock.append(time.perf_counter())
        return AskResult(
            question=question,
            build=live.info.build,
            answers=answers,
            confidence=confidence,
            trace=trace_of(
                how,
                route,
                live,
                filters=request.filters,
                projected_similarity=cosine(query, projected),
                raw=_raw_answers(shown, pairs),
                excluded=excluded,
                timings=_timings(encode_ms, clock),
            ),
        )

    def _expected(
        self, request: AskRequest, query: Floats, raw: list[AnswerHit], route: Route, live: LiveBuild
    ) -> Expected:
        """Whose absence the trace explains."""
        if not request.explain:
            return Expected((), ())
        if request.filters:
            raw = self.store.nearest_answers(self.corpus, live.info.build, query, EXPECTED)
        voters = np.argsort(-route.probabilities, kind="stable")[:EXPECTED]
        return Expected(raw[:EXPECTED], [route.hits[row] for row in voters])

    def _options(self, request: AskRequest, live: LiveBuild) -> Options:
        chosen = Options.model_validate(live.bundle.manifest.defaults.model_dump()).model_dump()
        chosen |= self._routing.model_dump(exclude_none=True)
        chosen |= request.model_dump(include=set(chosen), exclude_none=True)
        if live.bundle.model.lexicon is None:
            chosen["lexical_weight"] = 0.0
        how = Options.model_validate(chosen)
        if how.projection == "student" and live.bundle.manifest.student is None:
            raise UsageError(
                f"build {live.info.build} has no student",
                hint="`qaserve distill` trains one; or use projection 'cluster'.",
            )
        if how.routing == "centroid" and how.projection == "pair":
            raise UsageError(
                "projection 'pair' needs known questions that vote, and routing 'centroid' asks none",
                hint="Use routing 'question' or 'question2', or projection 'cluster'.",
            )
        return how

    def _route(self, query: Floats, how: Options, filters: Filters, live: LiveBuild) -> Route:
        count = len(live.clusters)
        if how.routing == "centroid":
            weights, similarities = route_by_centroids(
                query, live.bundle.model.mean_questions, how.centroids, how.temperature
            )
            return Route([], np.empty(0), None, weights, similarities)
        hits = self.store.nearest_questions(
            self.corpus, live.info.build, query, how.hits, filters, with_vectors=how.projection == "pair"
        )
        labels = [hit.cluster for hit in hits]
        priors = [hit.prior for hit in hits] if how.priors else None
        vote = route_by_questions([hit.similarity for hit in hits], labels, count, how.temperature, priors)
        weights = vote.weights
        if how.routing == "question2":
            weights = final_softmax(weights, how.final_temperature)
        return Route(hits, vote.probabilities, vote.weights, weights, None)

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
        name = self.load().info.build if build is None else self.store.info(self.corpus, build).build
        found: list[StoredPair] = []
        if not has_surrogate(identifier):
            found = self.store.pairs_by(self.corpus, name, "pair_id", identifier)
        if not found and _is_uuid(identifier):
            found = [stored for stored, _ in self.store.retrieve(self.corpus, name, [identifier]).values()]
        if not found:
            raise NotFoundError(
                f"no pair {shorten(identifier, 80)!r} in build {name}",
                hint="Give the pair_id or the id of an answer that `ask` returned.",
            )
        return PairsFound(build=name, pairs=tuple(found))

    @_again_if_pruned
    def cluster(self, number: int) -> ClusterDetail:
        """A cluster and its pairs. Raises NotFoundError, naming the range, when there is none of that number."""
        live = self.load()
        if not 0 <= number < len(live.clusters):
            raise NotFoundError(
                f"no cluster {number}", hint=f"This build's clusters are 0 to {len(live.clusters) - 1}."
            )
        pairs = self.store.pairs_by(self.corpus, live.info.build, "cluster", number)
        return ClusterDetail(build=live.info.build, cluster=live.clusters[number], pairs=tuple(pairs))

    def builds(self) -> list[BuildInfo]:
        """Every build of the corpus, newest first."""
        return list_builds(self.store, self._models_dir, self.corpus)

    def activate(self, build: str) -> BuildInfo:
        """Make a build live, and answer from it from now on. The one that was live stays.

        Raises:
            NotFoundError, BundleError, UsageError: As `qaserve.builds.catalog.activate`; the live build is untouched.
            StoreLockedError: Somebody else changes the builds of the corpus now.
            EncoderMismatchError: It was made with another encoder; the live build is untouched.
        """
        check_encoder(self.store.info(self.corpus, build), self.encoder.identity)
        activate(self.store, self._models_dir, self.corpus, build)
        live = self.load().info.build
        return next(info for info in self.builds() if info.build == live)


def checked_question(text: str) -> str:
    """The question without outer spaces. Raises UsageError when it is empty, too long or not text."""
    question = text.strip()
    if not question:
        raise UsageError("the question is empty", hint="Ask something, for example: qaserve ask 'How do I add a pair?'")
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


def _words(question: str, how: Options, live: LiveBuild) -> Words | None:
    lexicon = live.bundle.model.lexicon
    if lexicon is None or how.lexical_weight == 0:
        return None
    return Words(how.lexical_weight, lexicon, lexicon.relative(question))


def _project(query: Floats, how: Options, route: Route, live: LiveBuild) -> Floats:
    if how.projection == "none" or not route.weights.any():  # a filter may leave nobody to vote
        return query
    if how.projection == "cluster":
        return live.bundle.model.bank.project(query, route.weights)
    if how.projection == "student" and live.student is not None:
        return live.student.project(query)
    shares = route.probabilities
    if route.votes is not None and how.routing == "question2":
        shares = redistribute(shares, [hit.cluster for hit in route.hits], route.votes, route.weights)
    vectors = [hit.vectors for hit in route.hits if hit.vectors is not None]
    return project_by_pairs(query, [q for q, _ in vectors], [a for _, a in vectors], shares)


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


def _first_per_intent(found: list[AnswerHit]) -> list[AnswerHit]:
    best: dict[str, AnswerHit] = {}
    for hit in found:
        best.setdefault(hit.cluster_id, hit)
    return list(best.values())


def _raw_answers(shown: list[AnswerHit], pairs: Pairs) -> list[RawAnswer]:
    return [
        RawAnswer(
            rank=rank,
            pair_id=pairs[hit.id][0].pair.pair_id,
            cluster_id=hit.cluster_id,
            question=pairs[hit.id][0].pair.question,
            similarity=hit.similarity,
        )
        for rank, hit in enumerate(shown, start=1)
    ]


def _answers(
    best: list[Scored],
    question: str,
    query: Floats,
    plain: list[AnswerHit],
    pairs: Pairs,
    live: LiveBuild,
) -> tuple[Answer, ...]:
    lexicon = live.bundle.model.lexicon
    ranks = {hit.cluster_id: rank for rank, hit in enumerate(plain, start=1)}
    answers = []
    for rank, (hit, score, lexical) in enumerate(best, start=1):
        stored, vector = pairs[hit.id]
        pair = stored.pair
        answers.append(
            Answer(
                rank=rank,
                score=score,
                parts=ScoreParts(projected=score - lexical, lexical=lexical),
                words=() if lexicon is None else lexicon.shared(question, hit.id),
                similarity=hit.similarity,
                raw_similarity=cosine(query, vector),
                raw_rank=ranks.get(pair.cluster_id),
                id=stored.id,
                cluster=stored.cluster,
                **pair.model_dump(exclude={"extra", "question_type"}),
            )
        )
    return tuple(answers)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
