"""Making a build: read, compare with the live one, embed what is new, label, fit, write, swap.

A build's id is a hash of its manifest, which holds the hash of everything else in it. The order of writing makes a
crash harmless at any point: collection, then bundle, then one alias change. Until that last step the live build
answers; what an interrupted run leaves behind is never live, and the next run removes it.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ingest.compare import compare, corpus_hash, point_ids
from ingest.labels import cluster_answers, cluster_count, effective_rank
from ingest.names import describe_clusters
from ingest.readers import Located, Rejection, find_files, read_files
from ingest.report import IngestReport, repeated_questions
from qaserve import bundle as bundles
from qaserve.builds import check_encoder, is_complete, remove_orphans
from qaserve.bundle import Defaults, Manifest, Model, Tuning
from qaserve.encoder import Encoder
from qaserve.errors import BundleError, QaserveError
from qaserve.lexical import Lexicon, pair_text
from qaserve.progress import Advance, Reporter
from qaserve.records import Pair, StoredPair
from qaserve.settings import FitSettings, ReadSettings
from qaserve.store import CollectionInfo, PairVectors, Store, now
from train.fitting import DEFAULT_ANCHOR, choose, defaults_of
from train.folds import Examples
from train.procrustes import fit_bank, mean_rows

UNNAMED = "0" * 12
MAX_SOURCES = 100
MADE_WITH = {"rank_form", "max_clusters", "seed"}


@dataclass(frozen=True)
class Corpus:
    """All pairs of a build to be, by point id, with their vectors in the same order."""

    pairs: dict[str, Pair]
    questions: NDArray[np.float32]
    answers: NDArray[np.float32]


@dataclass(frozen=True)
class Choice:
    """The numbers of a build to be, and how they were chosen."""

    anchor: float
    defaults: Defaults
    tuning: Tuning | None


class Ingest:
    """Brings files into one corpus."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        models_dir: Path,
        corpus: str,
        *,
        read: ReadSettings,
        fit: FitSettings,
        reporter: Reporter,
    ) -> None:
        """Remember the parts."""
        self._store, self._encoder, self._models_dir, self._corpus = store, encoder, models_dir, corpus
        self._read, self._fit, self._reporter = read, fit, reporter
        self._stages: dict[str, float] = {}

    def run(self, paths: Sequence[Path], *, replace: bool = False, dry_run: bool = False) -> IngestReport:
        """Read the paths and make the result live; nothing is written when nothing changes.

        Args:
            paths: Files and folders.
            replace: Make the corpus exactly these files; otherwise their pairs are added to it.
            dry_run: Only say what would be done.

        Raises:
            CorpusError: The paths give no pairs.
            EncoderMismatchError: The live build was made with another encoder.
            StoreError, EncoderError: As they say; the live build is untouched.
        """
        started = time.perf_counter()
        self._stages.clear()
        rows, rejected = self._rows(paths)
        wanted = dict(zip(point_ids(self._corpus, [row.pair for row in rows]), (row.pair for row in rows), strict=True))
        live_info = self._live_info()
        live = self._live_pairs(live_info)
        live_pairs = {point: vectors.stored.pair for point, vectors in live.items()}
        changes = compare(wanted, live_pairs, replace=replace)
        pairs = wanted if replace else live_pairs | wanted
        build, clusters, encoded = None, None, 0
        cleaned = [] if dry_run else remove_orphans(self._store, self._models_dir, self._corpus)
        if live_info is not None and not changes and self._up_to_date(live_info):
            build, clusters = live_info.build, live_info.clusters
        elif not dry_run:
            corpus, encoded = self._embed(pairs, live)
            before = () if live_info is None or replace else live_info.sources
            sources = tuple(dict.fromkeys([*before, *(row.file for row in rows)]))[-MAX_SOURCES:]
            chosen = self._choose(corpus, live_info)
            manifest = self._make(corpus, chosen, sources, None if live_info is None else live_info.build)
            build, clusters = manifest.build, len(manifest.clusters)
        repeated = repeated_questions(rows)
        return IngestReport(
            build=build,
            corpus=self._corpus,
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
            stages={name: round(seconds, 3) for name, seconds in self._stages.items()},
            cleaned=tuple(cleaned),
        )

    @contextmanager
    def _stage(self, name: str, shown: str, total: int | None) -> Iterator[Advance]:
        started = time.perf_counter()
        with self._reporter.stage(shown, total) as advance:
            yield advance
        self._stages[name] = time.perf_counter() - started

    # What there is, and what is wanted

    def _rows(self, paths: Sequence[Path]) -> tuple[list[Located], list[Rejection]]:
        files = find_files(paths)
        rows: list[Located] = []
        rejected: list[Rejection] = []
        with self._stage("read", "Reading (lines)", None) as advance:
            for item in read_files(files, self._read, advance):
                if isinstance(item, Located):
                    rows.append(item)
                else:
                    rejected.append(item)
        return rows, rejected

    def _live_info(self) -> CollectionInfo | None:
        build = self._store.live_builds().get(self._corpus)
        if build is None:
            return None
        info = self._store.info(self._corpus, build)
        check_encoder(info, self._encoder.identity)
        return info

    def _live_pairs(self, info: CollectionInfo | None) -> dict[str, PairVectors]:
        if info is None:
            return {}
        live: dict[str, PairVectors] = {}
        with self._stage("compare", "Comparing (pairs)", info.pairs) as advance:
            for vectors in self._store.scroll(self._corpus, info.build):
                live[vectors.stored.id] = vectors
                advance(1)
        return live

    def _up_to_date(self, info: CollectionInfo) -> bool:
        """Whether the live build is whole, and was made with the settings of now."""
        try:
            manifest = bundles.read(self._models_dir, info.corpus, info.build).manifest
        except BundleError:
            return False
        wanted = self._fit.model_dump(include=MADE_WITH) | {"format": bundles.FORMAT}
        if self._fit.anchor is not None:
            wanted["anchor"] = self._fit.anchor
        same = manifest.model_dump(include=set(wanted)) == wanted
        return same and is_complete(self._store, self._models_dir, info)

    # Embed

    def _embed(self, pairs: Mapping[str, Pair], live: Mapping[str, PairVectors]) -> tuple[Corpus, int]:
        """Vectors of all pairs. A text that the live build holds, or that occurs twice, is not encoded again."""
        questions = {vectors.stored.pair.question: vectors.question for vectors in live.values()}
        answers = {vectors.stored.pair.answer: vectors.answer for vectors in live.values()}
        new_questions = list(dict.fromkeys(pair.question for pair in pairs.values() if pair.question not in questions))
        new_answers = list(dict.fromkeys(pair.answer for pair in pairs.values() if pair.answer not in answers))
        count = len(new_questions) + len(new_answers)
        if count:
            with self._stage("encode", "Encoding (texts)", count) as advance:
                encoded = self._encoder.encode_questions(new_questions, advance)
                questions |= dict(zip(new_questions, encoded, strict=True))
                encoded = self._encoder.encode_answers(new_answers, advance)
                answers |= dict(zip(new_answers, encoded, strict=True))
        ordered = {point: pairs[point] for point in sorted(pairs)}
        corpus = Corpus(
            ordered,
            np.stack([questions[pair.question] for pair in ordered.values()]),
            np.stack([answers[pair.answer] for pair in ordered.values()]),
        )
        return corpus, count

    # Label, fit, write, swap

    def refit(self) -> Manifest:
        """A new build of the live pairs and vectors, made live: numbers chosen anew, nothing encoded.

        Raises:
            NotFoundError: The corpus has no live build.
            EncoderMismatchError, StoreError: As they say; the live build is untouched.
        """
        self._stages.clear()
        info = self._store.info(self._corpus, self._store.live(self._corpus))
        check_encoder(info, self._encoder.identity)
        live = self._live_pairs(info)
        ordered = [live[point] for point in sorted(live)]
        corpus = Corpus(
            {vectors.stored.id: vectors.stored.pair for vectors in ordered},
            np.stack([vectors.question for vectors in ordered]),
            np.stack([vectors.answer for vectors in ordered]),
        )
        return self._make(corpus, self._tune(corpus), info.sources, info.build)

    def _choose(self, corpus: Corpus, live: CollectionInfo | None) -> Choice:
        """Numbers chosen on these pairs or, where that would take long, those of the live build."""
        if len(corpus.pairs) <= self._fit.tune_pairs:
            return self._tune(corpus)
        kept = Choice(self._fit.anchor or DEFAULT_ANCHOR, Defaults(), None)
        if live is not None:
            with suppress(BundleError):
                manifest = bundles.read(self._models_dir, live.corpus, live.build).manifest
                kept = Choice(self._fit.anchor or manifest.anchor, manifest.defaults, None)
        return kept

    def _tune(self, corpus: Corpus) -> Choice:
        examples = Examples(
            list(corpus.pairs.values()), corpus.questions.astype(np.float64), corpus.answers.astype(np.float64)
        )
        with self._stage("choose", "Choosing λ, τ, N, β (trials)", None) as advance:
            tuning = choose(
                examples,
                seed=self._fit.seed,
                anchor=self._fit.anchor,
                rank_form=self._fit.rank_form,
                advance=advance,
            )
        anchor = self._fit.anchor or (DEFAULT_ANCHOR if tuning is None else tuning.chosen.anchor)
        return Choice(anchor, defaults_of(tuning), tuning)

    def _make(self, corpus: Corpus, choice: Choice, sources: tuple[str, ...], live_build: str | None) -> Manifest:
        with self._stage("cluster", "Clustering (answers)", len(corpus.pairs)) as advance:
            count = cluster_count(corpus.answers, self._fit.rank_form, self._fit.max_clusters)
            labels = cluster_answers(corpus.answers, count, self._fit.seed)
            advance(len(corpus.pairs))
        with self._stage("fit", "Fitting (clusters)", count) as advance:
            bank = fit_bank(corpus.questions, corpus.answers, labels, count, choice.anchor, advance)
            lexicon = Lexicon.fit({point: pair_text(pair) for point, pair in corpus.pairs.items()})
            means = mean_rows(corpus.questions, labels, count), mean_rows(corpus.answers, labels, count)
            model = Model(bank, *means, lexicon)
        files = bundles.pack(model)
        manifest = self._manifest(corpus, choice, labels.tolist(), model, files)
        with self._stage("write", "Writing (pairs)", len(corpus.pairs)) as advance:
            self._write(manifest, files, sources, _points(corpus, labels.tolist()), live_build, advance)
        return manifest

    def _manifest(
        self, corpus: Corpus, choice: Choice, labels: Sequence[int], model: Model, files: Mapping[str, bytes]
    ) -> Manifest:
        draft = Manifest(
            build=UNNAMED,
            corpus=self._corpus,
            corpus_hash=corpus_hash(corpus.pairs),
            encoder=self._encoder.identity,
            pairs=len(corpus.pairs),
            anchor=choice.anchor,
            **self._fit.model_dump(include=MADE_WITH),
            effective_rank=round(effective_rank(corpus.answers, self._fit.rank_form), 3),
            defaults=choice.defaults,
            tuning=choice.tuning,
            metrics={"bank_bytes": model.bank.nbytes, "dense_bank_bytes": model.bank.dense_nbytes},
            clusters=describe_clusters(list(corpus.pairs.values()), labels, len(model.bank)),
            files={name: bundles.entry_for(data) for name, data in files.items()},
        )
        name = hashlib.sha256(bundles.manifest_bytes(draft)).hexdigest()[: len(UNNAMED)]
        return draft.model_copy(update={"build": name})

    def _write(
        self,
        manifest: Manifest,
        files: Mapping[str, bytes],
        sources: tuple[str, ...],
        points: Iterator[PairVectors],
        live_build: str | None,
        advance: Advance,
    ) -> None:
        info = CollectionInfo(
            corpus=manifest.corpus,
            build=manifest.build,
            encoder=manifest.encoder,
            pairs=manifest.pairs,
            clusters=len(manifest.clusters),
            bundle_hash=bundles.entry_for(bundles.manifest_bytes(manifest)).sha256,
            sources=sources,
            created=now(),
        )
        if info.build == live_build:  # the live build lost a part: give it back what it lost
            self._fill(info, manifest, files, points, advance)
            return
        known = {existing.build: existing for existing in self._store.builds(info.corpus)}
        earlier = known.get(info.build)
        if earlier is None or not is_complete(self._store, self._models_dir, earlier):
            try:
                self._store.create(info)
                self._fill(info, manifest, files, points, advance)
            except BaseException:
                with suppress(QaserveError):
                    self._store.delete(info.corpus, info.build)
                raise
        self._store.activate(info.corpus, info.build)

    def _fill(
        self,
        info: CollectionInfo,
        manifest: Manifest,
        files: Mapping[str, bytes],
        points: Iterator[PairVectors],
        advance: Advance,
    ) -> None:
        for done in self._store.write(info.corpus, info.build, points):
            advance(done)
        bundles.write(self._models_dir, manifest, files)


def _points(corpus: Corpus, labels: Sequence[int]) -> Iterator[PairVectors]:
    rows = zip(corpus.pairs.items(), labels, corpus.questions, corpus.answers, strict=True)
    for (point, pair), label, question, answer in rows:
        yield PairVectors(StoredPair(id=point, pair=pair, cluster=label, prior=1.0), question, answer)
