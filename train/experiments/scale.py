"""The experiment behind `qaserve bench scale`: an ingest of many synthetic pairs, stage by stage, and its memory.

The pairs are clustered like the real ones: topics of very different size, intents in them, and five questions of each
intent with slightly different answers. An encoder that reads topic and intent off a text stands in for a model, which
would take hours; everything else is what `qaserve ingest` does, from the file to the swap, in a folder of its own.
"""

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ingest.builder import Builder
from ingest.pipeline import Ingest
from qaserve.common.progress import Advance, Reporter
from qaserve.schemas.ask import AskRequest
from qaserve.schemas.builds import EncoderIdentity
from qaserve.schemas.record import Record
from qaserve.search.engine import Engine
from qaserve.settings import FitSettings, ReadSettings, StoreSettings
from qaserve.store import open_store
from qaserve.store.graphs import RECALL_AT, recall

TOPICS, PER_INTENT, NEW_PAIRS = 183, 5, 10
"""The real corpus has 183 clusters at D 384, and about five questions of an intent."""
INTENT_SPREAD, NOISE = 0.7, 0.35
"""Length of an intent's offset from its topic, and of a text's from its intent, where a topic has length 1."""
VOCABULARY, ANSWER_WORDS, QUESTION_WORDS = 20_000, 60, 6
CORPUS = "scale"
QUESTIONS = 200
ENCODER_BATCH = 1024
TENTHS = 10


class ScaleReport(Record):
    """What an ingest of many pairs took."""

    pairs: int
    dimension: int
    clusters: int
    seconds: float = Field(
        description="From the file to the swap; hyperparameters are not tuned, encoding is synthetic."
    )
    stages: dict[str, float] = Field(description="Seconds by stage.")
    write_rates: tuple[float, ...] = Field(description="Pairs written per second, by tenth of the pairs.")
    peak_bytes: int = Field(description="Most memory that the process had, all in all.")
    start_bytes: int = Field(description="The same, before the ingest.")
    file_bytes: int = Field(description="Of the corpus file.")
    unchanged_seconds: float | None = Field(description="The same file again; null: not measured.")
    added_seconds: float | None = Field(description=f"The same file and {NEW_PAIRS} new pairs; null: not measured.")
    disk_bytes: int = Field(description="Of the build's points and bundle, as the disk counts them.")
    open_seconds: float = Field(description="To open the build and its bundle.")
    recall: float | None = Field(
        description=f"Share of the exact nearest {RECALL_AT} questions that a search finds; null: searches are exact."
    )
    ask_ms: float = Field(description="Median of a question to the build, encoding left out.")
    ask_p99_ms: float = Field(description="99th percentile of the same.")


class SyntheticEncoder:
    """Vectors of synthetic texts: a topic, an intent in it, and the text itself."""

    def __init__(self, dimension: int) -> None:
        """Of D dimensions."""
        self.identity = EncoderIdentity(id="synthetic", revision="1", dimension=dimension)

    def encode_questions(
        self, texts: Sequence[str], on_batch: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """(n, D) unit rows."""
        return self._encode(texts, on_batch)

    def encode_answers(
        self, texts: Sequence[str], on_batch: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """(n, D) unit rows."""
        return self._encode(texts, on_batch)

    def _encode(self, texts: Sequence[str], on_batch: Callable[[int], None] | None) -> NDArray[np.float32]:
        rows = np.empty((len(texts), self.identity.dimension), dtype=np.float32)
        for start in range(0, len(texts), ENCODER_BATCH):
            batch = texts[start : start + ENCODER_BATCH]
            for row, text in enumerate(batch, start):
                topic, intent = text.split(maxsplit=2)[:2]
                vector = _drawn(topic, self.identity.dimension) + NOISE * _draw(text, self.identity.dimension)
                vector += INTENT_SPREAD * _draw(intent, self.identity.dimension)
                rows[row] = vector / np.linalg.norm(vector)
            if on_batch is not None:
                on_batch(len(batch))
        return rows


def _draw(text: str, dimension: int) -> NDArray[np.float64]:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(size=dimension)
    return np.asarray(vector / np.linalg.norm(vector))


_drawn = cache(_draw)


def write_corpus(path: Path, pairs: int, seed: int) -> None:
    """Write synthetic pairs as JSON Lines; the first of a larger corpus are those of a smaller one."""
    rng = np.random.default_rng(seed)
    with path.open("w", encoding="utf-8") as file:
        for number in range(pairs):
            file.write(json.dumps(_row(number, rng)) + "\n")


def _row(number: int, rng: np.random.Generator) -> dict[str, object]:
    intent = number // PER_INTENT
    topic = int(np.random.default_rng(intent).beta(0.6, 2) * TOPICS)  # few large topics, many small ones
    words = [f"w{int(word)}" for word in rng.zipf(1.3, QUESTION_WORDS + ANSWER_WORDS) % VOCABULARY]
    return {
        "pair_id": f"i{intent}_q{number % PER_INTENT}",
        "cluster_id": f"i{intent}",
        "question": f"topic{topic} intent{intent} q{number} {' '.join(words[:QUESTION_WORDS])}",
        "answer": f"topic{topic} intent{intent} {' '.join(words[QUESTION_WORDS:])}",
        "original_answer": f"topic{topic} intent{intent}",
        "topics": [f"topic{topic}"],
        "related_skills": [f"skill_topic{topic}.md"],
    }


def run(
    pairs: int, folder: Path, fit: FitSettings, dimension: int, reporter: Reporter, *, again: bool = True
) -> ScaleReport:
    """Ingest pairs into an empty folder, and then again.

    Args:
        pairs: How many.
        folder: Empty; the corpus file, the embedded Qdrant and the bundles go there.
        fit: How a build is fitted. Hyperparameters are not tuned: above `QASERVE_TUNE_PAIRS` they never are.
        dimension: D.
        reporter: Shows the stages.
        again: Ingest the same file again, and then with new pairs.
    """
    path = folder / "pairs.jsonl"
    write_corpus(path, pairs, fit.seed)
    encoder, start = SyntheticEncoder(dimension), _peak()
    fit = fit.model_copy(update={"tune_pairs": 0})
    watch = _Watch(reporter)
    with open_store(StoreSettings(data_dir=folder / "data")) as store:
        builder = Builder(store, encoder.identity, folder / "models", CORPUS, fit=fit, reporter=watch)
        ingest = Ingest(builder, encoder, ReadSettings())
        first = ingest.run([path])
        peak, rates = _peak(), watch.rates()
        unchanged = added = None
        if again:
            unchanged = ingest.run([path]).seconds
            write_corpus(folder / "more.jsonl", pairs + NEW_PAIRS, fit.seed)
            added = ingest.run([folder / "more.jsonl"]).seconds
        engine, began = Engine(store, encoder, folder / "models", CORPUS), time.perf_counter()
        live = engine.load()
        opened = time.perf_counter() - began
        asked = [engine.ask(AskRequest(question=text)).timings_ms for text in _questions(path)]
        taken = np.array([took.total - took.encode for took in asked])
        places = [folder / "data" / CORPUS / live.ref.build, folder / "models" / CORPUS / live.ref.build]
    return ScaleReport(
        pairs=first.pairs,
        dimension=dimension,
        clusters=first.clusters or 0,
        seconds=first.seconds,
        stages=first.stages,
        write_rates=rates,
        peak_bytes=peak,
        start_bytes=start,
        file_bytes=path.stat().st_size,
        unchanged_seconds=unchanged,
        added_seconds=added,
        disk_bytes=sum(_on_disk(file) for place in places for file in place.rglob("*")),
        open_seconds=round(opened, 3),
        recall=None if (found := recall(live.points)) is None else round(found, 4),
        ask_ms=round(float(np.median(taken)), 3),
        ask_p99_ms=round(float(np.quantile(taken, 0.99)), 3),
    )


def _on_disk(file: Path) -> int:
    """Bytes that a file takes, without its holes."""
    status = file.stat()
    return getattr(status, "st_blocks", status.st_size // 512) * 512


def _questions(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        for line, _ in zip(file, range(QUESTIONS), strict=False):
            yield json.loads(line)["question"]


def _peak() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


class _Watch:
    """A reporter that notes when pairs were written, and tells another."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._written: list[tuple[float, int]] = []

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        with self._reporter.stage(name, total) as advance:
            if not name.startswith("Writing"):
                yield advance
                return
            self._written = [(time.perf_counter(), 0)]

            def noted(done: int) -> None:
                self._written.append((time.perf_counter(), self._written[-1][1] + done))
                advance(done)

            yield noted

    def rates(self) -> tuple[float, ...]:
        """Pairs per second in every tenth of the pairs written last."""
        times, counts = (np.array(column, dtype=np.float64) for column in zip(*self._written, strict=True))
        bounds = np.interp(np.linspace(0, counts[-1], TENTHS + 1), counts, times)
        return tuple(round(float(counts[-1] / TENTHS / took), 1) for took in np.diff(bounds))
