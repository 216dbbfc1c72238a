"""Making a build out of pairs and their vectors: label, measure, fit, write, swap. A dry run ends before the writing.

A build's id is a hash of its manifest, which holds the hash of everything else in it. The order of writing makes a
crash harmless at any point: points, then bundle, then one change of the live build. Until that last step the live build
answers; what an interrupted run leaves behind is never live, and the next run removes it.
"""

import hashlib
import time
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ingest.clusters import Clusters, describe_changes, make_clusters
from ingest.compare import corpus_hash
from ingest.corpus import Choice, Corpus, Documents, ExtraRows, LiveBuild, points_of
from ingest.gate import measure, stopped
from ingest.golden import Golden
from ingest.names import Words, describe_clusters
from ingest.pairs import TOPIC_TEXT, Names, PairLog, PairTable
from ingest.spool import Vectors, scratch_folder
from qaserve.builds import bundle as bundles
from qaserve.builds.bundle import Model
from qaserve.builds.catalog import (
    check_encoder,
    is_complete,
    mark_unfinished,
    open_documents,
    unfinished,
    unmark,
    verify,
    verify_points,
)
from qaserve.builds.manifest import FORMAT, UNIFORM, Manifest, entry_for, manifest_bytes
from qaserve.common.clock import now
from qaserve.common.errors import BuildNotFoundError, BundleError, DamagedBuildError, QaserveError
from qaserve.common.locks import FolderLock, corpus_lock
from qaserve.common.progress import Advance, Reporter
from qaserve.core.clustering import effective_rank
from qaserve.schemas.builds import EncoderIdentity
from qaserve.schemas.ingest import ClusterChanges, GateReport
from qaserve.settings import FitSettings
from qaserve.store import BuildMetadata, BuildRef, Store
from qaserve.store.errors import damaged
from qaserve.store.points import (
    PAIRS,
    SECTIONS,
    PairVectors,
    section_point,
    to_pair_vectors,
    to_point,
    to_sections,
)
from qaserve.store.words import bm25_params, bm25_params_of
from train.calibration import calibrate
from train.procrustes import fit_bank, mean_rows
from train.tuning import DEFAULTS, hyperparameters_of, tune
from train.whitening import fit_whitening

UNNAMED = "0" * 12
MADE_WITH = {"rank_form", "max_clusters", "seed", "precision"}


class Draft(NamedTuple):
    """A build that is all there but for being written."""

    manifest: Manifest
    files: Mapping[str, bytes]
    """Of the bundle, by name."""
    points: Iterator[PairVectors]
    documents: Documents
    cluster_changes: ClusterChanges | None = None
    gate: GateReport | None = None


class Builder:
    """Makes the builds of one corpus, and tells how long each stage took."""

    def __init__(
        self,
        store: Store,
        encoder: EncoderIdentity,
        models_dir: Path,
        corpus: str,
        *,
        fit: FitSettings,
        reporter: Reporter,
        lock_wait: float = 0,
    ) -> None:
        """Remember the parts."""
        self.store, self.encoder, self.models_dir, self.corpus = store, encoder, models_dir, corpus
        self.fit = fit
        self.scratch = scratch_folder(models_dir)
        self.stages: dict[str, float] = {}
        self._names = Names()
        self._reporter = reporter
        self._lock_wait = lock_wait

    @contextmanager
    def stage(self, name: str, shown: str, total: int | None) -> Iterator[Advance]:
        """Show and time a stage; it may come several times."""
        started = time.perf_counter()
        with self._reporter.stage(shown, total) as advance:
            yield advance
        self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - started

    def alone(self, purpose: str) -> FolderLock:
        """The right to change the builds of this corpus, as a context. Raises StoreLockedError that says who has it."""
        purpose = f"{purpose} of corpus {self.corpus}"
        return corpus_lock(self.models_dir, self.corpus, purpose, self._lock_wait, self._reporter)

    # What there is

    def log(self) -> PairLog:
        """Room for pairs on disk. Those of a corpus that is tuned stay in memory: tuning takes all of them at once."""
        return PairLog(self.corpus, self._names, self.scratch, self.fit.tune_pairs)

    def live(self, *, any_encoder: bool = False, needed: bool = True) -> LiveBuild | None:
        """The live build with all its points; None where the corpus has none.

        Args:
            any_encoder: As of `read`.
            needed: False also gives None where the live build is damaged or gone, since none of it is kept.

        Raises:
            EncoderMismatchError: As `read`.
            DamagedBuildError: It cannot be read or is gone, and is needed.
            NotFoundError: There are finished builds and none is live: a new one would lose their pairs.
        """
        build = self.store.live_builds().get(self.corpus)
        if build is None:
            if set(self.store.names(self.corpus)) - unfinished(self.models_dir, self.corpus):
                self.store.live(self.corpus)  # the live build is lost: says which builds there are
            return None
        ref = BuildRef(self.corpus, build)
        try:
            return self.read(ref, any_encoder=any_encoder)
        except BuildNotFoundError as error:
            if needed:
                raise damaged(ref, f"it is live, and it is not in {self.store.where}") from error
        except DamagedBuildError:
            if needed:
                raise
        return None

    def read(self, ref: BuildRef, *, any_encoder: bool = False) -> LiveBuild:
        """A build with all its points.

        Args:
            ref: Which.
            any_encoder: Read it even if its vectors are of another encoder.

        Raises:
            EncoderMismatchError: It was made with another encoder.
            DamagedBuildError: It is not as it was sealed.
        """
        metadata = self.store.metadata(ref)
        if not any_encoder:
            check_encoder(metadata, self.encoder)
        verify_points(self.store, ref)  # a new build takes them over
        build = self.store.open(ref)
        pairs, row_of, clusters, priors = self.log(), dict[str, int](), array("q"), array("d")
        questions, answers, topics = (Vectors(metadata.encoder.dimension, self.scratch) for _ in range(3))
        no_topic = np.full(metadata.encoder.dimension, np.nan, dtype=np.float32)
        comparable = metadata.topic_text == TOPIC_TEXT
        with self.stage("compare", "Reading the live build (pairs)", metadata.pairs) as advance:
            for stored, question, answer, topic in map(to_pair_vectors, build.scroll()):
                row_of[stored.id] = len(pairs)
                pairs.append(stored.pair)
                clusters.append(stored.cluster)
                priors.append(stored.prior)
                questions.append(question)
                answers.append(answer)
                topics.append(topic if topic is not None and comparable else no_topic)
                advance(1)
        manifest = None
        with suppress(BundleError):
            manifest = bundles.read(self.models_dir, ref).manifest
        sections = open_documents(self.store, metadata)
        documents = Documents() if sections is None else Documents(*to_sections(sections.scroll()))
        corpus = Corpus(
            PairTable(row_of, pairs),
            questions.array(),
            answers.array(),
            topics.array(),
            np.array(priors, dtype=np.float64),
            UNIFORM if manifest is None else manifest.prior,
        )
        return LiveBuild(metadata, manifest, corpus, np.array(clusters, dtype=np.int64), documents)

    def is_up_to_date(self, live: LiveBuild) -> bool:
        """Whether a build is whole, and was made with the settings of now."""
        if live.manifest is None:
            return False
        wanted = self.fit.model_dump(include=MADE_WITH) | {
            "format": FORMAT,
            "regularization_setting": self.fit.regularization,
        }
        same = live.manifest.model_dump(include=set(wanted)) == wanted
        return same and is_complete(self.store, self.models_dir, live.metadata)

    # The numbers

    def choose(self, corpus: Corpus, live: LiveBuild | None, clusters: Clusters) -> Choice:
        """Numbers chosen on these pairs; those of the live build where its clusters are kept or trying takes long."""
        manifest = None if live is None else live.manifest
        wanted = {"regularization_setting": self.fit.regularization, "precision": self.fit.precision}
        same = manifest is not None and manifest.model_dump(include=set(wanted)) == wanted
        if len(corpus.pairs) <= self.fit.tune_pairs and not (clusters.kept and same):
            return self.tune(corpus)
        kept = DEFAULTS if manifest is None else manifest.hyperparameters
        if self.fit.regularization is not None:
            kept = kept.model_copy(update={"regularization": self.fit.regularization})
        return Choice(kept, None, None if manifest is None else manifest.calibration)

    def tune(self, corpus: Corpus) -> Choice:
        """Numbers and calibration by cross-validation on these pairs."""
        examples = corpus.examples
        with self.stage("choose", "Choosing λ, τ, N, β (trials)", None) as advance:
            tuning = tune(examples, self.fit, advance)
        chosen = hyperparameters_of(tuning, self.fit)
        with self.stage("calibrate", "Calibrating (folds)", None) as advance:
            calibration = calibrate(examples, chosen, self.fit, advance)
        return Choice(chosen, tuning, calibration)

    # Label, fit, measure, write, swap

    def cluster(self, corpus: Corpus, live: LiveBuild | None, *, recluster: bool = False) -> Clusters:
        """The clusters of a build to be: those of the live one where they fit, unless `recluster`."""
        comparable = live is not None and live.metadata.encoder.comparable(self.encoder)
        with self.stage("cluster", "Clustering (answers)", None) as advance:
            clusters = make_clusters(corpus, live, self.fit, comparable=comparable, recluster=recluster)
            advance(len(corpus.pairs))
        return clusters

    def draft(
        self,
        corpus: Corpus,
        clusters: Clusters,
        choice: Choice,
        live: LiveBuild | None,
        *,
        documents: Documents | None = None,
        extra: ExtraRows | None = None,
        golden: Golden | None = None,
        force: bool = False,
    ) -> Draft:
        """Measure a build of these pairs beside the live one, and fit it. Nothing is written.

        Args:
            corpus: The pairs.
            clusters: Their clusters.
            choice: How it is to answer.
            live: The build before it.
            documents: Its documents; None: those of the live build.
            extra: Further rows for W to be fitted on; the measuring is without them.
            golden: Questions that people said must find a pair.
            force: The gate is to let it pass even if it finds less than the live one.
        """
        with self.stage("gate", "Measuring (sets of questions)", None) as advance:
            seed, tolerance = self.fit.seed, self.fit.gate_tolerance
            measured = measure(
                corpus, clusters, choice, live, golden, seed=seed, tolerance=tolerance, force=force, advance=advance
            )
        manifest, files = self._fitted(corpus, clusters, choice, measured.metrics, extra)
        if documents is None:
            documents = Documents() if live is None else live.documents
        draft = drafted(manifest, files, points_of(corpus, clusters.labels), documents)
        changes = describe_changes(clusters, corpus, [cluster.name for cluster in manifest.clusters])
        return draft._replace(cluster_changes=changes, gate=measured.gate)

    def _words(self, corpus: Corpus) -> Words:
        words = Words()
        with self.stage("words", "Counting words (pairs)", len(corpus.pairs)) as advance:
            for pair in corpus.pairs.values():
                words.add(pair)
                advance(1)
        return words

    def _fitted(
        self,
        corpus: Corpus,
        clusters: Clusters,
        choice: Choice,
        metrics: dict[str, float],
        extra: ExtraRows | None,
    ) -> tuple[Manifest, dict[str, bytes]]:
        labels, count, words = clusters.labels, clusters.count, corpus.words or self._words(corpus)
        with self.stage("fit", "Fitting (clusters)", count) as advance:
            rows = corpus.questions, corpus.answers, labels
            if extra is not None:
                more = extra.questions, extra.answers, extra.labels
                rows = np.vstack([rows[0], more[0]]), np.vstack([rows[1], more[1]]), np.concatenate([rows[2], more[2]])
            bank = fit_bank(*rows, count, choice.hyperparameters.regularization, advance)
            means = mean_rows(corpus.questions, labels, count), mean_rows(corpus.answers, labels, count)
            whitening = fit_whitening(corpus.questions, corpus.answers, corpus.pairs.named("intent"))
        manifest = Manifest(
            build=UNNAMED,
            corpus=self.corpus,
            corpus_hash=corpus_hash(corpus.pairs),
            encoder=self.encoder,
            pairs=len(corpus.pairs),
            hyperparameters=choice.hyperparameters,
            regularization_setting=self.fit.regularization,
            **self.fit.model_dump(include=MADE_WITH),
            effective_rank=round(effective_rank(corpus.answers, self.fit.rank_form), 3),
            prior=corpus.prior,
            tuning=choice.tuning,
            calibration=choice.calibration,
            feedback=None if extra is None else extra.said,
            bm25=bm25_params_of(words.lengths),
            topic_text=TOPIC_TEXT,
            metrics={"bank_bytes": bank.nbytes, "dense_bank_bytes": bank.dense_nbytes} | metrics,
            clustering=clusters.made,
            clusters=describe_clusters(words, labels, count, clusters.names),
            files={},
        )
        return manifest, bundles.pack(Model(bank, *means, whitening))

    def release(self, draft: Draft, sources: tuple[str, ...], live: LiveBuild | None) -> Manifest:
        """Write a build and make it live.

        Args:
            draft: The build.
            sources: Files that its pairs came from.
            live: The build before it.

        Raises:
            QualityError: The gate stops it; nothing is written.
        """
        if draft.gate is not None and draft.gate.stops:
            raise stopped(draft.gate)
        manifest = draft.manifest
        metadata = BuildMetadata(
            corpus=manifest.corpus,
            build=manifest.build,
            encoder=manifest.encoder,
            pairs=manifest.pairs,
            clusters=len(manifest.clusters),
            bundle_hash=entry_for(manifest_bytes(manifest)).sha256,
            sources=sources,
            created=self._after_all_others(now()),
            layout=PAIRS,
            bm25=manifest.bm25,
            topic_text=manifest.topic_text,
            sections=len(draft.documents.sections),
        )
        if live is not None and metadata.ref == live.metadata.ref:  # its bundle is damaged: put it back
            bundles.write(self.models_dir, manifest, draft.files)
        else:
            self._write(metadata, draft)
            self.store.set_live(metadata.ref)
            unmark(self.models_dir, metadata.ref)
        return manifest

    def _after_all_others(self, time: str) -> str:
        """The time, or a microsecond after the latest build where the clock went backwards: builds are in order."""
        latest = max((metadata.created for metadata in self.store.builds(self.corpus)), default="")
        if time > latest:
            return time
        return (datetime.fromisoformat(latest) + timedelta(microseconds=1)).isoformat(timespec="microseconds")

    def _write(self, metadata: BuildMetadata, draft: Draft) -> None:
        """Write a build that is not live; one that is there and whole is kept."""
        with suppress(BuildNotFoundError, DamagedBuildError, BundleError):
            verify(self.store, self.models_dir, metadata.ref)
            return
        mark_unfinished(self.models_dir, metadata.ref)
        try:
            if metadata.sections:
                self._write_documents(metadata, draft.documents)
            with self.store.create(metadata) as writer:
                with self.stage("write", "Writing (pairs)", metadata.pairs) as advance:
                    for done in writer.append(map(to_point, draft.points)):
                        advance(done)
                writer.make_graphs(lambda vectors: self.stage("graphs", "Making HNSW graphs (vectors)", vectors))
                with self.stage("seal", "Sealing (files)", None):
                    writer.seal()
            bundles.write(self.models_dir, draft.manifest, draft.files)
        except BaseException:
            with suppress(QaserveError):  # a build that cannot be deleted keeps its mark: the next ingest removes it
                for ref in (metadata.ref, metadata.ref.documents):
                    with suppress(BuildNotFoundError):
                        self.store.delete(ref)
                unmark(self.models_dir, metadata.ref)
            raise

    def _write_documents(self, metadata: BuildMetadata, documents: Documents) -> None:
        """Write the sections before the pairs: a build that is sealed has its documents."""
        about = metadata.model_copy(
            update={
                "corpus": metadata.ref.documents.corpus,
                "pairs": metadata.sections,
                "clusters": 0,
                "sections": 0,
                "layout": SECTIONS,
                "bm25": bm25_params(section.text for section in documents.sections),
            }
        )
        points = [section_point(self.corpus, *row) for row in zip(*documents, strict=True)]
        with self.store.create(about) as writer:
            for _ in writer.append(sorted(points, key=lambda point: point.id)):
                pass
            writer.seal()


def drafted(
    manifest: Manifest, files: Mapping[str, bytes], points: Iterator[PairVectors], documents: Documents
) -> Draft:
    """A build named by its content.

    Args:
        manifest: Its own, but for name, files and documents.
        files: Of the bundle, by name.
        points: Its pairs with their vectors, in the order of ids.
        documents: Its documents.
    """
    entries = {name: entry_for(data) for name, data in files.items()}
    unnamed = manifest.model_copy(update={"build": UNNAMED, "files": entries, "documents": documents.info})
    name = hashlib.sha256(manifest_bytes(unnamed)).hexdigest()[: len(UNNAMED)]
    return Draft(unnamed.model_copy(update={"build": name}), files, points, documents)
