"""`qaserve ask`."""

from typing import Annotated, Any

import typer
from pydantic import ValidationError

from qaserve.cli.base import FILTER_RULE, Json, app, corpus_to_ask, err, make_encoder, out, parse_filters
from qaserve.cli.render_answer import show_answers, show_trace
from qaserve.common.errors import UsageError
from qaserve.common.text import shorten
from qaserve.schemas.ask import AskRequest, AskResult, Filters
from qaserve.schemas.params import ProjectionName, RoutingName
from qaserve.settings import Settings, get_settings

HELP = """Answer a question, and say why.

**Examples**

    qaserve ask "How do I extract records from Markdown?"

    qaserve ask "How do I extract records from Markdown?" --explain

    qaserve ask "parse XML" --routing centroid --temperature 0.1 --top-k 3 --json

    qaserve ask "parse XML" --filter topics=xml --filter topics=csv --filter tags=parsing
"""


@app.command(help=HELP)
def ask(
    question: Annotated[str, typer.Argument(help="What you want to know.", show_default=False)],
    *,
    top_k: Annotated[int, typer.Option(help="How many answers, one per intent.")] = 5,
    routing: Annotated[
        RoutingName | None,
        typer.Option(help="Who votes: known questions, the same with a final softmax, or centroids."),
    ] = None,
    projection: Annotated[ProjectionName | None, typer.Option(help="How the vote moves the question.")] = None,
    temperature: Annotated[float | None, typer.Option(help="τ of the vote's softmax: small is sharp.")] = None,
    hits: Annotated[int | None, typer.Option(help="How many known questions vote.")] = None,
    lexical_weight: Annotated[
        float | None, typer.Option(help="β, 0 to 1: how much the words in common count; 0 is off.")
    ] = None,
    priors: Annotated[
        bool | None, typer.Option(help="Whether the priors of known questions count in the vote.", show_default=False)
    ] = None,
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
    as_json: Json = False,
) -> None:
    """See HELP."""
    request = _request(
        question=question,
        top_k=top_k,
        routing=routing,
        projection=projection,
        temperature=temperature,
        hits=hits,
        lexical_weight=lexical_weight,
        priors=priors,
        filters=parse_filters(only or [], Filters.model_fields) or None,
    )
    result = _answer(request, get_settings())
    if as_json:
        print(result.model_dump_json(indent=2))
        return
    show_answers(out, result)
    if explain:
        show_trace(out, result)


def _request(**fields: Any) -> AskRequest:
    try:
        return AskRequest.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        named = "filter" if first["loc"][0] == "filters" else str(first["loc"][0])
        option = "--" + named.replace("_", "-")
        raise UsageError(
            f"{option} {shorten(repr(first['input']), 80)}: {first['msg']}",
            hint="`qaserve ask --help` lists the options.",
        ) from error


def _answer(request: AskRequest, settings: Settings) -> AskResult:
    from qaserve.search.engine import Engine, checked_question
    from qaserve.store import open_store

    checked_question(request.question)
    if settings.server.api_url is not None:
        from qaserve.client.http import Client

        with Client(**settings.server.client) as client:
            return client.ask(request)
    with open_store(settings.store, read_only=True) as store:
        corpus = corpus_to_ask(settings, store)
        engine = Engine(store, make_encoder(settings), settings.store.models_dir, corpus, settings.search)
        engine.load()
        with err.status("Loading the encoder …"):
            engine.encoder.encode_questions([request.question])
        return engine.ask(request)
