"""`qaserve ask`."""

from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.text import Text

from qaserve.cli.base import FILTER_RULE, Json, app, err, out, parse_filters
from qaserve.common.errors import UsageError
from qaserve.common.text import shorten
from qaserve.schemas.ask import AskRequest, Filters
from qaserve.schemas.params import SHORT_NAMES, ProjectionName, RoutingName, SearchParams, parameter_named
from qaserve.settings import Settings, get_settings

PLACEHOLDER = "?"
"""Stands for the question while the other options are checked."""

HELP = """Answer a question, and say why.

**Examples**

    qaserve ask "How do I extract records from Markdown?"

    qaserve ask "How do I extract records from Markdown?" --explain

    qaserve ask "parse XML" --routing centroid --temperature 0.1 --top-k 3 --json

    qaserve ask "compile to C#" --filter topics=Compilation --filter topics=Quickstart --filter tags=prolog

    qaserve ask --top-k 1 -- --file-filter

    qaserve ask --interactive

    qaserve ask --input questions.txt --output answers.jsonl

What follows `--` is the question, also where it begins with a dash.

With --input, every line of the file is a question; in a .jsonl file it is a JSON text or an object with `question`,
`id` and parameters such as `top_k`. The output has one JSON line a question, in order; a question that cannot be
answered has `error` there, and the exit code is then 1. The same command continues an output that was interrupted.
"""
NAMED = ("routing", "projection", "temperature", "hits", "lexical_weight", "priors")
"""Parameters that have an option of their own; `--set` takes all."""
SETTABLE = (*SearchParams.model_fields, *SHORT_NAMES)


def _option(parameter: str) -> Any:
    """The option of a parameter, with its own description."""
    return typer.Option(help=SearchParams.model_fields[parameter].description, show_default=False)


@app.command(help=HELP)
def ask(
    question: Annotated[str | None, typer.Argument(help="What you want to know.", show_default=False)] = None,
    *,
    top_k: Annotated[int, typer.Option(help="How many answers, one per intent.")] = 5,
    routing: Annotated[RoutingName | None, _option("routing")] = None,
    projection: Annotated[ProjectionName | None, _option("projection")] = None,
    temperature: Annotated[float | None, _option("temperature")] = None,
    hits: Annotated[int | None, _option("hits")] = None,
    lexical_weight: Annotated[float | None, _option("lexical_weight")] = None,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help=f"Any parameter: {', '.join(SETTABLE)}.",
        ),
    ] = None,
    priors: Annotated[bool | None, _option("priors")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="FIELD=VALUE",
            help=f"Only pairs with this value of topics, tags, related_skills, source_file or cluster. {FILTER_RULE}",
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the vote, the projection and the raw ranking.")
    ] = False,
    interactive: Annotated[
        bool,
        typer.Option("--interactive", "-i", help="Ask at a prompt with history and completion. :help helps there."),
    ] = False,
    source: Annotated[
        Path | None, typer.Option("--input", help="File of questions, one a line: text, or JSON lines.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File of the answers to --input, as JSON lines; it is continued.")
    ] = None,
    as_json: Json = False,
) -> None:
    """See HELP."""
    _check_way(question, source, output, interactive=interactive, as_json=as_json)
    named = dict(zip(NAMED, (routing, projection, temperature, hits, lexical_weight, priors), strict=True))
    request = _request(
        more or [],
        question=PLACEHOLDER if question is None else question,
        top_k=top_k,
        filters=parse_filters(only or [], Filters.model_fields) or None,
        **named | _named(more or []),
    )
    settings = get_settings()
    options = request.model_dump(exclude_unset=True, exclude={"question"}) | {"explain": explain}
    if source is not None and output is not None:
        _ask_file(source, output, options, settings, as_json=as_json)
    elif interactive:
        _ask_at_prompt(question, options, settings)
    else:
        _ask_once(request, settings, explain=explain, as_json=as_json)


def _check_way(
    question: str | None, source: Path | None, output: Path | None, *, interactive: bool, as_json: bool
) -> None:
    """Raise UsageError unless there is one way of asking: a question, a file of questions, or a prompt."""
    if (source is None) != (output is None):
        raise UsageError("--input and --output go together", hint="For example: --input q.txt --output answers.jsonl")
    if source is not None and (question is not None or interactive):
        raise UsageError(
            "--input takes its questions from the file", hint="Leave out QUESTION and --interactive, or --input."
        )
    if interactive and as_json:
        raise UsageError("--interactive shows text, --json a document", hint="`--input FILE` asks many for documents.")
    if question is None and source is None and not interactive:
        raise UsageError(
            "Missing argument 'QUESTION'", hint='qaserve ask "How do I add a pair?", or qaserve ask --interactive'
        )


def _ask_once(request: AskRequest, settings: Settings, *, explain: bool, as_json: bool) -> None:
    from qaserve.cli.answering import answerer
    from qaserve.search.engine import checked_question

    checked_question(request.question)
    with answerer(settings) as answering:
        result = answering.ask(request)
    if as_json:
        print(result.model_dump_json(indent=2))
        return
    from qaserve.cli.render_answer import show_answers, show_trace

    show_answers(out, result)
    if explain:
        show_trace(out, result)


def _ask_file(source: Path, output: Path, options: dict[str, Any], settings: Settings, *, as_json: bool) -> None:
    from qaserve.cli.ask_file import ask_file

    report = ask_file(source, output, options, settings)
    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        kept = f"; an earlier run wrote {report.kept:,}" if report.kept else ""
        text = f"{report.answered:,} of {report.questions:,} questions are answered in {report.output}{kept}."
        err.print(Text(text))
        if report.failed:
            err.print(Text(f"{report.failed:,} failed; their lines have `error`.", style="yellow"))
    if report.failed:
        raise typer.Exit(1)


def _ask_at_prompt(question: str | None, options: dict[str, Any], settings: Settings) -> None:
    from qaserve.cli.answering import answerer
    from qaserve.cli.prompt import Prompt, typed_lines

    with answerer(settings) as answering:
        first = [] if question is None else [question]
        Prompt(answering, options, out).run(chain(first, typed_lines(settings.store.data_dir)))


def _named(given: list[str]) -> dict[str, str]:
    """Parameters of `--set`. Raises UsageError where one is unknown."""
    found = {}
    for said, _, value in (one.partition("=") for one in given):
        if parameter_named(said) not in SearchParams.model_fields:
            raise UsageError(
                f"--set {shorten(said, 40)}: there is no such parameter",
                hint=f"There are: {', '.join(SETTABLE)}.",
            )
        found[parameter_named(said)] = value
    return found


def _request(given: list[str], **fields: Any) -> AskRequest:
    """The request; raises UsageError, which names a parameter of `--set` (`given`) as it was typed."""
    try:
        return AskRequest.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        named = "filter" if first["loc"][0] == "filters" else str(first["loc"][0])
        typed = [said for said, _, _ in (one.partition("=") for one in given) if parameter_named(said) == named]
        option = f"--set {typed[-1]}" if typed else f"--{named.replace('_', '-')}"
        raise UsageError(
            f"{option} {shorten(repr(first['input']), 80)}: {first['msg']}",
            hint="`qaserve ask --help` lists the options.",
        ) from error
