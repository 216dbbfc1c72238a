"""What a store of builds does, whichever engine keeps it.

A build is written once through a `Writer`, sealed, and never edited after. An unsealed build is never listed, opened or
made live, and only unsealed builds are removed by `remove_unfinished`. `Store.open` gives a `Build`: it keeps reading
the files it opened, also after the build was deleted. Dense vectors are unit vectors, so every dense score is a cosine,
and a word score is BM25: higher is nearer, everywhere.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from qaserve.common.errors import NotFoundError
from qaserve.common.progress import Advance
from qaserve.common.text import did_you_mean
from qaserve.schemas.builds import EncoderIdentity
from qaserve.schemas.pairs import TopicText
from qaserve.schemas.record import Record

from .words import Bm25Params, Sparse, WordEncoder, terms

DOCUMENTS_SUFFIX = ".documents"
"""Ends the name under which the documents of a corpus are stored; the name of a corpus holds no dot."""
WORDS = "words"
"""Name of the sparse vector that every point has."""

Where = Mapping[str, Sequence[str] | Sequence[int]]
"""Per indexed field, the values of which a point must have one."""
EVERYWHERE: Where = MappingProxyType({})

OnGraphs = Callable[[int], AbstractContextManager[Advance]]


class BuildRef(NamedTuple):
    """Names one build of one corpus."""

    corpus: str
    build: str

    def __str__(self) -> str:
        """As messages and servers name it."""
        return f"{self.corpus}@{self.build}"

    @property
    def documents(self) -> "BuildRef":
        """Names the set of points that holds the sections of its documents."""
        return BuildRef(self.corpus + DOCUMENTS_SUFFIX, self.build)


class Layout(Record):
    """What the points of a build hold. A field is filtered and counted by only if it is indexed here."""

    vectors: tuple[str, ...]
    keywords: tuple[str, ...] = ()
    integers: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    """Payload fields whose words are searched."""


class BuildMetadata(Record):
    """What a build says of itself."""

    corpus: str
    build: str
    encoder: EncoderIdentity
    pairs: int
    clusters: int
    bundle_hash: str
    sources: tuple[str, ...]
    created: str
    layout: Layout
    bm25: Bm25Params
    topic_text: TopicText = TopicText()
    """What the topics are the vectors of."""
    sections: int = 0
    """Points of its documents, a second set that is written, sealed and deleted with it; 0: it has none."""

    @property
    def ref(self) -> BuildRef:
        """Its name."""
        return BuildRef(self.corpus, self.build)


class Seal(Record):
    """Written last: with it a build is complete."""

    points: int
    content_hash: str
    """Of ids, payloads and vectors; equal in every store. See `points.ContentHash`."""
    engine: str
    """Package and version that wrote the build."""


class Point(NamedTuple):
    """A point without its words, which follow from the payload."""

    id: str
    payload: dict[str, Any]
    vectors: dict[str, NDArray[np.float32]]
    """(D,) unit vectors by name; a point may lack some."""


class Hit(NamedTuple):
    """A point that a search found."""

    id: str
    score: float
    payload: dict[str, Any]
    vectors: Mapping[str, NDArray[np.float32]]


class Search(NamedTuple):
    """One search: a (D,) unit vector or the words of a question, in the vectors of one name."""

    using: str
    query: NDArray[np.float32] | Sparse
    limit: int
    where: Where = EVERYWHERE
    among: Collection[str] | None = None
    """Ids of points; only these are looked at."""
    fields: Sequence[str] = ()
    """Of the payload, to return."""
    vectors: Sequence[str] = ()
    """To return."""
    exact: bool = False
    """Compare with all, also where there are graphs."""

    @property
    def can_find(self) -> bool:
        """Whether there can be hits: not for no words."""
        return self.limit > 0 and not (isinstance(self.query, Sparse) and not self.query.indices)


class Build(Protocol):
    """A sealed build, open for reading. Safe to share between threads; let go of it to close it."""

    metadata: BuildMetadata
    seal: Seal
    encoder: WordEncoder
    approximate: bool
    """Whether a search may miss some of the nearest."""

    def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        """The hits of each search, best first, equal scores in the order of ids; one round trip for all of them."""
        ...

    def retrieve(self, ids: Collection[str], vectors: Sequence[str] = ()) -> dict[str, Point]:
        """Points by id, with these vectors; ids that are not there are left out."""
        ...

    def payloads(self, where: Where, fields: Sequence[str]) -> dict[str, dict[str, Any]]:
        """These fields of the points that have these values, by id."""
        ...

    def scores(self, searches: Sequence[Search], ids: Sequence[str]) -> list[NDArray[np.float64]]:
        """(n,) scores of these n points in each search; NaN where a search cannot find a point."""
        asked = [search._replace(limit=len(ids), where=EVERYWHERE, among=ids, fields=()) for search in searches]
        found = [{hit.id: hit.score for hit in hits} for hits in self.search(asked)]
        return [np.array([scores.get(one, np.nan) for one in ids]) for scores in found]

    def scroll(self, where: Where = EVERYWHERE, vectors: Sequence[str] | None = None) -> Iterator[Point]:
        """Every point, in the order of ids, page by page, with these vectors (None: all)."""
        ...

    def count(self, where: Where = EVERYWHERE) -> int:
        """How many points there are."""
        ...

    def facet(self, field: str, limit: int, where: Where = EVERYWHERE) -> list[tuple[str, int]]:
        """Values of an indexed field and the number of points that have each, most frequent first."""
        ...

    def content_hash(self) -> str:
        """Of everything that is stored now. Reads every point."""
        ...

    def nearest(
        self,
        using: str,
        vector: NDArray[np.floating],
        limit: int,
        where: Where = EVERYWHERE,
        *,
        among: Collection[str] | None = None,
        fields: Sequence[str] = (),
        vectors: Sequence[str] = (),
    ) -> list[Hit]:
        """Points whose vector `using` is nearest to a (D,) vector of any length, by cosine, best first."""
        return self.search([Search(using, unit(vector), limit, where, among, fields, vectors)])[0]

    def words(
        self,
        text: str,
        limit: int,
        where: Where = EVERYWHERE,
        *,
        among: Collection[str] | None = None,
        fields: Sequence[str] = (),
    ) -> list[Hit]:
        """Points that share words with a text, by BM25, best first; none where no word is known."""
        return self.search([Search(WORDS, self.encoder.query(text), limit, where, among, fields)])[0]

    def shared_words(self, text: str, ids: Sequence[str]) -> list[tuple[str, ...]]:
        """The words of a text that each of these points holds, those that add most to its BM25 score first."""
        asked = [(term, self.encoder.query_term(term)) for term in dict.fromkeys(term.lower() for term in terms(text))]
        known = [(term, vector) for term, vector in asked if vector.indices]
        scores = self.scores([Search(WORDS, vector, len(ids)) for _, vector in known], ids)
        held: list[list[tuple[float, str]]] = [[] for _ in ids]
        for (term, _), values in zip(known, scores, strict=True):
            for words, score in zip(held, values.tolist(), strict=True):
                if score > 0:
                    words.append((score, term))
        return [tuple(term for _, term in sorted(words, key=lambda one: -one[0])) for words in held]


class Writer(Protocol):
    """A build that is being written. As a context manager it discards what was not sealed."""

    last: str | None
    """Highest id there already, where an interrupted build is continued; appending goes on after it."""

    @property
    def content_hash(self) -> str:
        """As `Seal.content_hash`, of what was written until now."""
        ...

    def append(self, points: Iterable[Point]) -> Iterator[int]:
        """Write points in batches; yields the size of each, for a progress bar."""
        ...

    def make_graphs(self, on_graphs: OnGraphs) -> None:
        """Make HNSW graphs, after all points were appended; nothing where the store needs none, or makes them itself.

        Args:
            on_graphs: Shows how a number of vectors gets them.
        """
        ...

    def seal(self) -> Seal:
        """Put everything on the disk and complete the build."""
        ...

    def discard(self) -> None:
        """Delete what was written."""
        ...

    def __enter__(self) -> Self:
        """Write."""
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        """Discard the build unless it was sealed."""
        self.discard()


class Store(Protocol):
    """Builds in one place. Any number of processes read; whoever writes holds the lock of the corpus."""

    where: str
    """The place, for messages."""
    embedded: bool

    def live_builds(self) -> dict[str, str]:
        """The live build of each corpus that has one."""
        ...

    def live(self, corpus: str) -> BuildRef:
        """The live build of a corpus. Raises NotFoundError where there is none."""
        builds = self.live_builds()
        if corpus not in builds:
            self._check_no_builds(corpus)
            there = f"There are: {', '.join(sorted(builds))}." if builds else "There is none yet."
            hint = f"{did_you_mean(corpus, builds)} {there} {self.how_to_start()}".lstrip()
            raise NotFoundError(f"no corpus {corpus!r} in {self.where}", hint=hint)
        return BuildRef(corpus, builds[corpus])

    def _check_no_builds(self, corpus: str) -> None:
        """Say which builds there are of a corpus without a live one."""
        there = self.builds(corpus)
        if there:
            listed = ", ".join(f"{one.build} ({one.pairs:,} pairs, {one.created[:16]})" for one in there)
            raise NotFoundError(
                f"corpus {corpus!r} has no live build; {self.where} has these, newest first: {listed}",
                hint=f"`qaserve builds activate {there[0].build}` makes the newest live.",
            )

    def how_to_start(self) -> str:
        """What to do where there is no corpus."""
        return "`qaserve ingest FILE` creates one; `make run` loads the public one."

    def set_live(self, ref: BuildRef) -> None:
        """Make a sealed build live by one atomic change."""
        ...

    def corpora(self) -> list[str]:
        """Every corpus that has a sealed build, live or not. The documents of a corpus are none."""
        ...

    def names(self, corpus: str) -> list[str]:
        """The id of every sealed build of a corpus, damaged ones too."""
        ...

    def builds(self, corpus: str) -> list[BuildMetadata]:
        """Every sealed build of a corpus whose metadata can be read, newest first."""
        ...

    def metadata(self, ref: BuildRef) -> BuildMetadata:
        """What a sealed build says of itself.

        Raises:
            BuildNotFoundError: There is no such build.
            StoreError: It is damaged, or not one of ours.
        """
        ...

    def create(self, metadata: BuildMetadata, *, resume: bool = False) -> Writer:
        """Begin a build. One of the same id that was not finished is replaced, or continued with `resume`.

        Raises:
            StoreError: Something that is not ours has its name; nothing is written.
        """
        ...

    def open(self, ref: BuildRef) -> Build:
        """Open a sealed build. Raises as `metadata` does, and StoreError where points are missing."""
        ...

    def check(self, ref: BuildRef) -> None:
        """Raise as `open` does, as far as it shows without opening the points. For lists of builds."""
        self.open(ref)

    def verify(self, ref: BuildRef) -> Seal:
        """Read all of a build. Raises StoreError, naming what is damaged, unless it is as it was sealed."""
        ...

    def delete(self, ref: BuildRef) -> None:
        """Delete a build. Raises UsageError where it is live."""
        ...

    def unfinished(self, corpus: str) -> list[str]:
        """Ids of builds of a corpus that were never sealed or not wholly deleted."""
        ...

    def remove_unfinished(self, corpus: str) -> list[str]:
        """Delete them, and nothing else. The caller holds the lock of the corpus. Gives their ids."""
        ...

    def close(self) -> None:
        """Let go of connections. Builds that are open stay usable in an embedded store."""
        return

    def __enter__(self) -> Self:
        """Use as a context manager to close it."""
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        """Close."""
        self.close()


def unit(vector: NDArray[np.floating]) -> NDArray[np.float32]:
    """A (D,) vector of length 1, float32; the zero vector stays."""
    length = float(np.linalg.norm(vector))
    return np.asarray(vector if length == 0 else vector / length, dtype=np.float32)
