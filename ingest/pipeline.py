"""Bringing pairs in and taking them out: read, compare with the live build, embed what is new, have a build made."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ingest.builder import Builder, Draft
from ingest.compare import Changes, compare, point_ids
from ingest.corpus import Corpus, Documents, LiveBuild
from ingest.documents import Read, describe_documents, read_documents
from ingest.embed import Sources, embed, find_sources
from ingest.golden import Golden, encode_golden, golden_file, read_golden
from ingest.pairs import PairLog, PairTable
from ingest.readers import FileRead, Located, find_files, mapping, read_files
from ingest.readers.preview import guess_fields, preview
from ingest.rejected import FOLDER, Rejected
from ingest.report import count_by_file, list_changes, list_edits, list_pairs, param_changes, repeated_questions
from ingest.selection import Selection, select
from qaserve.builds.catalog import orphans, remove_orphans
from qaserve.builds.manifest import UNIFORM
from qaserve.common.errors import CorpusError, NotFoundError, UsageError
from qaserve.common.failpoints import failpoint
from qaserve.encoders.base import Encoder
from qaserve.schemas.documents import DocumentsReport, Section
from qaserve.schemas.ingest import REPORTED, IngestReport, Preview
from qaserve.schemas.pairs import Pair
from qaserve.settings import ReadSettings

MAX_SOURCES = 100
BAD_FILES_SHOWN = 5
OnPlan = Callable[[IngestReport], None]
OnGuess = Callable[[Preview], bool]


@dataclass(frozen=True)
class Plan:
    """What is to become of the live build."""

    live: LiveBuild | None
    pairs: PairTable
    """All pairs of the build to be, in the order of ids."""
    changes: Changes
    sources: tuple[str, ...]
    rows: PairLog
    """What was read."""
    wanted: PairTable
    """The same by point id."""
    files_read: tuple[FileRead, ...]
    re_encode: bool
    """Whether every text is to be encoded again."""
    sections: tuple[Section, ...]
    """Of the documents of the build to be."""
    documents: DocumentsReport | None

    @property
    def known(self) -> Corpus | None:
        """The build whose vectors can be kept."""
        return None if self.live is None or self.re_encode else self.live.corpus

    @cached_property
    def vector_sources(self) -> tuple[Sources, ...]:
        """Where the vectors come from."""
        return find_sources(self.pairs, self.known)

    @property
    def missing(self) -> int:
        """How many texts of pairs are to be encoded."""
        return sum(int(part.missing.sum()) for part in self.vector_sources)

    @cached_property
    def new_sections(self) -> list[int]:
        """Which of the sections are to be encoded."""
        known = set() if self.live is None or self.re_encode else {one.embedded for one in self.live.documents.sections}
        return [row for row, section in enumerate(self.sections) if section.embedded not in known]

    @property
    def changes_documents(self) -> bool:
        """Whether the documents differ from the live ones."""
        return self.sections != (() if self.live is None else self.live.documents.sections)

    @property
    def before(self) -> Mapping[str, Pair]:
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
        documents: Path | None = None,
        replace: bool = False,
        dry_run: bool = False,
        force: bool = False,
        re_encode: bool = False,
        strict: bool = False,
        fields: Sequence[str] = (),
        separator: str | None = None,
        accept_guess: bool = False,
        on_guess: OnGuess | None = None,
        on_plan: OnPlan | None = None,
    ) -> IngestReport:
        """Read the paths and make the result live; nothing is written when nothing changes.

        Args:
            paths: Files and folders; there may be none only with `re_encode` or `documents`.
            documents: A folder of Markdown that takes the place of all documents; None keeps the live build's.
            replace: Make the corpus exactly these files; otherwise their pairs are added to it.
            dry_run: Do all but write: the report says what would be done, also where the gate would stop it.
            force: Make the result live even if it finds less than the live build.
            re_encode: Encode every text again, with whatever encoder the live build was made.
            strict: Refuse all where a file holds nothing good, instead of going on past it.
            fields: `FIELD=PATH`: where the fields of pairs are. What was said once is kept with the corpus.
            separator: Between the questions of one cell, and between values of a list. Kept too.
            accept_guess: Where nothing says it, read fields by their usual names.
            on_guess: Asked about such a guess otherwise, with the first rows as they would be read.
            on_plan: Told what changes as soon as that is known: the report without clusters, numbers and gate.

        Raises:
            UsageError: There is nothing to do, or `fields` are not FIELD=PATH.
            CorpusError: The paths give no pairs, or the golden set is not one; fields would have to be guessed; or a
                file holds nothing good, and `strict` or `replace` was said.
            EncoderMismatchError: The live build was made with another encoder.
            QualityError: The result finds clearly less than the live build, which stays.
            StoreLockedError: The corpus is being changed by somebody else.
            StoreError, EncoderError: As they say; the live build is untouched.
        """
        started = time.perf_counter()
        self._builder.stages.clear()
        if not paths and (replace or not (re_encode or documents)):
            raise UsageError(
                "nothing is named to ingest", hint="Give files or folders; --re-encode and --documents need none."
            )
        given = mapping.parse_map(fields, separator)
        with self._alone("ingest", dry_run=dry_run), Rejected() as rejected:
            read = None if documents is None else self._read_documents(documents)
            found = find_files(paths) if paths else []
            kept_map = self._kept_map()
            read_by = self._read_by(found, given.over(kept_map), (lambda _: True) if accept_guess else on_guess)
            rows, files = self._rows(found, rejected, read_by, given)
            live = self._builder.live(any_encoder=re_encode, needed=not replace)
            _check_files(files, strict=strict, replaced=live if replace else None)
            if live is None and not paths:
                raise NotFoundError(
                    f"corpus {self._builder.corpus!r} has no live build, whose pairs are needed",
                    hint="Give files to ingest.",
                )
            plan = self._plan(rows, files, live, read, replace=replace, re_encode=re_encode)
            kept = None
            if self._data_dir is not None and not dry_run:
                kept = rejected.keep(self._data_dir, self._builder.corpus)
            report = self._report(plan, rejected, kept, dry_run=dry_run)
            done = self._carry_out(plan, report, started, on_plan, force=force)
            if self._data_dir is not None and not dry_run and read_by != kept_map:
                mapping.keep(read_by, self._data_dir, self._builder.corpus)
            return done

    def preview(self, path: Path, fields: Sequence[str] = (), separator: str | None = None) -> Preview:
        """How the first rows of a file would be read; `fields` and `separator` as of `run`.

        Raises:
            UsageError: `fields` are not FIELD=PATH.
            CorpusError: It cannot be read.
        """
        found = find_files([path])
        said = mapping.parse_map(fields, separator).over(self._kept_map())
        full, guessed = guess_fields(found, self._read, said)
        return guessed or preview(*found[0], self._read, full)

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
            pairs = before.take(point for point in before if point not in gone)
            changes, none = Changes(unchanged=set(pairs), removed=gone), builder.log()
            sources, sections = live.metadata.sources, live.documents.sections
            about, wanted = describe_documents(None, sections, sections, pairs), PairTable({}, none)
            plan = Plan(
                live, pairs, changes, sources, none, wanted, (), re_encode=False, sections=sections, documents=about
            )
            report = self._report(plan, rejected, None, dry_run=dry_run)
            return self._carry_out(plan, report, started, on_plan, force=force)

    def _alone(self, purpose: str, *, dry_run: bool) -> AbstractContextManager[object]:
        """Holds the lock of the corpus; a dry run changes nothing and does not wait for it."""
        return nullcontext() if dry_run else self._builder.alone(purpose)

    # Planning

    def _kept_map(self) -> mapping.FieldMap:
        if self._data_dir is None:
            return mapping.FieldMap()
        return mapping.read_kept(self._data_dir, self._builder.corpus)

    def _read_by(
        self, files: Sequence[tuple[Path, str]], said: mapping.FieldMap, on_guess: OnGuess | None
    ) -> mapping.FieldMap:
        """Where the fields of pairs are. What is guessed needs a yes."""
        full, guessed = guess_fields(files, self._read, said)
        if guessed is not None and (on_guess is None or not on_guess(guessed)):
            raise CorpusError(
                f"{guessed.file} has no `question` and `answer`; by their names it may be {', '.join(guessed.guessed)}",
                hint="Read it so by --yes, or say it: --map question=FIELD --map answer=FIELD. Of the API these are "
                "`accept_guess` and `fields`.",
            )
        return full

    def _rows(
        self,
        files: Sequence[tuple[Path, str]],
        rejected: Rejected,
        read_by: mapping.FieldMap,
        given: mapping.FieldMap,
    ) -> tuple[PairLog, tuple[FileRead, ...]]:
        rows, read = self._builder.log(), list[FileRead]()
        if not files:
            return rows, ()
        with self._builder.stage("read", "Reading (lines)", None) as advance:
            for item in read_files(
                files, self._read, advance, rejected.add_line, read.append, fields=read_by, needed=given.fields
            ):
                if isinstance(item, Located):
                    rows.append(item.pair, item.file, item.line)
                else:
                    rejected.add(item)
        return rows, tuple(read)

    def _read_documents(self, folder: Path) -> Read:
        with self._builder.stage("read", "Reading documents", None):
            return read_documents(folder)

    def _plan(
        self,
        rows: PairLog,
        files_read: tuple[FileRead, ...],
        live: LiveBuild | None,
        read: Read | None,
        *,
        replace: bool,
        re_encode: bool,
    ) -> Plan:
        before = None if live is None else live.pairs
        points = point_ids(self._builder.corpus, rows, before)
        wanted = PairTable({point: row for row, point in enumerate(points)}, rows)
        known = {} if before is None else before.column("content")
        changes = compare(wanted.column("content"), known, replace=replace)
        pairs = wanted if replace or before is None else before.over(wanted)
        earlier = () if live is None or replace else live.metadata.sources
        sources = tuple(dict.fromkeys([*earlier, *wanted.named("file")]))[-MAX_SOURCES:]
        there = () if live is None else live.documents.sections
        sections = there if read is None or not read.sections else read.sections
        about = describe_documents(read, sections, there, pairs)
        return Plan(
            live, pairs.take(sorted(pairs)), changes, sources, rows, wanted, files_read, re_encode, sections, about
        )

    def _report(self, plan: Plan, rejected: Rejected, kept: Path | None, *, dry_run: bool) -> IngestReport:
        """What is known before anything is encoded: what changes."""
        failpoint("rows read")
        builder, live, before = self._builder, plan.live, plan.before
        same = not (plan.re_encode or plan.changes or plan.changes_documents)
        stays = live is not None and same and builder.is_up_to_date(live)
        repeated = repeated_questions(plan.rows)
        files = dict(zip(plan.wanted, plan.wanted.named("file"), strict=True))
        fences = [point for point, late in plan.wanted.column("late_fence").items() if late]
        headings = [heading for file in plan.files_read if file.problem is None for heading in file.passed_over]
        return IngestReport(
            build=live.metadata.build if live is not None and stays else None,
            corpus=builder.corpus,
            dry_run=dry_run,
            bad_files=tuple(file.problem for file in plan.files_read if file.problem is not None),
            read=len(plan.rows),
            added=len(plan.changes.added),
            updated=len(plan.changes.updated),
            unchanged=len(plan.changes.unchanged),
            removed=len(plan.changes.removed),
            rejected=tuple(rejected.first),
            rejections=rejected.count,
            rejected_file=None if kept is None else f"{FOLDER}/{kept.name}",
            repeats=repeated.repeats,
            conflicts=repeated.conflicts,
            late_fences=len(fences),
            late_fence_pairs=list_pairs(fences, plan.wanted),
            passed_over=len(headings),
            passed_over_headings=tuple(headings[:REPORTED]),
            repeated_questions=repeated.listed,
            changes=list_changes(plan.changes, plan.wanted, before),
            edits=list_edits(plan.changes.updated, before, plan.pairs),
            files=count_by_file(
                plan.changes, files, rejected.by_file, {file.file: file.format for file in plan.files_read}
            ),
            encoded=0 if stays else plan.missing + len(plan.new_sections),
            documents=plan.documents,
            pairs=len(plan.pairs),
            clusters=live.metadata.clusters if live is not None and stays else None,
            encoder=self._encoder.identity.id,
            seconds=0.0,
            stages={},
        )

    # Doing

    def _carry_out(
        self, plan: Plan, report: IngestReport, started: float, on_plan: OnPlan | None, *, force: bool
    ) -> IngestReport:
        """Make a build, unless the live one stays, and write it, unless this is a dry run."""
        builder = self._builder
        if on_plan is not None:
            on_plan(report)
        sweep = orphans if report.dry_run else remove_orphans
        found: dict[str, object] = {"cleaned": tuple(sweep(builder.store, builder.models_dir, builder.corpus))}
        failpoint("orphans removed")
        if report.build is None:
            draft = self._draft(plan, force=force)
            if not report.dry_run:
                builder.release(draft, plan.sources, plan.live)
            found |= _outcome(draft, plan.live)
        stages = {name: round(seconds, 3) for name, seconds in builder.stages.items()}
        return report.model_copy(update=found | {"stages": stages, "seconds": round(time.perf_counter() - started, 3)})

    def _draft(self, plan: Plan, *, force: bool) -> Draft:
        builder, live = self._builder, plan.live
        corpus, documents = self._embed(plan), self._embed_documents(plan)
        failpoint("texts encoded")
        clusters = builder.cluster(corpus, live)
        choice = builder.choose(corpus, live, clusters)
        return builder.draft(corpus, clusters, choice, live, documents=documents, golden=self._golden(), force=force)

    def _golden(self) -> Golden | None:
        if self._data_dir is None:
            return None
        return encode_golden(read_golden(golden_file(self._data_dir, self._builder.corpus)), self._encoder)

    def _embed(self, plan: Plan) -> Corpus:
        """All pairs, with the vectors of the known build and of what it lacks.

        Importances are the live build's.
        """
        builder, pairs, live = self._builder, plan.pairs, plan.live
        encode, count = ("encode", "Encoding (texts)", plan.missing), ("words", "Counting words (pairs)", len(pairs))
        with builder.stage(*(encode if plan.missing else count)) as advance:
            (questions, answers, topics), words = embed(
                pairs,
                plan.known,
                plan.vector_sources,
                self._encoder,
                builder.scratch,
                advance,
                on_pairs=lambda read: advance(0 if plan.missing else read),
            )
        priors = np.ones(len(pairs))
        if live is not None:
            weighed = dict(zip(live.pairs, live.corpus.priors, strict=True))
            priors = np.array([weighed.get(point, 1.0) for point in pairs], dtype=np.float64)
        prior = UNIFORM if live is None or (priors == 1).all() else live.prior
        return Corpus(pairs, questions, answers, topics, priors, prior, words)

    def _embed_documents(self, plan: Plan) -> Documents:
        """The sections with the vectors of the live build, and of the encoder where a text is new."""
        sections, new = plan.sections, plan.new_sections
        if not sections:
            return Documents()
        rows: dict[str, NDArray[np.float32]] = {}
        if plan.live is not None and not plan.re_encode:
            known = plan.live.documents
            rows = dict(zip((section.embedded for section in known.sections), known.vectors, strict=True))
        texts = list(dict.fromkeys(sections[row].embedded for row in new))
        if texts:
            with self._builder.stage("encode", "Encoding (sections)", len(texts)) as advance:
                rows |= zip(texts, self._encoder.encode_answers(texts, advance), strict=True)
        return Documents(sections, np.stack([rows[section.embedded] for section in sections]))


def _check_files(files: Sequence[FileRead], *, strict: bool, replaced: LiveBuild | None) -> None:
    """Refuse files that hold nothing good, where that is asked for or pairs that they brought would be removed."""
    bad = [file.problem for file in files if file.problem is not None]
    why = "`--strict` refuses that"
    if bad and not strict and replaced is not None:
        before = {*replaced.metadata.sources, *replaced.pairs.named("source")}
        bad = [one for one in bad if one.file in before]
        why = "`--replace` would remove the pairs that came from there"
    elif not strict:
        return
    if bad:
        said = "; ".join(f"{one.file} {one.reason}" for one in bad[:BAD_FILES_SHOWN])
        hold = "holds" if len(bad) == 1 else "hold"
        raise CorpusError(
            f"{len(bad):,} of {len(files):,} files {hold} nothing good, and {why}: {said}",
            hint=f"Correct them, or leave them out. {bad[0].hint}",
        )


def _outcome(draft: Draft, live: LiveBuild | None) -> dict[str, object]:
    """What a report says of a build, by field."""
    manifest = draft.manifest
    return {
        "build": manifest.build,
        "clusters": len(manifest.clusters),
        "cluster_changes": draft.cluster_changes,
        "params": param_changes(None if live is None else live.manifest, manifest),
        "metrics": manifest.metrics,
        "gate": draft.gate,
    }
