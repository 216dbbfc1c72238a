"""`qaserve fetch` and `qaserve ingest`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qaserve.cli.base import Json, app, corpus_to_ask, corpus_to_fill, err, make_encoder, out
from qaserve.progress import Bars
from qaserve.settings import Settings, get_settings

if TYPE_CHECKING:
    from ingest.build import Ingest
    from ingest.report import IngestReport
    from qaserve.store import Store

FETCH_HELP = """Download the public corpus: 1,888 UnifyWeaver skill pairs, from a pinned commit, hash checked.

**Examples**

    qaserve fetch

    qaserve ingest "$(qaserve fetch)"
"""

INGEST_HELP = """Bring pairs in, and make them live.

Reads JSON Lines (`.jsonl`, `.ndjson`, also gzipped), files or folders, in any mix of four shapes:

    {"pair_id": "a1", "cluster_id": "a", "question": "…", "answer": "…", "topics": ["…"]}

    {"question": "…", "answer": "…"}

    {"id": "a", "question": "…", "question_variants": ["…", "…"], "answer": "…"}

    {"cluster_id": "a", "questions": ["…", "…"], "answer": {"text": "…"}}

A bad line is reported with file, line, field and reason; the rest goes on. The same file again changes nothing.

**Examples**

    qaserve ingest skills_qa.jsonl

    qaserve ingest pairs/ more.jsonl.gz --dry-run

    qaserve ingest skills_qa.jsonl --replace --json
"""

FIT_HELP = """Choose the numbers of the live build anew and fit its model, from its own vectors; nothing is encoded.

λ, τ, N, the final softmax and the weight of the words β are chosen by cross-validation over held-out phrasings of the
build's own pairs; what was tried and how well it did stays in the manifest. The result is a new build, made live;
`qaserve builds activate` goes back. `qaserve ingest` does the same for every build of at most QASERVE_TUNE_PAIRS pairs.

**Examples**

    qaserve fit

    QASERVE_ANCHOR=2 qaserve fit --json
"""


@app.command(help=FETCH_HELP)
def fetch(*, as_json: Json = False) -> None:
    """See FETCH_HELP."""
    import json

    path = fetch_corpus(get_settings())
    print(json.dumps({"path": str(path)}) if as_json else path)


@app.command(help=INGEST_HELP)
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.", show_default=False)],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Make the corpus exactly these files.")] = False,
    as_json: Json = False,
) -> None:
    """See INGEST_HELP."""
    from qaserve.cli.show import show_report
    from qaserve.store import open_store

    settings = get_settings()
    with open_store(settings.store, "qaserve ingest") as store:
        corpus = corpus_to_fill(settings, store, paths)
        report = run_ingest(settings, store, corpus, paths, replace=replace, dry_run=dry_run)
    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        show_report(out, report)


@app.command(help=FIT_HELP)
def fit(*, as_json: Json = False) -> None:
    """See FIT_HELP."""
    from qaserve.cli.show import show_fit
    from qaserve.store import open_store

    settings = get_settings()
    with open_store(settings.store, "qaserve fit") as store:
        corpus = corpus_to_ask(settings, store)
        manifest = _ingest(settings, store, corpus).refit()
    if as_json:
        print(manifest.model_dump_json(indent=2, exclude={"clusters", "files"}))
    else:
        show_fit(out, manifest)


def fetch_corpus(settings: Settings) -> Path:
    """The public corpus, downloaded with a progress bar unless it is there."""
    from qaserve import fetch as fetching

    with Bars(err).stage("Downloading (bytes)", None) as advance:
        return fetching.fetch(settings.store.data_dir / "downloads", advance)


def run_ingest(
    settings: Settings, store: "Store", corpus: str, paths: list[Path], *, replace: bool = False, dry_run: bool = False
) -> "IngestReport":
    """One ingest with progress bars."""
    return _ingest(settings, store, corpus).run(paths, replace=replace, dry_run=dry_run)


def _ingest(settings: Settings, store: "Store", corpus: str) -> "Ingest":
    from ingest.build import Ingest

    return Ingest(
        store,
        make_encoder(settings),
        settings.store.models_dir,
        corpus,
        read=settings.read,
        fit=settings.fit,
        reporter=Bars(err),
    )
