"""The engine: a question in, answers and the reasons for them out."""

import threading
import time
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from qaserve import bundle as bundles
from qaserve.builds import activate, check_encoder, list_builds
from qaserve.bundle import Bundle, Defaults
from qaserve.calibration import NEAREST, Top, evidence
from qaserve.encoder import Encoder
from qaserve.errors import BundleError, NotFoundError, UsageError
from qaserve.projection import project_by_pairs
from qaserve.ranking import Scored, Words, rank_intents
from qaserve.records import (
    Answer,
    AskRequest,
    AskResult,
    BuildInfo,
    ClusterDetail,
    ClusterInfo,
    ClusterVote,
    Confidence,
    Hit,
    PairsFound,
    RawAnswer,
    ScoreParts,
    StoredPair,
    Timings,
    Trace,
)
from qaserve.routing import (
    Floats,
    final_softmax,
    normalized_entropy,
    redistribute,
    route_by_centroids,
    route_by_questions,
)
from qaserve.settings import RoutingSettings
from qaserve.store import AnswerHit, CollectionInfo, QuestionHit, Store
from qaserve.student import Student
from qaserve.text import control_character, has_surrogate, shorten

MAX_QUESTION_CHARS = 4_000
RAW_LOOK = 100
"""Answers of the plain search that raw_rank is read from."""
RAW_SHOWN = 3
"""How many of those a trace shows at the least."""
NOT_CALIBRATED = Confidence(
    value=None, abstained=False, reason="This build has no calibration, for it has too few pairs: judge by similarity."
)
OTHER_OPTIONS = Confidence(
    value=None,
    abstained=False,
    reason="The calibration holds for the options that the build chose, and these are others: judge by similarity.",
)


@dataclass(frozen=True)
class LiveBuild:
    """What the engine holds of the live build."""

    info: CollectionInfo
    bundle: Bundle

    @property
    def clusters(self) -> tuple[ClusterInfo, ...]:
        """Names and sizes of the clusters."""
        return self.bundle.manifest.clusters

    @cached_property
    def student(self) -> Student | None:
        """The build's student, read when it is first asked for; None where there is none."""
        info, weights = self.bundle.manifest.student, self.bundle.model.student
        return None if info is None or weights is None else Student.from_bytes(info.spec, weights)


@dataclass(frozen=True)
class Route:
    """Outcome of routing: who voted, and what each cluster weighs."""

    hits: list[QuestionHit]
    probabilities: Floats
    votes: Floats | None
    """(K,) sums of the hits' probabilities; None with centroid routing."""
    weights: Floats
    """(K,) what the projections are blended with."""
    similarities: Floats | None
    """(K,) cosine to the mean questions; None with question routing."""


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
        started = time.perf_counter()
        question = checked_question(request.question)
        live = self.load()
        how = self._options(request, live)
        ready = time.perf_counter()
        query = self.encoder.encode_questions([question])[0].astype(np.float64)
        encoded = time.perf_counter()
        route = self._route(query, how, live)
        routed = time.perf_counter()
        projected = _project(query, how, route, live)
        turned = time.perf_counter()
        words = _words(question, how, live)
        best = rank_intents(self.store, self.corpus, live.info.build, projected, max(request.top_k, NEAREST), words)
        raw = self._raw_order(query, live) if request.explain else []
        answers = self._answers(best[: request.top_k], question, query, raw, live)
        confidence = _confidence(how, route, [one.score for one in best], answers, live)
        finished = time.perf_counter()
        timings = Timings(
            encode=_ms(ready, encoded),
            route=_ms(encoded, routed),
            project=_ms(routed, turned),
            search=_ms(turned, finished),
            total=_ms(started, finished),
        )
        return AskResult(
            question=question,
            build=live.info.build,
            answers=answers,
            confidence=confidence,
            trace=_trace(how, route, live, _cosine(query, projected), raw[: max(request.top_k, RAW_SHOWN)], timings),
        )

    def _options(self, request: AskRequest, live: LiveBuild) -> Defaults:
        chosen = live.bundle.manifest.defaults.model_dump()
        chosen |= self._routing.model_dump(exclude_none=True)
        chosen |= request.model_dump(include=set(chosen), exclude_none=True)
        if live.bundle.model.lexicon is None:
            chosen["lexical_weight"] = 0.0
        how = Defaults.model_validate(chosen)
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

    def _route(self, query: Floats, how: Defaults, live: LiveBuild) -> Route:
        count = len(live.clusters)
        if how.routing == "centroid":
            weights, similarities = route_by_centroids(
                query, live.bundle.model.mean_questions, how.centroids, how.temperature
            )
            return Route([], np.empty(0), None, weights, similarities)
        hits = self.store.nearest_questions(
            self.corpus, live.info.build, query, how.hits, with_vectors=how.projection == "pair"
        )
        labels = [hit.cluster for hit in hits]
        vote = route_by_questions(
            [hit.similarity for hit in hits], labels, count, how.temperature, [hit.prior for hit in hits]
        )
        weights = vote.weights
        if how.routing == "question2":
            weights = final_softmax(weights, how.final_temperature)
        return Route(hits, vote.probabilities, vote.weights, weights, None)

    def _raw_order(self, query: Floats, live: LiveBuild) -> list[RawAnswer]:
        found = self.store.nearest_answers(self.corpus, live.info.build, query, RAW_LOOK)
        return [
            RawAnswer(
                rank=rank,
                pair_id=hit.pair_id,
                cluster_id=hit.cluster_id,
                question=hit.question,
                similarity=hit.similarity,
            )
            for rank, hit in enumerate(_first_per_intent(found), start=1)
        ]

    def _answers(
        self, best: list[Scored], question: str, query: Floats, raw: list[RawAnswer], live: LiveBuild
    ) -> tuple[Answer, ...]:
        pairs = self.store.retrieve(self.corpus, live.info.build, [one.hit.id for one in best])
        lexicon = live.bundle.model.lexicon
        ranks = {answer.cluster_id: answer.rank for answer in raw}
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
                    raw_similarity=_cosine(query, vector.astype(np.float64)),
                    raw_rank=ranks.get(pair.cluster_id),
                    id=stored.id,
                    cluster=stored.cluster,
                    **pair.model_dump(exclude={"extra", "question_type"}),
                )
            )
        return tuple(answers)

    # What there is

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
            NotFoundError, BundleError, UsageError: As `qaserve.builds.activate`; the live build is untouched.
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
    if len(question) > MAX_QUESTION_CHARS:
        raise UsageError(
            f"the question has {len(question):,} characters; at most {MAX_QUESTION_CHARS:,} are taken",
            hint="Encoders read a few hundred words at most: ask a shorter question.",
        )
    control = control_character(question)
    if control is not None or has_surrogate(question):
        raise UsageError(
            f"the question holds {control or 'half a surrogate pair'}, which is not text",
            hint="Remove it and ask again.",
        )
    return question


def _confidence(
    how: Defaults, route: Route, scores: list[float], answers: tuple[Answer, ...], live: LiveBuild
) -> Confidence:
    """How sure the first answer is; only asked the way that it was calibrated for."""
    manifest = live.bundle.manifest
    if manifest.calibration is None:
        return NOT_CALIBRATED
    if how != manifest.defaults:
        return OTHER_OPTIONS
    first = answers[0]
    return manifest.calibration.confidence(
        evidence(
            similarities=np.array([hit.similarity for hit in route.hits]),
            probabilities=route.probabilities,
            clusters=np.array([hit.cluster for hit in route.hits]),
            weights=route.weights,
            scores=np.array(scores),
            top=Top(
                similarity=first.similarity,
                raw_similarity=first.raw_similarity,
                lexical=first.parts.lexical,
                cluster=first.cluster,
            ),
        )
    )


def _words(question: str, how: Defaults, live: LiveBuild) -> Words | None:
    lexicon = live.bundle.model.lexicon
    if lexicon is None or how.lexical_weight == 0:
        return None
    return Words(how.lexical_weight, lexicon, lexicon.relative(question))


def _project(query: Floats, how: Defaults, route: Route, live: LiveBuild) -> Floats:
    if how.projection == "none":
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


def _trace(
    how: Defaults, route: Route, live: LiveBuild, cosine: float, raw: list[RawAnswer], timings: Timings
) -> Trace:
    hits = tuple(
        Hit(
            id=hit.id,
            pair_id=hit.pair_id,
            question=hit.question,
            similarity=hit.similarity,
            prior=hit.prior,
            probability=float(probability),
            cluster=hit.cluster,
        )
        for hit, probability in zip(route.hits, route.probabilities, strict=True)
    )
    return Trace(
        routing=how.routing,
        projection=how.projection,
        temperature=how.temperature,
        final_temperature=how.final_temperature if how.routing == "question2" else None,
        lexical_weight=how.lexical_weight,
        entropy=normalized_entropy(route.weights),
        hits=hits,
        clusters=_cluster_votes(route, live),
        projected_similarity=cosine,
        raw_answers=tuple(raw),
        timings_ms=timings,
    )


def _cluster_votes(route: Route, live: LiveBuild) -> tuple[ClusterVote, ...]:
    counts = np.bincount([hit.cluster for hit in route.hits], minlength=len(live.clusters))
    order = np.argsort(-route.weights, kind="stable")
    return tuple(
        ClusterVote(
            cluster=int(k),
            name=live.clusters[k].name,
            weight=float(route.weights[k]),
            hits=int(counts[k]),
            vote=None if route.votes is None else float(route.votes[k]),
            similarity=None if route.similarities is None else float(route.similarities[k]),
        )
        for k in order[: np.count_nonzero(route.weights)]
    )


def _first_per_intent(found: list[AnswerHit]) -> list[AnswerHit]:
    best: dict[str, AnswerHit] = {}
    for hit in found:
        best.setdefault(hit.cluster_id, hit)
    return list(best.values())


def _cosine(x: Floats, y: Floats) -> float:
    lengths = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(np.clip(x @ y / lengths, -1.0, 1.0)) if lengths > 0 else 0.0


def _ms(start: float, end: float) -> float:
    return round(1e3 * (end - start), 3)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
