"""Bringing pairs in and taking them out: read, compare with the live build, embed what is new, have a build made."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ingest.builder import Builder, Draft
from ingest.compare import Changes, compare, point_ids
from ingest.corpus import Corpus, LiveBuild
from ingest.golden import Golden, encode_golden, golden_file, read_golden
from ingest.outcomes import NumberChanges
from ingest.readers import Located, find_files, read_files
from ingest.rejected import FOLDER, Rejected
from ingest.report import IngestReport, count_by_file, list_changes, list_edits, repeated_questions
from ingest.selection import Selection, select
from qaserve.builds import orphans, remove_orphans
from qaserve.bundle import UNIFORM
from qaserve.encoder import Encoder
from qaserve.errors import NotFoundError, UsageError
from qaserve.faults import reach
from qaserve.records import Pair
from qaserve.settings import ReadSettings

MAX_SOURCES = 100
OnPlan = Callable[[IngestReport], None]


@dataclass(frozen=True)
class Plan:
    """What is to become of the live build."""

    live: LiveBuild | None
    pairs: dict[str, Pair]
    """All pairs of the build to be, by point id."""
    changes: Changes
    sources: tuple[str, ...]
    rows: list[Located]
    """What was read."""
    places: dict[str, Located]
    """The same by point id."""

    @property
    def before(self) -> dict[str, Pair]:
        """The live pairs."""
        return {} if self.live is None else self.live.pairs


class Ingest:
    """Changes the pairs of one corpus."""

    def __init__(self, builder: Builder, encoder: Encoder, read: ReadSettings, data_dir: Path | None = None) -> None:
        """Remember the parts.

        Args:
            builder: Makes the builds.
            encoder: The builder's.
            read: What is accepted.
            data_dir: Where rejected lines are kept and the golden set is; without it there is neither.
        """
        self._builder, self._encoder, self._read, self._data_dir = builder, encoder, read, data_dir

    def run(
        self,
        paths: Sequence[Path] = (),
        *,
        replace: bool = False,
        dry_run: bool = False,
        force: bool = False,
        re_encode: bool = False,
        on_plan: OnPlan | None = None,
    ) -> IngestReport:
        """Read the paths and make the result live; nothing is written when nothing changes.

        Args:
            paths: Files and folders; there may be none only with `re_encode`.
            replace: Make the corpus exactly these files; otherwise their pairs are added to it.
            dry_run: Do all but write: the report says what would be done, also where the gate would stop it.
            force: Make the result live even if it finds less than the live build.
            re_encode: Encode every text again, with whatever encoder the live build was made.
            on_plan: Told what changes as soon as that is known: the report without clusters, numbers and gate.

        Raises:
            UsageError: There is nothing to do.
            CorpusError: The paths give no pairs, or the golden set is not one.
            EncoderMismatchError: The live build was made with another encoder.
            QualityError: The result finds clearly less than the live build, which stays.
            StoreLockedError: The corpus is being changed by somebody else.
            StoreError, EncoderError: As they say; the live build is untouched.
        """
        started = time.perf_counter()
        self._builder.stages.clear()
        if not paths and (replace or not re_encode):
            raise UsageError("nothing is named to ingest", hint="Give files or folders; only --re-encode needs none.")
        with self._alone("ingest", dry_run=dry_run), Rejected() as rejected:
            rows = self._rows(paths, rejected) if paths else []
            live = self._builder.live(any_encoder=re_encode)
            if live is None and not paths:
                raise NotFoundError(
                    f"corpus {self._builder.corpus!r} has no live build to encode again", hint="Give files to ingest."
                )
            plan = self._plan(rows, live, replace=replace)
            kept = None
            if self._data_dir is not None and not dry_run:
                kept = rejected.keep(self._data_dir, self._builder.corpus)
            report = self._report(plan, rejected, kept, dry_run=dry_run, anew=re_encode)
            return self._carry_out(plan, report, started, on_plan, force=force, anew=re_encode)

    def remove(
        self,
        selection: Selection,
        *,
        dry_run: bool = False,
        force: bool = False,
        on_plan: OnPlan | None = None,
    ) -> IngestReport:
        """Take pairs out and make the rest live.

        Args:
            selection: Which.
            dry_run: As of `run`.
            force: As of `run`.
            on_plan: As of `run`.

        Raises:
            UsageError: Nothing is selected by, or nothing would be left.
            NotFoundError: There is no live build, or a condition that no pair meets.
            EncoderMismatchError, QualityError, StoreError: As of `run`.
        """
        started = time.perf_counter()
        builder = self._builder
        builder.stages.clear()
        with self._alone("removal", dry_run=dry_run), Rejected() as rejected:
            live = builder.read(builder.store.live(builder.corpus))
            before = live.pairs
            gone = select(before, selection)
            pairs = {point: pair for point, pair in before.items() if point not in gone}
            plan = Plan(live, pairs, Changes(unchanged=set(pairs), removed=gone), live.info.sources, [], {})
            report = self._report(plan, rejected, None, dry_run=dry_run, anew=False)
            return self._carry_out(plan, report, started, on_plan, force=force, anew=False)

    def _alone(self, purpose: str, *, dry_run: bool) -> AbstractContextManager[object]:
        """Nobody else changes the corpus meanwhile; a dry run changes nothing and waits for nobody."""
        return nullcontext() if dry_run else self._builder.alone(purpose)

    # Planning

    def _rows(self, paths: Sequence[Path], rejected: Rejected) -> list[Located]:
        files = find_files(paths)
        rows: list[Located] = []
        with self._builder.stage("read", "Reading (lines)", None) as advance:
            for item in read_files(files, self._read, advance, rejected.add_line):
                if isinstance(item, Located):
                    rows.append(item)
                else:
                    rejected.add(item)
        return rows

    def _plan(self, rows: list[Located], live: LiveBuild | None, *, replace: bool) -> Plan:
        before = {} if live is None else live.pairs
        ids = point_ids(self._builder.corpus, [row.pair for row in rows], before)
        places = dict(zip(ids, rows, strict=True))
        wanted = {point: row.pair for point, row in places.items()}
        changes = compare(wanted, before, replace=replace)
        pairs = wanted if replace else before | wanted
        earlier = () if live is None or replace else live.info.sources
        sources = tuple(dict.fromkeys([*earlier, *(row.file for row in rows)]))[-MAX_SOURCES:]
        return Plan(live, pairs, changes, sources, rows, places)

    def _report(self, plan: Plan, rejected: Rejected, kept: Path | None, *, dry_run: bool, anew: bool) -> IngestReport:
        """What is known before anything is encoded: what changes."""
        reach("rows read")
        builder, live, before = self._builder, plan.live, plan.before
        stays = live is not None and not anew and not plan.changes and builder.is_up_to_date(live)
        questions, answers = ([], []) if stays else _missing(plan.pairs, None if anew else live)
        repeated = repeated_questions(plan.rows)
        return IngestReport(
            build=live.info.build if live is not None and stays else None,
            corpus=builder.corpus,
            dry_run=dry_run,
            read=len(plan.rows),
            added=len(plan.changes.added),
            updated=len(plan.changes.updated),
            unchanged=len(plan.changes.unchanged),
            removed=len(plan.changes.removed),
            rejected=tuple(rejected.first),
            rejections=rejected.count,
            rejected_file=None if kept is None else f"{FOLDER}/{kept.name}",
            repeats=sum(len(question.rows) - 1 for question in repeated),
            conflicts=sum(question.answers > 1 for question in repeated),
            repeated_questions=repeated,
            changes=list_changes(plan.changes, plan.places, before),
            edits=list_edits(plan.changes.updated, before, plan.pairs),
            files=count_by_file(plan.changes, plan.places, rejected.by_file),
            encoded=len(questions) + len(answers),
            pairs=len(plan.pairs),
            clusters=live.info.clusters if live is not None and stays else None,
            encoder=self._encoder.identity.id,
            seconds=0.0,
            stages={},
        )

    # Doing

    def _carry_out(
        self,
        plan: Plan,
        report: IngestReport,
        started: float,
        on_plan: OnPlan | None,
        *,
        force: bool,
        anew: bool,
    ) -> IngestReport:
        """Make a build, unless the live one stays, and write it, unless this is a dry run."""
        builder = self._builder
        if on_plan is not None:
            on_plan(report)
        sweep = orphans if report.dry_run else remove_orphans
        found: dict[str, object] = {"cleaned": tuple(sweep(builder.store, builder.models_dir, builder.corpus))}
        reach("orphans removed")
        if report.build is None:
            draft = self._draft(plan, force=force, anew=anew)
            if not report.dry_run:
                builder.release(draft, plan.sources, plan.live)
            found |= _outcome(draft, plan.live)
        stages = {name: round(seconds, 3) for name, seconds in builder.stages.items()}
        return report.model_copy(update=found | {"stages": stages, "seconds": round(time.perf_counter() - started, 3)})

    def _draft(self, plan: Plan, *, force: bool, anew: bool) -> Draft:
        builder, live, known = self._builder, plan.live, None if anew else plan.live
        corpus = self._embed(plan.pairs, live, known, *_missing(plan.pairs, known))
        reach("texts encoded")
        clusters = builder.cluster(corpus, live)
        choice = builder.choose(corpus, live, clusters)
        return builder.draft(corpus, clusters, choice, live, golden=self._golden(), force=force)

    def _golden(self) -> Golden | None:
        if self._data_dir is None:
            return None
        return encode_golden(read_golden(golden_file(self._data_dir, self._builder.corpus)), self._encoder)

    def _embed(
        self,
        pairs: Mapping[str, Pair],
        live: LiveBuild | None,
        known: LiveBuild | None,
        new_questions: list[str],
        new_answers: list[str],
    ) -> Corpus:
        """Vectors of all pairs: those of the `known` build, and of what it lacks. Importances are the live build's."""
        rows = () if known is None else known.points.values()
        questions = {row.stored.pair.question: row.question for row in rows}
        answers = {row.stored.pair.answer: row.answer for row in rows}
        count = len(new_questions) + len(new_answers)
        if count:
            with self._builder.stage("encode", "Encoding (texts)", count) as advance:
                encoded = self._encoder.encode_questions(new_questions, advance)
                questions |= dict(zip(new_questions, encoded, strict=True))
                encoded = self._encoder.encode_answers(new_answers, advance)
                answers |= dict(zip(new_answers, encoded, strict=True))
        ordered = {point: pairs[point] for point in sorted(pairs)}
        weighed = {} if live is None else live.points
        priors = np.array([weighed[point].stored.prior if point in weighed else 1.0 for point in ordered])
        return Corpus(
            ordered,
            np.stack([questions[pair.question] for pair in ordered.values()]),
            np.stack([answers[pair.answer] for pair in ordered.values()]),
            priors,
            UNIFORM if live is None or (priors == 1).all() else live.prior,
        )


def _outcome(draft: Draft, live: LiveBuild | None) -> dict[str, object]:
    """What a report says of a build, by field."""
    manifest = draft.manifest
    return {
        "build": manifest.build,
        "clusters": len(manifest.clusters),
        "cluster_changes": draft.cluster_changes,
        "numbers": NumberChanges.between(None if live is None else live.manifest, manifest),
        "metrics": manifest.metrics,
        "gate": draft.gate,
    }


def _missing(pairs: Mapping[str, Pair], known: LiveBuild | None) -> tuple[list[str], list[str]]:
    """The questions and the answers that must be encoded: each text once, and none that the build holds."""
    held = [] if known is None else list(known.pairs.values())
    questions, answers = {pair.question for pair in held}, {pair.answer for pair in held}
    return (
        list(dict.fromkeys(pair.question for pair in pairs.values() if pair.question not in questions)),
        list(dict.fromkeys(pair.answer for pair in pairs.values() if pair.answer not in answers)),
    )
