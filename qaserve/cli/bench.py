"""`qaserve bench`: one command for every experiment, all made alike, and what else can be measured."""

import json
import shlex
import time
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table as Drawn
from rich.text import Text

from qaserve.cli.base import Json, app, corpus_to_ask, err, make_encoder, out
from qaserve.common.errors import EncoderError, UsageError
from qaserve.common.progress import Bars
from qaserve.settings import Settings, get_settings
from train.experiments.registry import EXPERIMENTS

if TYPE_CHECKING:
    from qaserve.encoders.sentence_transformer import SentenceEncoder
    from qaserve.schemas.record import Record
    from train.experiments.datasets import Source
    from train.experiments.harness import Table
    from train.experiments.registry import ExperimentModule
    from train.experiments.reports import Measured

NAME_WIDTH = 24
"""Of the first column of a table on a narrow terminal."""
MAX_WIDTH = 400
LOAD_CLUSTERS = 8
"""Whose questions are asked."""

bench_app = typer.Typer(help="Measure, on data that nothing was fitted or tuned on.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")

EXPERIMENT_HELP = """{about}

Vectors are those of the live build, or those of files with arrays `Q` and `A` in the order of a corpus file; the name
of such a file is taken as the encoder's. `qaserve export --out pairs.jsonl --vectors minilm.npz` writes such files
too. With several corpora there is one for each file of vectors.

**Examples**

    qaserve bench {name} --quick

    qaserve bench {name} --corpus skills_qa.jsonl --embeddings minilm.npz --reports reports

    qaserve bench {name} --corpus one.jsonl --embeddings one/minilm.npz --corpus two.jsonl --embeddings two/minilm.npz
"""

LATENCY_HELP = """Ask known questions and show where the time goes, beside the bare encoder and bare Qdrant searches.

**Examples**

    qaserve bench latency

    qaserve bench latency --questions 500 --json
"""

COLD_HELP = """Start commands and measure time and peak memory until they end or answer, beside bare Python.

**Examples**

    qaserve bench cold

    qaserve bench cold --runs 5 --json
"""

LOAD_HELP = """Ask a running API (QASERVE_API_URL) by one client, then by many at once, and compare.

Every client asks its next question when it has its answer. The questions are known ones of the live build.

**Examples**

    qaserve bench load

    qaserve bench load --clients 32 --seconds 600 --json
"""

PUBLISH_HELP = """Write the page of results from the reports of experiments, and draw their plots again.

Nothing is measured. A report of `--quick` is refused: it saw only a part of the data.

**Examples**

    qaserve bench publish

    qaserve bench publish --check
"""


@bench_app.callback()
def bench() -> None:
    """Measure, on data that nothing was fitted or tuned on."""


class Options(NamedTuple):
    """What the command of an experiment was told."""

    name: str
    seeds: int
    corpora: tuple[Path, ...]
    """One for all embeddings, or one for each."""
    embeddings: tuple[Path, ...]
    quick: bool
    folder: Path | None
    add: bool
    """Keep the other runs of the report there."""
    trec: Path | None
    weighing: dict[str, Any]
    """Fields of `datasets.Weighing` that were given."""
    students: bool
    """Train students, where the experiment has some."""
    as_json: bool

    @property
    def files(self) -> list[tuple[Path, Path]]:
        """Corpus and embeddings of each run."""
        corpora = self.corpora if len(self.corpora) > 1 else self.corpora * len(self.embeddings)
        return list(zip(corpora, self.embeddings, strict=True))

    @property
    def command(self) -> str:
        """The command line that gives the same figures again, without the folders of this machine."""
        parts = ["qaserve", "bench", self.name, "--seeds", str(self.seeds)]
        for number, path in enumerate(self.embeddings):
            if number < len(self.corpora):
                parts += ["--corpus", self.corpora[number].resolve().name]
            parts += ["--embeddings", path.name]
        for name, value in self.weighing.items():
            parts += [f"--{name}", *(f"{one:g}" for one in (value if isinstance(value, tuple) else (value,)))]
        if not self.students:
            parts += ["--no-students"]
        return shlex.join([*parts, "--quick"] if self.quick else parts)


def _add(name: str) -> None:
    """Make the command of an experiment."""
    listed = EXPERIMENTS[name]
    how_many = f"How many: seeds 0, 1, 2 …; {listed.seeds} unless told otherwise, 1 with --quick."

    @bench_app.command(name, help=EXPERIMENT_HELP.format(about=listed.about, name=name))
    def experiment(
        *,
        seeds: Annotated[int | None, typer.Option(min=1, max=100, help=how_many, show_default=False)] = None,
        corpus: Annotated[
            list[Path] | None, typer.Option(help="Corpus file of the embeddings: one for all, or one for each.")
        ] = None,
        embeddings: Annotated[
            list[Path] | None, typer.Option(help="npz file with arrays Q and A; may be given several times.")
        ] = None,
        quick: Annotated[
            bool, typer.Option("--quick", help="See that it runs: seconds, on a part of the data.")
        ] = False,
        reports: Annotated[Path | None, typer.Option(help="Folder to write report and plots to.")] = None,
        add: Annotated[
            bool,
            typer.Option("--add", help="Keep what else the report there holds; runs are named after their corpus."),
        ] = False,
        trec: Annotated[
            Path | None, typer.Option(help="Folder to write TREC runs and qrels to.", hidden=not listed.trec)
        ] = None,
        alpha: Annotated[
            float | None,
            typer.Option(
                min=0, max=1, help="Share of the entropy in the importance combined.", hidden=not listed.weighs
            ),
        ] = None,
        bounds: Annotated[
            tuple[float, float] | None,
            typer.Option(help="Lowest and highest weight of a pair.", hidden=not listed.weighs),
        ] = None,
        trainings: Annotated[
            int | None,
            typer.Option(
                min=1, max=100, help="Students of each weighting that are trained on a split.", hidden=not listed.weighs
            ),
        ] = None,
        students: Annotated[
            bool,
            typer.Option(
                "--students/--no-students",
                help="Train students, which takes most of the time.",
                hidden=not listed.students,
            ),
        ] = True,
        as_json: Json = False,
    ) -> None:
        """See EXPERIMENT_HELP."""
        number = seeds or (1 if quick else listed.seeds)
        files = tuple(corpus or ()), tuple(embeddings or ())
        weighing = {"alpha": alpha, "bounds": bounds, "trainings": trainings}
        given = {name: value for name, value in weighing.items() if value is not None}
        _measure(Options(name, number, *files, quick, reports, add, trec, given, students, as_json))


for _name in EXPERIMENTS:
    _add(_name)


@bench_app.command(help=LATENCY_HELP)
def latency(
    *,
    questions: Annotated[int, typer.Option(min=1, max=10_000, help="How many questions to ask.")] = 100,
    as_json: Json = False,
) -> None:
    """See LATENCY_HELP."""
    from qaserve.search.engine import Engine
    from qaserve.store import open_store
    from train.experiments import latency as latency_experiment

    settings = get_settings()
    with open_store(settings.store) as store:
        corpus = corpus_to_ask(settings, store)
        encoder = make_encoder(settings)
        engine = Engine(store, encoder, settings.store.models_dir, corpus, settings.search)
        known = [point.payload["question"] for point in engine.load().points.scroll(vectors=())]
        chosen = known[:: max(1, len(known) // questions)][:questions]
        with Bars(err).stage("Asking (questions)", len(chosen)) as advance:
            report = latency_experiment.run(engine, encoder, chosen, advance)
    if as_json:
        print(report.model_dump_json(indent=2))
        return
    took = report.engine
    out.print(f"Medians of {report.questions} questions over {report.pairs:,} pairs, in milliseconds:")
    out.print(f"  encode {took.encode}  route {took.route}  project {took.project}  search {took.search}")
    out.print(f"  total {took.total}; bare encoder {report.bare_encode}, two bare searches {report.bare_searches}")
    out.print(f"  the engine takes {report.over_bare} times its bare parts")
    out.print(f"Bank of W: {report.bank_bytes:,} bytes; as dense matrices {report.dense_bank_bytes:,}")


@bench_app.command(help=COLD_HELP)
def cold(
    *,
    question: Annotated[str, typer.Option(help="What to ask.")] = "How do I add a pair?",
    runs: Annotated[int, typer.Option(min=1, max=100, help="How often each command is started.")] = 3,
    as_json: Json = False,
) -> None:
    """See COLD_HELP."""
    from train.experiments import cold as cold_experiment

    with Bars(err).stage("Starting (processes)", runs * cold_experiment.MEASURES) as advance:
        report = cold_experiment.run(question, runs, advance)
    if as_json:
        print(report.model_dump_json(indent=2))
        return
    for one in (*report.bare, *report.commands):
        out.print(Text(f"{one.seconds:7.3f} s {one.peak_bytes >> 20:5} MiB  {one.name}"))
    print(report.model_dump_json())


@bench_app.command(help=LOAD_HELP)
def load(
    *,
    clients: Annotated[int, typer.Option(min=1, max=1_000, help="How many ask at once.")] = 32,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=3_600, help="How long the many ask; one alone asks for a minute at most.")
    ] = 20,
    as_json: Json = False,
) -> None:
    """See LOAD_HELP."""
    from qaserve.client.http import Client
    from train.experiments import load as load_experiment

    server = get_settings().server
    url, secret = server.api_url or server.local_api_url, server.write_key or server.api_key
    key = secret.get_secret_value() if secret else None
    with Client(url, key=key, timeout=server.api_timeout) as client:
        largest = client.clusters().clusters[:LOAD_CLUSTERS]
        known = [pair.pair.question for one in largest for pair in client.cluster(one.cluster).pairs]
    with Bars(err).stage("Asking (requests)", None) as advance:
        report = load_experiment.run(url, key, known, clients=clients, seconds=seconds, advance=advance)
    if as_json:
        print(report.model_dump_json(indent=2))
        return
    for one in (report.one, report.many):
        out.print(
            f"{one.clients:>4} at once: {one.per_second:.1f} answers a second, p50 {one.p50_ms:.0f} ms, "
            f"p99 {one.p99_ms:.0f} ms, {one.failed} of {one.requests} failed"
        )
    out.print(f"{report.ratio} times as many answers a second")
    out.print(f"HTTP alone, {clients} at once: {report.bare.per_second:.1f} replies a second of /healthz")
    if report.memory_before is not None and report.memory_after is not None:
        out.print(
            f"Memory of the API: {report.memory_before >> 20} MiB before the many, {report.memory_after >> 20} after"
        )


@bench_app.command(help=PUBLISH_HELP)
def publish(
    *,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if page or plots are stale.")] = False,
    reports: Annotated[Path, typer.Option(help="Folder of the reports.")] = Path("train/published"),
    page: Annotated[Path, typer.Option(help="Page to write.")] = Path("docs/results.md"),
    as_json: Json = False,
) -> None:
    """See PUBLISH_HELP."""
    from train.experiments import results

    found = (results.check if check else results.publish)(reports, page)
    stale = [str(path) for path in found.stale]
    if as_json:
        print(json.dumps({"page": str(page), "experiments": found.experiments, "stale": stale}, indent=2))
    else:
        shown = ", ".join(found.experiments) or "no experiment"
        out.print(Text(f"{page} {'is checked' if check else 'is written'}: {shown}"))
        for path in stale:
            err.print(Text(f"stale: {path}; `qaserve bench publish` writes it again"))
    if stale:
        raise typer.Exit(1)


def _measure(options: Options) -> None:
    """Run an experiment for every encoder, and show, print and write what came out."""
    _check(options)
    from train.experiments import reports
    from train.experiments.datasets import Weighing
    from train.experiments.result_cache import ResultCache

    module = EXPERIMENTS[options.name].load()
    if options.folder is not None:
        reports.check_writable(options.folder, module.EXPERIMENT, quick=options.quick)
        if options.add:
            reports.check_added(options.folder, module.EXPERIMENT, seeds=range(options.seeds), quick=options.quick)
    settings = get_settings()
    cache = ResultCache(settings.store.data_dir / "experiments")
    weighing = Weighing(**options.weighing)
    sources = [
        source._replace(cache=cache, weighing=weighing, students=options.students)
        for source in _sources(settings, options)
    ]
    started = time.perf_counter()
    report = module.EXPERIMENT.report.model_validate({"runs": tuple(_run(module, one, options) for one in sources)})
    origin = reports.provenance(
        options.command,
        seeds=range(options.seeds),
        quick=options.quick,
        wall_seconds=time.perf_counter() - started + cache.spared_seconds,
    )
    measured = reports.Measured(module.EXPERIMENT, reports.Document(provenance=origin, report=report))
    if options.folder is not None and options.add:
        measured = reports.added(options.folder, measured)
    if options.as_json:
        print(reports.to_json(measured.document), end="")
    else:
        _show(measured)
    for export in (source.trec for source in sources if source.trec is not None):
        if not options.as_json:
            _show_table(export.table)
        err.print(Text(f"written: {export.close()}"))
    for path in reports.write(options.folder, measured) if options.folder is not None else ():
        err.print(Text(f"written: {path}"))
    cache.clear()


def _check(options: Options) -> None:
    if bool(options.corpora) != bool(options.embeddings):
        raise UsageError("--corpus and --embeddings go together", hint="Give both, or neither for the live build.")
    if len(options.corpora) not in {0, 1, len(options.embeddings)}:
        raise UsageError(
            f"{len(options.corpora)} corpora and {len(options.embeddings)} files of embeddings",
            hint="Give one corpus for all, or one for each.",
        )
    if options.trec is not None and len(options.corpora) > 1:
        raise UsageError("--trec takes one corpus", hint="Run it once for each.")
    if options.trec is not None and not EXPERIMENTS[options.name].trec:
        able = ", ".join(name for name, listed in EXPERIMENTS.items() if listed.trec)
        raise UsageError(f"bench {options.name} writes no TREC runs", hint=f"--trec is for: {able}.")
    _check_added(options)
    _check_weighing(options)
    names = [_label(corpus, path, options) for corpus, path in options.files]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"{names.count(name)} files are called {name}: their name is the encoder's in the report",
                hint="Rename them.",
            )


def _check_added(options: Options) -> None:
    if options.add and (options.folder is None or not options.corpora):
        raise UsageError("--add is for a report of files", hint="Give --reports, --corpus and --embeddings too.")
    if not options.students and not EXPERIMENTS[options.name].students:
        able = ", ".join(name for name, listed in EXPERIMENTS.items() if listed.students)
        raise UsageError(f"bench {options.name} cannot do without students", hint=f"--no-students is for: {able}.")


def _check_weighing(options: Options) -> None:
    if options.weighing and not EXPERIMENTS[options.name].weighs:
        able = ", ".join(name for name, listed in EXPERIMENTS.items() if listed.weighs)
        option = next(iter(options.weighing))
        raise UsageError(f"bench {options.name} weighs no pairs by importance", hint=f"--{option} is for: {able}.")
    lowest, highest = options.weighing.get("bounds", (0.5, 2.0))
    if not 0 < lowest < 1 < highest:
        raise UsageError(
            f"--bounds {lowest:g} {highest:g} do not hold 1, the mean weight, between them",
            hint="Give a number between 0 and 1, then one above 1.",
        )


def _label(corpus: Path, embeddings: Path, options: Options) -> str:
    """What a run is called in the report."""
    several = options.add or len(options.corpora) > 1
    return f"{embeddings.stem} on {corpus.resolve().stem}" if several else embeddings.stem


def _run(module: "ExperimentModule", source: "Source", options: Options) -> "Record":
    seeds = range(options.seeds)
    with Bars(err).stage(f"{source.encoder} (steps)", module.steps(seeds, options.quick)) as advance:
        return module.run(source, seeds=seeds, quick=options.quick, advance=advance)


def _sources(settings: Settings, options: Options) -> "list[Source]":
    from qaserve.store import open_store
    from train.experiments.datasets import from_build, from_files

    if options.corpora:
        sources = [
            from_files(corpus, path, settings.read, _encoder_at_hand(settings, path.stem))._replace(
                encoder=_label(corpus, path, options)
            )
            for corpus, path in options.files
        ]
    else:
        with open_store(settings.store) as store:
            sources = [from_build(store, corpus_to_ask(settings, store), _encoder_at_hand(settings))]
    return sources if options.trec is None else _exporting(sources, options.trec)


def _exporting(sources: "list[Source]", folder: Path) -> "list[Source]":
    """The sources, each with an export in which another one's vectors judge which answers are the same."""
    from train.experiments.trec import Judge, TrecExport

    made = []
    for source in sources:
        other = next((one for one in sources if one.encoder != source.encoder), None)
        judge = None if other is None else Judge(other.encoder, other.examples)
        made.append(source._replace(trec=TrecExport(folder, source.encoder, judge)))
    return made


def _encoder_at_hand(settings: Settings, name: str = "") -> "SentenceEncoder | None":
    """An encoder whose files are on this machine; for an experiment nothing is downloaded.

    It is the known one of that name or, where none is called so, that of the settings.
    """
    from qaserve.encoders.sentence_transformer import SentenceEncoder
    from qaserve.encoders.sources import KNOWN, check_installed, downloaded, source_for

    chosen = settings.encoder.model_copy(update={"encoder": name} if name in KNOWN else {})
    cache, source = str(settings.store.data_dir / "encoders"), source_for(chosen.encoder)
    if source.kind == "hub" and downloaded(source) is None:
        return None
    try:
        check_installed(source, cache)
    except EncoderError:
        return None
    return SentenceEncoder(chosen, cache)


def _show(measured: "Measured") -> None:
    experiment, document = measured
    for table in experiment.tables(document.report):
        _show_table(table)
    for finding in experiment.findings(document.report):
        out.print(Text(f"- {finding}"))
    if document.provenance.quick:
        err.print("Measured with --quick, on a part of the data: these figures say only that it runs.")


def _show_table(table: "Table") -> None:
    out.print(Text(table.title, style="bold"))
    drawn = _drawn(table)
    # A terminal may be too narrow for all figures; long lines are better than figures without their digits.
    needed = Measurement.get(out, out.options.update(max_width=MAX_WIDTH), drawn).minimum
    Console(width=max(out.width, needed)).print(Padding(drawn, (0, 0, 1, 0)))


def _drawn(table: "Table") -> Drawn:
    """Only headers and the first column wrap; figures stay whole."""
    drawn = Drawn(box=None, pad_edge=False, header_style="dim")
    for number, (name, *cells) in enumerate(zip(table.columns, *table.rows, strict=True)):
        widest = max(len(text) for text in [*cells, *name.split()])
        if number:
            drawn.add_column(Text(fill(name, widest)), justify="right", min_width=widest, no_wrap=True)
        else:
            drawn.add_column(Text(name), min_width=min(widest, NAME_WIDTH))
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn
