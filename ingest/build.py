"""Bringing pairs in: read, compare with the live build, embed what is new, and have a build made of the result."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ingest.builder import UNIFORM, Builder, Corpus, LiveBuild
from ingest.compare import compare, point_ids
from ingest.readers import Located, Rejection, find_files, read_files
from ingest.report import IngestReport, repeated_questions
from qaserve.builds import remove_orphans
from qaserve.encoder import Encoder
from qaserve.faults import reach
from qaserve.records import Pair
from qaserve.settings import ReadSettings

MAX_SOURCES = 100


class Ingest:
    """Brings files into one corpus."""

    def __init__(self, builder: Builder, encoder: Encoder, read: ReadSettings) -> None:
        """Remember the parts; the encoder is the builder's."""
        self._builder, self._encoder, self._read = builder, encoder, read

    def run(self, paths: Sequence[Path], *, replace: bool = False, dry_run: bool = False) -> IngestReport:
        """Read the paths and make the result live; nothing is written when nothing changes.

        Args:
            paths: Files and folders.
            replace: Make the corpus exactly these files; otherwise their pairs are added to it.
            dry_run: Only say what would be done.

        Raises:
            CorpusError: The paths give no pairs.
            EncoderMismatchError: The live build was made with another encoder.
            StoreLockedError: The corpus is being changed by somebody else.
            StoreError, EncoderError: As they say; the live build is untouched.
        """
        if dry_run:
            return self._run(paths, replace=replace, dry_run=True)
        with self._builder.alone("ingest"):
            return self._run(paths, replace=replace, dry_run=False)

    def _run(self, paths: Sequence[Path], *, replace: bool, dry_run: bool) -> IngestReport:
        started = time.perf_counter()
        builder = self._builder
        builder.stages.clear()
        rows, rejected = self._rows(paths)
        wanted = dict(
            zip(point_ids(builder.corpus, [row.pair for row in rows]), (row.pair for row in rows), strict=True)
        )
        live = builder.live()
        live_pairs = {} if live is None else {point: row.stored.pair for point, row in live.points.items()}
        reach("rows read")
        changes = compare(wanted, live_pairs, replace=replace)
        pairs = wanted if replace else live_pairs | wanted
        build, clusters, encoded = None, None, 0
        cleaned = [] if dry_run else remove_orphans(builder.store, builder.models_dir, builder.corpus)
        reach("orphans removed")
        if live is not None and not changes and builder.is_up_to_date(live):
            build, clusters = live.info.build, live.info.clusters
        elif not dry_run:
            corpus, encoded = self._embed(pairs, live)
            reach("texts encoded")
            before = () if live is None or replace else live.info.sources
            sources = tuple(dict.fromkeys([*before, *(row.file for row in rows)]))[-MAX_SOURCES:]
            manifest = builder.make(corpus, builder.cluster(corpus), builder.choose(corpus, live), sources, live)
            build, clusters = manifest.build, len(manifest.clusters)
        repeated = repeated_questions(rows)
        return IngestReport(
            build=build,
            corpus=builder.corpus,
            dry_run=dry_run,
            read=len(rows),
            added=len(changes.added),
            updated=len(changes.updated),
            unchanged=len(changes.unchanged),
            removed=len(changes.removed),
            rejected=tuple(rejected),
            repeats=sum(len(question.rows) - 1 for question in repeated),
            conflicts=sum(question.answers > 1 for question in repeated),
            repeated_questions=repeated,
            encoded=encoded,
            pairs=len(pairs),
            clusters=clusters,
            encoder=self._encoder.identity.id,
            seconds=round(time.perf_counter() - started, 3),
            stages={name: round(seconds, 3) for name, seconds in builder.stages.items()},
            cleaned=tuple(cleaned),
        )

    def _rows(self, paths: Sequence[Path]) -> tuple[list[Located], list[Rejection]]:
        files = find_files(paths)
        rows: list[Located] = []
        rejected: list[Rejection] = []
        with self._builder.stage("read", "Reading (lines)", None) as advance:
            for item in read_files(files, self._read, advance):
                if isinstance(item, Located):
                    rows.append(item)
                else:
                    rejected.append(item)
        return rows, rejected

    def _embed(self, pairs: Mapping[str, Pair], live: LiveBuild | None) -> tuple[Corpus, int]:
        """Vectors of all pairs. A text that the live build holds, or that occurs twice, is not encoded again."""
        known = {} if live is None else live.points
        questions = {row.stored.pair.question: row.question for row in known.values()}
        answers = {row.stored.pair.answer: row.answer for row in known.values()}
        new_questions = list(dict.fromkeys(pair.question for pair in pairs.values() if pair.question not in questions))
        new_answers = list(dict.fromkeys(pair.answer for pair in pairs.values() if pair.answer not in answers))
        count = len(new_questions) + len(new_answers)
        if count:
            with self._builder.stage("encode", "Encoding (texts)", count) as advance:
                encoded = self._encoder.encode_questions(new_questions, advance)
                questions |= dict(zip(new_questions, encoded, strict=True))
                encoded = self._encoder.encode_answers(new_answers, advance)
                answers |= dict(zip(new_answers, encoded, strict=True))
        ordered = {point: pairs[point] for point in sorted(pairs)}
        priors = np.array([known[point].stored.prior if point in known else 1.0 for point in ordered])
        corpus = Corpus(
            ordered,
            np.stack([questions[pair.question] for pair in ordered.values()]),
            np.stack([answers[pair.answer] for pair in ordered.values()]),
            priors,
            UNIFORM if live is None or (priors == 1).all() else live.prior,
        )
        return corpus, count
