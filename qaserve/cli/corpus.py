"""`qaserve fetch`, `ingest`, `remove`, `fit` and `distill`."""

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qaserve.builds.titles import check_title, keep_title
from qaserve.cli.base import (
    FILTER_RULE,
    Json,
    app,
    corpus_to_ask,
    corpus_to_fill,
    err,
    make_encoder,
    make_torch_encoder,
    out,
    parse_filters,
    say_data_folder,
    say_error,
)
from qaserve.common.errors import QaserveError, UsageError
from qaserve.common.progress import Bars
from qaserve.settings import Settings, get_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingest.builder import Builder
    from ingest.pipeline import Ingest
    from qaserve.common.progress import Reporter
    from qaserve.encoders.base import Encoder
    from qaserve.schemas.builds import EncoderIdentity
    from qaserve.schemas.ingest import IngestReport, Preview
    from qaserve.store import Store

FETCH_HELP = """Download the public corpus: 1,888 UnifyWeaver skill pairs, from a pinned commit, hash checked.

The 74 documents about these skills come too, into the folder `skills` beside the file. An interrupted download goes on.

**Examples**

    qaserve fetch

    qaserve ingest data/downloads/skills_qa.jsonl --documents data/downloads/skills
"""

INGEST_HELP = """Import pairs and make them live.

Reads JSON Lines (`.jsonl`, `.ndjson`) and JSON arrays (`.json`), CSV and TSV with a header, also gzipped, Parquet, and
Markdown FAQs (`.md`), files or folders. In JSON, in any mix of four shapes:

    {"pair_id": "a1", "cluster_id": "a", "question": "…", "answer": "…", "topics": ["…"]}

    {"question": "…", "answer": "…"}

    {"id": "a", "question": "…", "question_variants": ["…", "…"], "answer": "…"}

    {"cluster_id": "a", "questions": ["…", "…"], "answer": {"text": "…"}}

A question or an answer may be an object with `text` in any of them. A table has columns of the same names; other fields
stay with the pair. Where fields have other names, `--map question=prompt --map answer=response.text` says so, and is
kept with the corpus. Without it usual names (prompt, query, title; response, reply, completion, body) are guessed and
shown, and read after a yes or with `--yes`. `--separator "|"` splits a cell of several questions,
and is kept too; `--separator ""` takes it back.

A bad line is reported with file, line, field and reason, and kept in a file that can be corrected and ingested; the
rest goes on. So it does past a file that holds nothing good: the report lists such files first. With `--strict`, or
with `--replace` if pairs came from there before, nothing is changed and the exit code is 1.

Pairs are added to those that are there. A pair is known by its `pair_id` and question: with another answer it is
updated, with another question it is another pair. `--replace` makes the corpus exactly the given files. The same file
again changes nothing.

Clusters keep their numbers and names: a new pair joins the nearest. All pairs are clustered again once they have
drifted (QASERVE_DRIFT). Before it goes live the new build is compared with the live one, on held-out phrasings and on
the golden questions in `<data>/golden/<corpus>.jsonl` if there are any; one that finds clearly less does not go live.
A golden question is a line `{"question": "…", "pair_id": "…", "also": ["…"]}`; `also` lists other pairs that answer it,
and may be left out.

`--watch` does this again whenever the files have changed and are written, one ingest at a time, until Ctrl-C. Pairs of
a file that is deleted stay, unless `--replace` is given.

`--documents DIR` gives the build its documents: the Markdown files below a folder, split by heading, so that skills are
found and handed over (`qaserve skill`). Without it the build keeps those it has. A file that cannot be taken is
reported; the rest goes in. A name in `related_skills` or `related_docs` that leads to no document is reported too.

`--title "Kitchen questions"` is what the page calls the corpus, which otherwise has only its name. It stays until
another is given; `--title ""` takes it away.

`--dry-run` does all of this but write: it says what would change, what would become of the clusters and the numbers,
how well the build would find, and whether it would be stopped, and exits 0 all the same.

**Examples**

    qaserve ingest skills_qa.jsonl

    qaserve ingest pairs/ more.jsonl.gz --dry-run

    qaserve ingest tickets.csv --map question=subject --map answer=solution --map topics=category

    qaserve ingest skills_qa.jsonl --documents skills/

    qaserve ingest skills_qa.jsonl --replace --json

    qaserve ingest --watch docs/faq --replace

    QASERVE_ENCODER=mpnet qaserve ingest --re-encode
"""

REMOVE_HELP = """Take pairs out, and make the rest live.

A pair goes when it meets every kind of condition that is given. Of several `--id`, several `--source` or several
`--filter` of one field, any one will do; filters of different fields must all hold, as in `qaserve ask`. The text is
gone from every answer at once, and from disk when the builds that held it are pruned. `--dry-run` lists every pair that
would go, and says what would become of clusters and quality.

**Examples**

    qaserve remove --id skill_extract_records_001_q0 --dry-run

    qaserve remove --source old-pairs.jsonl

    qaserve remove --filter topics=Compilation --filter topics=Quickstart --filter tags=prolog --dry-run
"""

FIT_HELP = """Tune and fit the live build again, from its own vectors; no pair is encoded.

Pairs are clustered again; clusters keep the numbers and names of those they go on from. All hyperparameters are tuned
by cross-validation on the build's own pairs; what was tried and how well it did stays in the manifest. The result is a
new build, made live unless it finds clearly less; `qaserve builds activate` goes back. `qaserve ingest` does the same
for every build of at most QASERVE_TUNE_PAIRS pairs whose pairs are clustered again.

With `--feedback` the questions that a pair helped with, of `qaserve feedback export` or lines of `{"question": "…",
"pair_id": "…"}`, are encoded and W is fitted on them too. They are not found and do not vote, and the next `fit` or
changing `ingest` is without them unless it is told again.

**Examples**

    qaserve fit

    QASERVE_REGULARIZATION=2 qaserve fit --json

    qaserve fit --prior entropy

    qaserve feedback export --out said.jsonl && qaserve fit --feedback said.jsonl
"""

DISTILL_HELP = """Teach a student what routing and projection do: one small network that needs no votes.

The result is a new build, made live, that answers with `--projection student` as well. An architecture is `slots-M`
(attention over M learned slots), `HEADSxLAYERS` (a residual transformer; `6x3-plain` without the residual), or `auto`:
slots and transformers of capacity H^L ≥ K are trained, and the smallest that is as good as the best at questions kept
apart stays. An interrupted training goes on where it was. The next `fit` or changing `ingest` makes a build without a
student, for its W are others.

**Examples**

    qaserve distill

    qaserve distill --architecture auto

    qaserve distill --architecture 6x3 --importance entropy --onnx student.onnx --json
"""


@app.command(help=FETCH_HELP)
def fetch(*, as_json: Json = False) -> None:
    """See FETCH_HELP."""
    settings = get_settings()
    path, documents = fetch_corpus(settings), fetch_documents(settings)
    if as_json:
        print(json.dumps({"path": str(path), "documents": str(documents)}))
    else:
        print(path, documents, sep="\n")


DryRun = Annotated[bool, typer.Option("--dry-run", help="Do all but write, and say what would be done.")]
Force = Annotated[bool, typer.Option("--force", help="Go live even if the new build finds less than the live one.")]


@app.command(help=INGEST_HELP)
def ingest(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files and folders.", show_default=False)] = None,
    *,
    documents: Annotated[
        Path | None, typer.Option(help="Folder of Markdown that takes the place of all documents.", show_default=False)
    ] = None,
    dry_run: DryRun = False,
    replace: Annotated[bool, typer.Option("--replace", help="Make the corpus exactly these files.")] = False,
    force: Force = False,
    re_encode: Annotated[
        bool, typer.Option("--re-encode", help="Encode every text again: the way to another encoder. Needs no PATHS.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Change nothing, and exit 1, where a file holds nothing good.")
    ] = False,
    fields: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="FIELD=PATH", help="Where a field of a pair is: answer=response.text."),
    ] = None,
    separator: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What stands between several questions in one cell.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Read fields by their usual names without asking.")] = False,
    title: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What the page calls the corpus. Needs no PATHS.", show_default=False),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Ingest again when the files change, until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """See INGEST_HELP."""
    from qaserve.store import open_store

    ingests = bool(paths) or re_encode or documents is not None
    if not ingests and title is None:
        raise typer.BadParameter("Missing argument 'PATHS...'.")
    if title is not None:
        check_title(title)
    if watch and (dry_run or re_encode):
        raise typer.BadParameter("--watch goes neither with --dry-run nor with --re-encode.")
    settings = get_settings()
    say_data_folder(settings)
    with open_store(settings.store) as store:
        corpus = corpus_to_fill(settings, store, paths) if paths else corpus_to_ask(settings, store)
        encoder = make_encoder(settings)

        def once(min_lock_wait: float = 0.0) -> None:
            ingesting = make_ingest(settings, store, corpus, encoder, Bars(err), min_lock_wait=min_lock_wait)
            report = ingesting.run(
                paths or [],
                documents=documents,
                replace=replace,
                dry_run=dry_run,
                force=force,
                re_encode=re_encode,
                strict=strict,
                fields=fields or (),
                separator=separator,
                accept_guess=yes,
                on_guess=confirm_guess,
                on_plan=_on_plan(settings, as_json=as_json),
            )
            _print_report(report, as_json=as_json)
            _keep_title(settings, corpus, None if dry_run else title)

        if not ingests:
            _keep_title(settings, corpus, None if dry_run else title)
        elif watch:
            _watch([*(paths or []), *([] if documents is None else [documents])], once)
        else:
            once()


def _keep_title(settings: Settings, corpus: str, title: str | None) -> None:
    """Keep the title of a corpus, where one is given."""
    if title is not None:
        keep_title(settings.store.models_dir, corpus, title)
        err.print(f"The page calls corpus {corpus} {title!r}." if title else f"Corpus {corpus} has no title now.")


def _watch(paths: list[Path], once: "Callable[[float], None]") -> None:
    """Ingest whenever the files have changed. What an ingest refuses is said, and the next change is waited for."""
    from ingest.jobs import LOCK_SECONDS
    from ingest.watch import changes

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell starts us with it ignored
    try:
        for _ in changes(paths):
            try:
                once(LOCK_SECONDS)
            except UsageError:
                raise
            except QaserveError as error:
                say_error(error.message, error.hint)
            err.print("Watching; Ctrl-C ends it.")
    except KeyboardInterrupt:
        err.print("Stopped watching.")


@app.command(help=REMOVE_HELP)
def remove(
    *,
    ids: Annotated[
        list[str] | None, typer.Option("--id", metavar="ID", help="A pair_id, or the id of a point.")
    ] = None,
    sources: Annotated[list[str] | None, typer.Option("--source", metavar="FILE", help="source_file of pairs.")] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="FIELD=VALUE",
            help="topics, tags, related_skills, related_docs, cluster_id, pair_id, question_type or source_file. "
            f"{FILTER_RULE}",
        ),
    ] = None,
    dry_run: DryRun = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """See REMOVE_HELP."""
    from ingest.selection import FILTERS, Selection
    from qaserve.store import open_store

    selection = Selection(
        ids=tuple(ids or ()), sources=tuple(sources or ()), filters=parse_filters(filters or [], FILTERS)
    )
    settings = get_settings()
    with open_store(settings.store) as store:
        corpus = corpus_to_ask(settings, store)
        ingesting = make_ingest(settings, store, corpus, make_encoder(settings), Bars(err))
        report = ingesting.remove(selection, dry_run=dry_run, force=force, on_plan=_on_plan(settings, as_json=as_json))
    _print_report(report, as_json=as_json)


@app.command(help=FIT_HELP)
def fit(
    *,
    prior: Annotated[
        str | None, typer.Option(metavar="NAME", help="Importance of the pairs in routing; `uniform` takes it back.")
    ] = None,
    feedback: Annotated[
        Path | None, typer.Option(help="JSON Lines of judgements to fit W on too.", show_default=False)
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """See FIT_HELP."""
    from ingest.feedback_rows import Extra
    from ingest.golden import encode_golden, golden_file, read_golden
    from ingest.judgements import Judged, read_judgements
    from ingest.refit import refit
    from qaserve.cli.render_answer import show_bad_lines, show_fit
    from qaserve.store import open_store

    settings = get_settings()
    judged = Judged((), (), ()) if feedback is None else read_judgements(feedback, settings.read)
    show_bad_lines(err, judged.bad)
    say_data_folder(settings)
    with open_store(settings.store) as store:
        encoder = make_encoder(settings)
        builder = make_builder(settings, store, corpus_to_ask(settings, store), encoder.identity)
        extra = None if feedback is None else Extra(judged.judgements, encoder)
        golden = encode_golden(read_golden(golden_file(settings.store.data_dir, builder.corpus)), encoder)
        with builder.alone("fit"):
            manifest = refit(builder, prior, make_torch_encoder(settings), extra, golden=golden, force=force)
    if as_json:
        print(manifest.model_dump_json(indent=2, exclude={"clusters", "files"}))
    else:
        show_fit(out, manifest)


@app.command(help=DISTILL_HELP)
def distill(
    *,
    architecture: Annotated[str, typer.Option(help="slots-M, HEADSxLAYERS, HEADSxLAYERS-plain, or auto.")] = (
        "slots-256"
    ),
    importance: Annotated[str, typer.Option(metavar="NAME", help="How the pairs are weighed in the loss.")] = "uniform",
    onnx: Annotated[
        Path | None, typer.Option(help="Write the student as ONNX too, and compare it (extra `train`).")
    ] = None,
    as_json: Json = False,
) -> None:
    """See DISTILL_HELP."""
    from ingest.refit import add_student
    from qaserve.cli.render_answer import show_distilled
    from qaserve.core.student import Student
    from qaserve.store import open_store
    from train.distillation.student_onnx import check_installed, export_onnx

    settings = get_settings()
    if onnx is not None:
        check_installed()
    say_data_folder(settings)
    with open_store(settings.store) as store:
        builder = make_builder(settings, store, corpus_to_ask(settings, store), make_encoder(settings).identity)
        model = make_torch_encoder(settings)
        with builder.alone("distill"):
            report = add_student(builder, architecture, settings.store.data_dir / "distillation", importance, model)
    difference = None if onnx is None else export_onnx(Student.from_bytes(report.student.spec, report.weights), onnx)
    if as_json:
        exported = {} if onnx is None else {"onnx": {"file": str(onnx), "largest_difference": difference}}
        print(json.dumps(report.model_dump(mode="json") | exported, indent=2))
    else:
        show_distilled(out, report)
        if onnx is not None:
            out.print(f"{onnx}: onnxruntime gives the same to {difference:.1g}")


def downloads(settings: Settings) -> Path:
    """The folder of what was fetched."""
    return settings.store.data_dir / "downloads"


def fetch_corpus(settings: Settings) -> Path:
    """The public corpus, downloaded with a progress bar unless it is there."""
    from ingest import fetch as fetching

    with Bars(err).stage("Downloading (bytes)", None) as advance:
        return fetching.fetch(downloads(settings), advance)


def fetch_documents(settings: Settings) -> Path:
    """The folder of the public documents; what is missing is downloaded with a progress bar."""
    from ingest import fetch as fetching

    with Bars(err).stage("Downloading documents (bytes)", None) as advance:
        return fetching.fetch_documents(downloads(settings), advance)


def run_ingest(
    settings: Settings, store: "Store", corpus: str, paths: list[Path], documents: Path | None = None
) -> "IngestReport":
    """One ingest with progress bars."""
    ingesting = make_ingest(settings, store, corpus, make_encoder(settings), Bars(err))
    return ingesting.run(paths, documents=documents, on_guess=confirm_guess)


def confirm_guess(preview: "Preview") -> bool:
    """Show how a file would be read by guessed fields, and ask for a yes where a person can give it."""
    from qaserve.cli.render_ingest import show_preview

    show_preview(err, preview)
    return sys.stdin.isatty() and typer.confirm("Read it so?", err=True)


def make_ingest(
    settings: Settings,
    store: "Store",
    corpus: str,
    encoder: "Encoder",
    reporter: "Reporter",
    *,
    min_lock_wait: float = 0.0,
) -> "Ingest":
    """What brings pairs into a corpus. `min_lock_wait` as of `make_builder`."""
    from ingest.pipeline import Ingest

    builder = make_builder(settings, store, corpus, encoder.identity, reporter, min_lock_wait=min_lock_wait)
    return Ingest(builder, encoder, settings.read, settings.store.data_dir)


def make_builder(
    settings: Settings,
    store: "Store",
    corpus: str,
    encoder: "EncoderIdentity",
    reporter: "Reporter | None" = None,
    *,
    min_lock_wait: float = 0.0,
) -> "Builder":
    """What makes builds of a corpus; with progress bars, unless it is told whom to tell.

    It waits QASERVE_LOCK_WAIT for another change of the corpus, but at least `min_lock_wait` seconds.
    """
    from ingest.builder import Builder

    return Builder(
        store,
        encoder,
        settings.store.models_dir,
        corpus,
        fit=settings.fit,
        reporter=reporter or Bars(err),
        lock_wait=max(settings.store.lock_wait, min_lock_wait),
    )


def _on_plan(settings: Settings, *, as_json: bool) -> "Callable[[IngestReport], None] | None":
    """A person is told what changes before the slow part begins; a program gets one document at the end."""
    from qaserve.cli.render_ingest import show_changes

    return None if as_json else lambda report: show_changes(out, report, settings.store.data_dir)


def _print_report(report: "IngestReport", *, as_json: bool) -> None:
    from qaserve.cli.render_ingest import show_outcome

    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        show_outcome(out, report)
