"""What the live build looks like from above: a map, how good its clusters are, and what it can be filtered by.

Everything is computed once for a build, when it is first asked for, and kept until another build is live.
"""

import threading
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from qaserve.common.errors import NotFoundError
from qaserve.core.landscape import layout, place
from qaserve.core.overlaps import Overlap, nearest_rows, overlaps
from qaserve.core.routing import Floats, leave_one_out_weights, normalized_entropy
from qaserve.schemas.explore import (
    BorderPair,
    ClusterQuality,
    ClusterView,
    CorpusMap,
    Facets,
    FacetValue,
    IntentOverlap,
    MapAnswer,
    MapCluster,
    MapMark,
    Neighbour,
    OverlapList,
    PlacedAsk,
    QualityList,
    Spot,
)
from qaserve.schemas.pairs import StoredPair, skill_name
from qaserve.search.build import OpenBuild
from qaserve.search.engine import Engine
from qaserve.search.outcome import Outcome
from qaserve.store.points import ANSWER, QUESTION, PairVectors, to_pair_vectors

LOOKED_AT = 10_000
"""Pairs looked at, at most: the first in the order of ids, which says nothing about the pairs."""
ON_THE_MAP = 3_000
"""Answers on a map, at most."""
NEIGHBOURS = 6
BORDER = 12
ELSEWHERE = 50
FACET_VALUES = 200
TURNED_BY = 8
"""Clusters whose W is shown on the map."""


class Landscape:
    """A build with its pairs' vectors, and what follows from them."""

    def __init__(self, live: OpenBuild, found: Iterable[PairVectors]) -> None:
        """Take at most `LOOKED_AT` pairs."""
        rows = list(islice(found, LOOKED_AT))
        self.live = live
        self.pairs: list[StoredPair] = [row.stored for row in rows]
        self.questions = np.array([row.question for row in rows], dtype=np.float64)
        self.answers = np.array([row.answer for row in rows], dtype=np.float64)
        self.labels = np.array([pair.cluster for pair in self.pairs], dtype=np.intp)
        self.rows = {pair.id: row for row, pair in enumerate(self.pairs)}

    @cached_property
    def positions(self) -> Floats:
        """(K, 2) of the clusters on the map."""
        return layout(self.live.bundle.model.mean_answers)

    @cached_property
    def votes(self) -> Floats:
        """(n, K) cluster weights of every known question when all the others vote."""
        how = self.live.defaults
        return leave_one_out_weights(
            self.questions, self.labels, len(self.live.clusters), how.temperature, min(how.hits, len(self.pairs) - 1)
        )

    @property
    def own(self) -> list[float]:
        """Weight that those votes give to the own cluster of each question."""
        found: list[float] = self.votes[np.arange(len(self.labels)), self.labels].tolist()
        return found

    @cached_property
    def entropies(self) -> Floats:
        """(n,) entropy of those votes, over log K."""
        return np.array([normalized_entropy(row) for row in self.votes])

    @cached_property
    def quality(self) -> tuple[ClusterQuality, ...]:
        """Of every cluster."""
        return tuple(self._quality(cluster) for cluster in range(len(self.live.clusters)))

    @cached_property
    def map(self) -> CorpusMap:
        """Clusters and answers."""
        spots = place(self.answers[:ON_THE_MAP], self.live.bundle.model.mean_answers, self.positions)
        return CorpusMap(
            build=self.live.ref.build,
            clusters=tuple(
                MapCluster(cluster=info.cluster, name=info.name, size=info.size, x=x, y=y)
                for info, (x, y) in zip(self.live.clusters, self.positions.tolist(), strict=True)
            ),
            answers=tuple(
                MapAnswer(
                    id=pair.id,
                    question=pair.pair.question,
                    cluster=pair.cluster,
                    topic=next(iter(pair.pair.topics), ""),
                    skill=next(map(skill_name, pair.pair.related_skills), ""),
                    own=own,
                    x=x,
                    y=y,
                )
                for pair, own, (x, y) in zip(self.pairs[:ON_THE_MAP], self.own, spots.tolist(), strict=False)
            ),
            total=self.live.metadata.pairs,
        )

    def view(self, cluster: int) -> ClusterView:
        """One cluster."""
        members = np.flatnonzero(self.labels == cluster)
        unsure = members[np.argsort(-self.entropies[members], kind="stable")]
        unsure = unsure if len(self.live.clusters) > 1 else unsure[:0]  # there is no other to be unsure of
        strayed = members[self.votes[members].argmax(axis=1) != cluster] if len(members) else members
        strayed = strayed[np.argsort(self.votes[strayed, cluster], kind="stable")]
        return ClusterView(
            build=self.live.ref.build,
            quality=self.quality[cluster],
            neighbours=self._neighbours(cluster),
            border=tuple(self._border(row) for row in unsure[:BORDER].tolist()),
            elsewhere=tuple(self._border(row) for row in strayed[:ELSEWHERE].tolist()),
        )

    def spots(self, vectors: Sequence[Floats]) -> list[Spot]:
        """Where (D,) vectors stand on the map."""
        if not vectors:
            return []
        placed = place(np.array(vectors), self.live.bundle.model.mean_answers, self.positions)
        return [Spot(x=x, y=y) for x, y in placed.tolist()]

    def marks(self, labelled: Sequence[tuple[str, int, Floats]]) -> tuple[MapMark, ...]:
        """Texts, each with its cluster and its vector, on the map."""
        spots = self.spots([vector for _, _, vector in labelled])
        return tuple(
            MapMark(label=label, cluster=cluster, x=spot.x, y=spot.y)
            for (label, cluster, _), spot in zip(labelled, spots, strict=True)
        )

    def overlaps(self, threshold: float, limit: int) -> OverlapList:
        """Intents whose questions or answers nearly coincide."""
        names, intents = np.unique([pair.pair.intent for pair in self.pairs], return_inverse=True)
        vectors = [self.questions.astype(np.float32), self.answers.astype(np.float32)]
        found, total = overlaps(vectors, intents, threshold, limit)
        return OverlapList(
            build=self.live.ref.build,
            pairs=self.live.metadata.pairs,
            looked_at=len(self.pairs),
            intents=len(names),
            threshold=threshold,
            found=total,
            overlaps=tuple(self._overlap(one, intents, threshold) for one in found),
        )

    def _overlap(self, found: Overlap, intents: NDArray[np.integer], threshold: float) -> IntentOverlap:
        """The intent with more pairs is kept, for it knows more phrasings; else the first by name."""
        members = [np.flatnonzero(intents == number) for number in (found.first, found.second)]
        kept, merged = sorted(members, key=lambda rows: -len(rows))
        question, answer = found.similarities
        by_question = question >= answer
        vectors = self.questions if by_question else self.answers
        rows = nearest_rows(vectors[kept], vectors[merged])
        pairs = [self.pairs[kept[rows[0]]].pair, self.pairs[merged[rows[1]]].pair]
        keep_text, merge_text = (pair.question if by_question else pair.answer for pair in pairs)
        return IntentOverlap(
            keep=pairs[0].intent,
            merge=pairs[1].intent,
            reason=_why(len(kept), len(merged), question >= threshold, answer >= threshold),
            question=round(float(question), 6),
            answer=round(float(answer), 6),
            keep_pairs=len(kept),
            merge_pairs=len(merged),
            keep_text=keep_text,
            merge_text=merge_text,
        )

    def _quality(self, cluster: int) -> ClusterQuality:
        members = self.labels == cluster
        model, info = self.live.bundle.model, self.live.clusters[cluster]
        questions, answers = self.questions[members], self.answers[members]
        turned = model.bank[cluster].apply(questions)
        stays = np.clip((turned * questions).sum(axis=1), -1, 1)
        return ClusterQuality(
            **info.model_dump(),
            spread=_mean(1 - answers @ model.mean_answers[cluster]),
            turn=_mean(np.degrees(np.arccos(stays))),
            before=_mean((questions * answers).sum(axis=1)),
            after=_mean((turned * answers).sum(axis=1)),
            found=_mean(self.votes[members].argmax(axis=1) == cluster),
            entropy=_mean(self.entropies[members]),
        )

    def _neighbours(self, cluster: int) -> tuple[Neighbour, ...]:
        means = self.live.bundle.model.mean_answers.astype(np.float64)
        similarities = means @ means[cluster]
        similarities[cluster] = -np.inf
        order = np.argsort(-similarities, kind="stable")[: min(NEIGHBOURS, len(means) - 1)]
        return tuple(
            Neighbour(cluster=k, name=self.live.clusters[k].name, similarity=float(similarities[k]))
            for k in order.tolist()
        )

    def _border(self, row: int) -> BorderPair:
        stored, votes = self.pairs[row], self.votes[row].copy()
        own = float(votes[stored.cluster])
        votes[stored.cluster] = -1
        rival = int(votes.argmax())
        return BorderPair(
            id=stored.id,
            pair_id=stored.pair.pair_id,
            question=stored.pair.question,
            entropy=float(self.entropies[row]),
            own=own,
            rival=rival,
            rival_name=self.live.clusters[rival].name,
            rival_weight=max(0.0, float(votes[rival])),
        )


class Explorer:
    """Looks at the live build of an engine. Safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        """Remember the engine; nothing is read yet."""
        self._engine = engine
        self._seen: Landscape | None = None
        self._lock = threading.Lock()

    def map(self) -> CorpusMap:
        """The map of the live build."""
        with self._lock:
            return self._landscape().map

    def facets(self) -> Facets:
        """What its answers can be filtered by; counted by Qdrant."""
        live = self._engine.load()
        counted = {
            field: tuple(
                FacetValue(value=value, label=value, count=count)
                for value, count in live.points.facet(field, FACET_VALUES)
            )
            for field in ("topics", "tags", "related_skills", "source_file")
        }
        clusters = tuple(
            FacetValue(value=str(info.cluster), label=info.name, count=info.size)
            for info in live.clusters[:FACET_VALUES]
        )
        return Facets(build=live.ref.build, cluster=clusters, **counted)

    def quality(self) -> QualityList:
        """How good its clusters are."""
        with self._lock:
            seen = self._landscape()
            home = seen.votes.argmax(axis=1) == seen.labels
            return QualityList(
                build=seen.live.ref.build,
                pairs=seen.live.metadata.pairs,
                looked_at=len(seen.pairs),
                found=_mean(home),
                clusters=seen.quality,
            )

    def cluster(self, number: int) -> ClusterView:
        """One cluster of it. Raises NotFoundError, naming the range, when there is none of that number."""
        with self._lock:
            seen = self._landscape()
            if not 0 <= number < len(seen.live.clusters):
                raise NotFoundError(
                    f"no cluster {number}", hint=f"This build's clusters are 0 to {len(seen.live.clusters) - 1}."
                )
            return seen.view(number)

    def overlaps(self, threshold: float, limit: int) -> OverlapList:
        """Intents of it whose questions or answers have a cosine of at least `threshold`, the nearest first."""
        with self._lock:
            return self._landscape().overlaps(threshold, limit)

    def place(self, outcome: Outcome) -> PlacedAsk:
        """Say where a question, its hits and its answers stand on the map of the build that answered."""
        with self._lock:
            seen = self._landscape(outcome.query.build)  # another may be live by now
        found, result = outcome.found, outcome.result
        vectors = self._vectors(outcome, seen)
        spots = seen.spots([found.vector, found.projected.vectors[0]])
        bank = seen.live.bundle.model.bank
        voted = [] if result.trace is None else [one for one in result.trace.clusters if one.angle is not None]
        return PlacedAsk(
            result=result,
            question=spots[0],
            turned=spots[1],
            turned_by=seen.marks(
                [(one.name, one.cluster, bank[one.cluster].apply(found.vector)) for one in voted[:TURNED_BY]]
            ),
            hits=seen.marks(
                [(hit.question, hit.cluster, vectors[hit.id][0]) for hit in found.hits if hit.id in vectors]
            ),
            answers=seen.marks(
                [(one.question, one.cluster, vectors[one.id][1]) for one in result.answers if one.id in vectors]
            ),
        )

    def _vectors(self, outcome: Outcome, seen: Landscape) -> dict[str, tuple[Floats, Floats]]:
        """Question and answer vectors of hits and answers, by id; the store is asked where a build is a large one."""
        wanted = [*(hit.id for hit in outcome.found.hits), *(answer.id for answer in outcome.result.answers)]
        rows = {one: seen.rows[one] for one in wanted if one in seen.rows}
        vectors = {one: (seen.questions[row], seen.answers[row]) for one, row in rows.items()}
        lacking = [one for one in wanted if one not in vectors]
        for one, point in outcome.query.build.points.retrieve(lacking, vectors=(QUESTION, ANSWER)).items():
            vectors[one] = (point.vectors[QUESTION].astype(np.float64), point.vectors[ANSWER].astype(np.float64))
        return vectors

    def _landscape(self, build: OpenBuild | None = None) -> Landscape:
        """Of a build; None: of the live one. The last that was looked at is kept."""
        live = build or self._engine.load()
        if self._seen is None or self._seen.live.ref != live.ref:
            self._seen = Landscape(live, map(to_pair_vectors, live.points.scroll(vectors=(QUESTION, ANSWER))))
        return self._seen


def _why(kept: int, merged: int, by_question: bool, by_answer: bool) -> str:
    """Why two intents should be merged into the one of `kept` pairs."""
    size = f"it has {kept} pairs, not {merged}" if kept != merged else "both have as many pairs; first by name"
    if by_question and by_answer:
        return f"Questions and answers nearly coincide. Keep: {size}."
    if by_question:
        return f"The same question has two answers: join them, or say in the question what differs. Keep: {size}."
    return f"The same answer is given to both. Keep: {size}."


def _mean(values: NDArray[np.floating] | NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else 0.0
