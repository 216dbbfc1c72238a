"""Small builds of pairs, for the tests of stores."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qaserve.schemas.builds import EncoderIdentity
from qaserve.schemas.pairs import Pair, StoredPair
from qaserve.store import BuildMetadata, BuildRef, Store
from qaserve.store.points import PAIRS, PairVectors, to_pair_vectors, to_point
from qaserve.store.server import ServerStore
from qaserve.store.words import Bm25Params

D = 8
REF = BuildRef("things", "aaaaaaaaaaaa")
TEXTS = (
    ("How do I filter files?", "Use `--file-filter KEY=VALUE` to choose files by their metadata."),
    ("How do I read JSON?", "Call generate_json_reader, which generates a reader of JSON lines."),
    ("How do I extract records?", "Run `perl extract_records.pl -f json` on the folder of records."),
    ("How are files read?", "A reader reads each file and filters it: file by file, filter by filter."),
    ("Which records are there?", "Records that were extracted before, by json or by hand."),
    ("What is a topic?", "What a pair says it is about."),
)


def metadata(ref: BuildRef = REF, pairs: int = len(TEXTS), **changes) -> BuildMetadata:
    return BuildMetadata(
        **{
            "corpus": ref.corpus,
            "build": ref.build,
            "encoder": EncoderIdentity(id="fake", revision="1", dimension=D),
            "pairs": pairs,
            "clusters": 2,
            "bundle_hash": "0" * 64,
            "sources": ("a.jsonl",),
            "created": "2026-01-01T00:00:00+00:00",
            "layout": PAIRS,
            "bm25": Bm25Params(average_length=12.0),
        }
        | changes
    )


def pairs_of(rng: np.random.Generator, count: int = len(TEXTS)) -> list[PairVectors]:
    """Pairs in the order of ids; every third has no topic."""
    rows = []
    for number in range(count):
        question, answer = TEXTS[number % len(TEXTS)]
        pair = Pair(
            pair_id=f"p{number // 2}",
            cluster_id=f"intent {number % 4}",
            question=question,
            answer=answer,
            topics=("all", f"t{number % 3}"),
            source_file="a.jsonl",
            extra={"level": 2, "share": 0.1, "nested": {"x": [1, None, True, "ß\u2028"]}},
        )
        vectors = rng.normal(size=(3, D))
        question_, answer_, topic = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        stored = StoredPair(
            id=f"00000000-0000-5000-8000-{number:012d}", pair=pair, cluster=number % 2, prior=1 + number / 7
        )
        stored = stored.model_copy(update={"prior": float(f"{stored.prior:.12g}")})
        rows.append(PairVectors(stored, question_, answer_, None if number % 3 == 0 else topic))
    return rows


def write(store: Store, rows: Sequence[PairVectors], about: BuildMetadata | None = None) -> BuildMetadata:
    about = about or metadata(pairs=len(rows))
    with store.create(about) as build:
        assert sum(build.append(to_point(row) for row in rows)) == len(rows)
        build.seal()
    return about


def stored(store: Store, ref: BuildRef) -> list[PairVectors]:
    """All pairs of a build."""
    return [to_pair_vectors(point) for point in store.open(ref).scroll()]


def lose_points(store: Store, ref: BuildRef) -> str:
    """Damage a build: a file of it loses its end, or a server a point. What errors say of it, as a pattern."""
    if isinstance(store, ServerStore):
        lost = next(iter(store.open(ref).scroll())).id
        store._client.delete(str(ref), points_selector=[lost])
        return rf"^build {ref} is damaged: it holds \d+ points; it was sealed with \d+$"
    path = next((Path(store.where) / ref.corpus / ref.build / "shard").rglob("vector_storage-answer/**/*.mmap"))
    os.truncate(path, path.stat().st_size - 1)
    return rf"^build {ref} is damaged: {re.escape(str(path))} has [\d,]+ bytes; it was sealed with [\d,]+$"
