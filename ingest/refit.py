"""A new build out of the live one's own pairs and vectors: fitted again, or with a student. No pair is encoded."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from ingest.builder import Builder, drafted
from ingest.corpus import LiveBuild, points_of
from ingest.feedback_rows import Extra, extra_rows
from ingest.golden import Golden
from qaserve.builds import bundle as bundles
from qaserve.builds.bundle import Bundle
from qaserve.builds.catalog import remove_orphans
from qaserve.builds.manifest import FORMAT, Manifest, StudentInfo
from qaserve.core.pipeline import Pipeline
from qaserve.core.student import StudentSpec
from qaserve.encoders.sentence_transformer import SentenceEncoder
from qaserve.schemas.params import SearchParams
from qaserve.schemas.record import Record
from train.distillation.architectures import architectures, choose_architecture, parse_architecture
from train.distillation.configs import OUR_RECIPE, SLOTS_RECIPE
from train.distillation.teachers import RoutedTeacher
from train.distillation.training import Distilled, distill
from train.importance.measures import importance

AUTO = "auto"
SLOTS = 256
"""What `auto` tries beside the transformers."""


class Candidate(Record):
    """A student that was trained."""

    name: str
    parameters: int
    capacity: int = Field(description="H^L; M of slots.")
    validation_cosine: float
    train_loss: float
    epochs: int
    seconds: float


class DistillReport(Record):
    """What a distillation did."""

    build: str
    corpus: str
    student: StudentInfo
    candidates: tuple[Candidate, ...] = Field(description="All that were trained, fewest parameters first.")
    weights: bytes = Field(exclude=True, repr=False, description="Of the student that was kept.")
    seconds: float


def refit(
    builder: Builder,
    prior: str | None = None,
    model: SentenceEncoder | None = None,
    extra: Extra | None = None,
    *,
    golden: Golden | None = None,
    force: bool = False,
) -> Manifest:
    """Cluster, tune and fit the live build again, and make the result live.

    Args:
        builder: Of the corpus.
        prior: Which importance the pairs get as their prior in routing; None leaves the priors as they are.
        model: The encoder, for an importance that is read from the texts.
        extra: Questions that people judged, for W to be fitted on too.
        golden: Questions that people said must find a pair.
        force: Make the result live even if it finds less than the live build.

    Raises:
        NotFoundError: The corpus has no live build.
        UsageError: There is no such importance.
        QualityError: The result finds clearly less than the live build, which stays.
        EncoderMismatchError, StoreError: As they say; the live build is untouched.
    """
    live = _live(builder)
    corpus = live.corpus
    clusters = builder.cluster(corpus, live, recluster=True)
    if prior is not None:
        numbers = SearchParams() if live.manifest is None else live.manifest.hyperparameters.search
        with builder.stage("importance", "Weighing (texts)", None) as advance:
            weights = importance(
                prior,
                corpus.examples,
                clusters.labels,
                clusters.count,
                temperature=numbers.temperature,
                hits=numbers.hits,
                model=model,
                seed=builder.fit.seed,
                advance=advance,
            )
        corpus = replace(corpus, priors=weights, prior=prior)
    rows = None if extra is None else extra_rows(extra, live, clusters.labels, builder)
    choice, sources = builder.tune(corpus), live.metadata.sources
    draft = builder.draft(corpus, clusters, choice, live, extra=rows, golden=golden, force=force)
    return builder.release(draft, sources, live)


def add_student(
    builder: Builder, architecture: str, scratch: Path, weighing: str = "uniform", model: SentenceEncoder | None = None
) -> DistillReport:
    """Teach a student what the live build's routing and projection do, and make a build with it live.

    Args:
        builder: Of the corpus.
        architecture: As `train.distillation.architectures` reads it, or "auto": transformers of capacity H^L ≥ K
            and slots are trained, and the smallest of those as good as the best at validation questions is kept.
        scratch: Folder for the state of the training; an interrupted one goes on from there.
        weighing: Which importance the pairs have in the loss.
        model: The encoder, for an importance that is read from the texts.

    Raises:
        NotFoundError: The corpus has no live build.
        UsageError: There is no such architecture or importance.
        BundleError: The live build's bundle is missing or corrupt.
        CorpusError: There are too few pairs.
    """
    started = time.perf_counter()
    live = _live(builder)
    bundle = bundles.read(builder.models_dir, live.metadata.ref)
    specs = _specs(architecture, live)
    folder = scratch / builder.corpus / live.metadata.build
    trained = [
        _teach(builder, live, bundle, spec, folder / weighing / spec.name.replace(" ", "-"), weighing, model)
        for spec in specs
    ]
    kept = choose_architecture(trained)
    recipe = SLOTS_RECIPE if kept.spec.form == "slots" else OUR_RECIPE
    student = StudentInfo(
        spec=kept.spec,
        recipe=recipe.model_dump(),
        importance=weighing,
        seed=builder.fit.seed,
        epochs=kept.epochs,
        train_loss=round(kept.train_loss, 9),
        validation_cosine=round(kept.validation_cosine, 9),
    )
    draft = drafted(
        bundle.manifest.model_copy(update={"format": FORMAT, "student": student}),
        bundles.pack(replace(bundle.model, student=kept.weights)),
        points_of(live.corpus, live.labels),
        live.documents,
    )
    manifest = builder.release(draft, live.metadata.sources, live)
    shutil.rmtree(folder, ignore_errors=True)
    return DistillReport(
        build=manifest.build,
        corpus=manifest.corpus,
        student=student,
        candidates=tuple(_candidate(one) for one in sorted(trained, key=lambda one: one.spec.parameters)),
        weights=kept.weights,
        seconds=round(time.perf_counter() - started, 3),
    )


def _live(builder: Builder) -> LiveBuild:
    builder.stages.clear()
    live = builder.read(builder.store.live(builder.corpus))
    remove_orphans(builder.store, builder.models_dir, builder.corpus)
    return live


def _specs(architecture: str, live: LiveBuild) -> Sequence[StudentSpec]:
    dimension = live.metadata.encoder.dimension
    if architecture != AUTO:
        return [parse_architecture(architecture, dimension)]
    return [
        StudentSpec(dimension=dimension, form="slots", slots=SLOTS),
        *architectures(dimension, live.metadata.clusters),
    ]


def _teach(
    builder: Builder,
    live: LiveBuild,
    bundle: Bundle,
    spec: StudentSpec,
    scratch: Path,
    weighing: str,
    model: SentenceEncoder | None,
) -> Distilled:
    corpus, numbers = live.corpus, bundle.manifest.hyperparameters.search
    labels = live.labels
    examples = corpus.examples
    whole = numbers.override(SearchParams(projection_share=1.0, whitening=0.0))  # serving applies both to a student too
    pipeline = Pipeline(whole, bundle.model.bank, bundle.model.mean_questions)
    teacher = RoutedTeacher(examples.questions, labels, pipeline, examples.priors)
    weights = importance(
        weighing,
        examples,
        labels,
        live.metadata.clusters,
        temperature=numbers.temperature,
        hits=numbers.hits,
        model=model,
        seed=builder.fit.seed,
    )
    recipe = SLOTS_RECIPE if spec.form == "slots" else OUR_RECIPE
    with builder.stage("distill", f"Teaching {spec.name} (epochs)", recipe.epochs) as advance:
        return distill(
            examples.questions,
            teacher,
            spec,
            recipe,
            importance=weights,
            seed=builder.fit.seed,
            checkpoint=scratch,
            advance=advance,
        )


def _candidate(trained: Distilled) -> Candidate:
    return Candidate(
        name=trained.spec.name,
        parameters=trained.spec.parameters,
        capacity=trained.spec.capacity,
        validation_cosine=trained.validation_cosine,
        train_loss=trained.train_loss,
        epochs=trained.epochs,
        seconds=trained.seconds,
    )
