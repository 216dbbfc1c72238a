"""How answers, traces and reports look in a terminal. Everything from a corpus is printed as plain text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from rich.console import Console, Group
from rich.markdown import Markdown
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from qaserve.common.text import one_line, shorten
from qaserve.schemas.pairs import skill_name

if TYPE_CHECKING:
    from ingest.judgements import BadLine
    from ingest.refit import DistillReport
    from qaserve.builds.manifest import Manifest
    from qaserve.schemas.ask import Answer, AskResult, Trace
    from qaserve.schemas.builds import BuildInfo

HITS_SHOWN = 8
SKILLS_SHOWN = 3
REJECTIONS_SHOWN = 10
CLUSTERS_SHOWN = 6
BAR_WIDTH = 16
WORDS_SHOWN = 8
DIM = "dim"


def show_answers(console: Console, result: "AskResult", in_full: int | None = None) -> None:
    """How sure the first answer is, and the answers, best first. Of those after the first `in_full` only a headline."""
    confidence = result.confidence
    if confidence.abstained:
        console.print(Text(confidence.reason, style="bold yellow"))
        if result.answers:
            console.print(Text("These pairs are only what comes nearest.\n", style=DIM))
    elif result.answers:
        console.print(Text(f"{confidence.statement} {confidence.reason}\n".lstrip(), style=DIM))
    for number, answer in enumerate(result.answers):
        console.print(_head(answer))
        console.print(Text(f"   {_about(answer)}", style=DIM))
        if in_full is None or number < in_full:
            console.print(_body(answer))
    if not result.answers:
        console.print("No answer.")
    if result.skills:
        console.print(_skills(result))


def _skills(result: "AskResult") -> Group:
    """The first skills, each with what speaks for it."""
    table = _table(("score", "right"), ("sure", "right"), ("skill", "left"), ("pairs", "right"), ("when to use", None))
    for skill in result.skills[:SKILLS_SHOWN]:
        when = Text(one_line(skill.when_to_use or skill.title, 200))
        sure = "" if skill.confidence is None else f"{skill.confidence:.0%}"
        table.add_row(
            f"{skill.score:.3f}",
            "named" if skill.named else sure,
            Text(skill.name, style="cyan"),
            f"{skill.pairs:,}",
            when,
        )
    return Group(Text("Skills", style="bold"), table, Text("`qaserve skill NAME` shows one.", style=DIM))


def show_one(console: Console, answer: "Answer") -> None:
    """One answer in full, with what its pair says of itself."""
    console.print(_head(answer))
    console.print(_body(answer))
    for name, value in (
        ("pair", answer.pair_id),
        ("intent", answer.cluster_id),
        ("skills", _named(answer, answer.related_skills)),
        ("documents", _named(answer, answer.related_docs)),
        ("topics", ", ".join(answer.topics)),
        ("tags", ", ".join(answer.tags)),
        ("source", answer.source_file),
        *_said_by_author(answer),
    ):
        if value:
            console.print(Text(f"   {name:<9} {value}", style=DIM))


def _named(answer: "Answer", names: Sequence[str]) -> str:
    """Names of documents; those that are missing from the build are marked."""
    missing = {link.name for link in answer.links if link.path is None}
    return ", ".join(f"{name} (missing)" if name in missing else name for name in names)


def _said_by_author(answer: "Answer") -> list[tuple[str, str]]:
    note = answer.author
    if note is None:
        return []
    sure = "" if note.confidence is None else f"{note.confidence:.0%} sure of the answer's text"
    reviewed = {True: "reviewed by a person", False: "not reviewed by a person", None: ""}[note.manually_reviewed]
    return [("author", ", ".join(filter(None, (sure, reviewed)))), ("doubts", note.confidence_issues or "")]


def _head(answer: "Answer") -> Text:
    return Text.assemble((f"{answer.rank}. ", "bold cyan"), (shorten(answer.question, 200), "bold"))


def _body(answer: "Answer") -> Padding:
    return Padding(Markdown(answer.answer, hyperlinks=False), (0, 0, 1, 3))


def _about(answer: "Answer") -> str:
    moved = (
        "not in the first 50 of a plain search"
        if answer.raw_rank is None
        else f"rank {answer.raw_rank} in a plain search"
    )
    said = {"topic": answer.parts.topic, "words": answer.parts.lexical}
    shown = [f"{name} {value:.3f}" for name, value in said.items() if value]
    if answer.known:
        shown.append("asks your question")
    parts = [f"score {answer.score:.3f}", *shown, moved, answer.pair_id, *map(skill_name, answer.related_skills[:3])]
    return " · ".join(shorten(part, 60) for part in parts)


def show_trace(console: Console, result: "AskResult") -> None:
    """Why: who voted, for which clusters, how far the question moved, and what would have come first without."""
    trace = result.explained
    console.rule("[bold]Why[/bold]", align="left")
    if trace.hits:
        console.print(_hits(trace))
    console.print(_clusters(trace))
    console.print(_movement(trace, result))
    console.print(_raw(trace))
    if trace.excluded:
        console.print(_excluded(trace))
    console.print(_footer(result))


def _hits(trace: "Trace") -> Group:
    names = {vote.cluster: vote.name for vote in trace.clusters}
    weighed = any(hit.prior != 1 for hit in trace.hits)
    prior: list[tuple[str, Literal["right"]]] = [("prior", "right")] if weighed else []
    table = _table(
        ("share", "right"), ("", "left"), ("similarity", "right"), *prior, ("known question", None), ("votes for", None)
    )
    for hit in trace.hits[:HITS_SHOWN]:
        table.add_row(
            f"{hit.probability:.3f}",
            _bar(hit.probability, trace.hits[0].probability),
            f"{hit.similarity:.3f}",
            *([f"{hit.prior:.2f}"] if weighed else []),
            Text(shorten(hit.question, 200)),
            Text(f"{hit.cluster} {names.get(hit.cluster, '')}", style="cyan"),
        )
    rest = trace.hits[HITS_SHOWN:]
    more = f"   and {len(rest)} more, {sum(hit.probability for hit in rest):.3f} together" if rest else ""
    how = f"temperature {trace.params.temperature:g}{'' if trace.params.priors else ', priors left out'}"
    title = f"1. {len(trace.hits)} known questions are most like yours ({how})"
    return Group(Text(title, style="bold"), table, Text(more, style=DIM))


def _clusters(trace: "Trace") -> Group:
    params = trace.params
    by = "similarity" if params.routing == "centroid" else "hits"
    table = _table(("weight", "right"), ("", "left"), (by, "right"), ("cluster of answers", None))
    for vote in trace.clusters[:CLUSTERS_SHOWN]:
        count = f"{vote.similarity:.3f}" if vote.similarity is not None else str(vote.hits)
        table.add_row(
            f"{vote.weight:.3f}",
            _bar(vote.weight, trace.clusters[0].weight),
            count,
            Text(f"{vote.cluster} {vote.name}", style="cyan"),
        )
    rest = trace.clusters[CLUSTERS_SHOWN:]
    more = f"   and {len(rest)} more, {sum(vote.weight for vote in rest):.3f} together" if rest else ""
    said = {
        "question": "2. They vote for the clusters of their answers",
        "question2": f"2. They vote; a final softmax (temperature {params.final_temperature:g}) weighs the votes",
        "centroid": f"1. These clusters' mean questions are most like yours (temperature {params.temperature:g})",
    }[params.routing]
    return Group(Text(said, style="bold"), table, Text(more, style=DIM))


def _table(*columns: tuple[str, Literal["left", "right"] | None]) -> Table:
    """A table of one-line rows; columns without a side hold text, share what width is left and are cut to fit."""
    table = Table(box=None, pad_edge=False, header_style=DIM, expand=any(side is None for _, side in columns))
    for title, side in columns:
        ratio = (
            {"known question": 3, "votes for": 2, "answer to": 2, "when to use": 3}.get(title, 1)
            if side is None
            else None
        )
        table.add_column(title, justify=side or "left", no_wrap=True, overflow="ellipsis", ratio=ratio)
    return table


def _movement(trace: "Trace", result: "AskResult") -> Group:
    said = {
        "cluster": "The clusters' projections, blended by weight, move your question",
        "pair": "The projections of the single pairs, blended by probability, move your question",
        "student": "The student, which was taught what the clusters' projections do, moves your question",
        "none": "No projection: your question stays where it is",
    }[trace.params.projection]
    lines = [Text.assemble(("3. ", "bold"), (said, "bold"))]
    if trace.params.projection != "none":
        lines.append(Text(f"   similarity of the question before and after: {trace.projected_similarity:.3f}"))
    if result.answers:
        first = result.answers[0]
        before, after = first.raw_similarity, first.projected_similarity
        lines.append(Text(f"   similarity to the first answer: {before:.3f} before, {after:.3f} after"))
        if trace.params.whitening:
            lines.append(
                Text(f"   whitened (weight {trace.params.whitening:g}) it has {first.similarity:.3f}, which is scored")
            )
        if trace.params.lexical_weight and first.words:
            shared = ", ".join(first.words[:WORDS_SHOWN])
            weight = f"weight {trace.params.lexical_weight:g}{', for few pairs hold this name' if trace.names else ''}"
            lines.append(Text(f"   words in common with it ({weight}): {shared}"))
    return Group(*lines, Text())


def _raw(trace: "Trace") -> Group:
    table = _table(("rank", "right"), ("similarity", "right"), ("answer to", None))
    for answer in trace.raw_answers:
        table.add_row(str(answer.rank), f"{answer.similarity:.3f}", Text(shorten(answer.question, 200)))
    return Group(Text("4. A plain search would have given these first", style="bold"), table, Text())


def _excluded(trace: "Trace") -> Group:
    table = _table(("before", "right"), ("after", "right"), ("answer to", None), ("kept out because", None))
    for one in trace.excluded:
        table.add_row(
            f"{one.raw_similarity:.3f}",
            f"{one.projected_similarity:.3f}",
            Text(shorten(one.question, 200)),
            one.reason,
        )
    return Group(Text("5. These might have been expected", style="bold"), table, Text())


def _footer(result: "AskResult") -> Text:
    times, trace = result.timings_ms, result.explained
    return Text(
        f"routing {trace.params.routing} · projection {trace.params.projection} · entropy {trace.entropy:.2f} · "
        f"build {result.build} · encode {times.encode:.1f} + route {times.route:.1f} + project {times.project:.1f} + "
        f"search {times.search:.1f} = {times.total:.1f} ms",
        style=DIM,
    )


def _bar(value: float, most: float) -> Text:
    filled = round(BAR_WIDTH * value / most) if most > 0 else 0
    return Text("█" * max(filled, 1), style="green")


def show_builds(console: Console, builds: list["BuildInfo"]) -> None:
    """Builds, newest first."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style=DIM)
    for title in ("corpus", "build", "", "created (UTC)", "pairs", "clusters", "MRR", "encoder", "from"):
        table.add_column(title, no_wrap=title != "from", overflow="ellipsis")
    for build in builds:
        state = (
            Text("live", style="bold green")
            if build.live
            else Text("" if build.complete else "incomplete", style="yellow")
        )
        table.add_row(
            build.corpus,
            build.build,
            state,
            build.created[:16].replace("T", " "),
            f"{build.pairs:,}",
            str(build.clusters),
            _figure(build.metrics, "held_out_mrr"),
            build.encoder,
            Text(_first_of(build.sources)),
        )
    console.print(table)


def _first_of(sources: Sequence[str]) -> str:
    more = f" +{len(sources) - 1}" if len(sources) > 1 else ""
    return shorten(sources[0], 30) + more if sources else ""


def _figure(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.3f}" if name in metrics else "–"


def show_fit(console: Console, manifest: "Manifest") -> None:
    """The numbers of a build and how they were chosen."""
    from qaserve.builds.manifest import UNIFORM

    numbers, tuning = manifest.hyperparameters.search, manifest.tuning
    console.print(f"Build {manifest.build} is live: {manifest.pairs:,} pairs, {len(manifest.clusters)} clusters.")
    console.print(
        f"  λ {manifest.hyperparameters.regularization:g} · τ {numbers.temperature:g} · N {numbers.hits} · "
        f"routing {numbers.routing} · projection {numbers.projection}, share {numbers.projection_share:g} · "
        f"whitening {numbers.whitening:g}"
    )
    console.print(
        f"  weights: words {numbers.lexical_weight:g} · topic {numbers.topic_weight:g} · "
        f"second-best pair {numbers.second_share:g}"
    )
    if manifest.prior != UNIFORM:
        console.print(f"  pairs are weighed by their importance: {manifest.prior}")
    if manifest.feedback is not None:
        extra = manifest.feedback
        console.print(
            f"  W is fitted on {extra.rows} judged questions too; {extra.repeated} were a pair's own, "
            f"{extra.unknown} are of pairs that are not here"
        )
    if tuning is None:
        console.print("  There are too few phrasings to choose by; these are the defaults.")
        return
    console.print(f"  chosen among {len(tuning.curve)} by mean reciprocal rank on questions that were held out:")
    chosen, unprojected, plain = tuning.chosen, tuning.unprojected, tuning.plain
    console.print(
        f"  new phrasings    {chosen.phrasings:.3f}, without projection {unprojected.phrasings:.3f}, "
        f"plain search with words {plain.phrasings:.3f} ({tuning.phrasings:,} questions)"
    )
    if chosen.intents is not None:
        console.print(
            f"  unknown intents  {chosen.intents:.3f}, without projection {unprojected.intents:.3f}, "
            f"plain search with words {plain.intents:.3f} ({tuning.intents:,} questions)"
        )
    if chosen.search.projection == "none":
        console.print("  The projection does not pay on this corpus; the build answers without it.")


def show_bad_lines(console: Console, bad: Sequence["BadLine"]) -> None:
    """Lines of a file that are no judgements."""
    from ingest.judgements import said

    for one in bad[:REJECTIONS_SHOWN]:
        console.print(Text(f"no judgement: {said(one)}"))
    if len(bad) > REJECTIONS_SHOWN:
        console.print(f"… and {len(bad) - REJECTIONS_SHOWN} more lines that are no judgements")


def show_unknown_lines(console: Console, count: int, listed: Sequence["BadLine"]) -> None:
    """Judgements of pairs that a build does not have: how many, and the first of them."""
    from ingest.judgements import said

    are = "judgement is of a pair" if count == 1 else "judgements are of pairs"
    console.print(f"{count:,} {are} that this build does not have, left out:")
    for one in listed[:REJECTIONS_SHOWN]:
        console.print(Text(f"  {said(one)}"))
    if count > REJECTIONS_SHOWN:
        console.print(f"  and {count - REJECTIONS_SHOWN:,} more")


def show_distilled(console: Console, report: "DistillReport") -> None:
    """The students that were trained, and the one that was kept."""
    table = Table(box=None, pad_edge=False, header_style=DIM)
    for title in ("student", "parameters", "capacity", "cosine to teacher", "train loss", "epochs", "seconds", ""):
        table.add_column(title, justify="left" if title in {"student", ""} else "right")
    for one in report.candidates:
        table.add_row(
            one.name,
            f"{one.parameters:,}",
            f"{one.capacity:,}",
            f"{one.validation_cosine:.3f}",
            f"{one.train_loss:.4f}",
            str(one.epochs),
            f"{one.seconds:.0f}",
            "kept" if one.name == report.student.spec.name else "",
        )
    console.print(table)
    console.print(f"Build {report.build} is live; ask with --projection student.")
