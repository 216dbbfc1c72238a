"""How an ingest and the difference of two builds look in a terminal. What comes from a corpus is plain text."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qaserve.common.text import shorten

if TYPE_CHECKING:
    from ingest.diff import BuildDiff
    from qaserve.schemas.documents import DocumentsReport
    from qaserve.schemas.ingest import (
        BuildParams,
        ClusterChanges,
        Comparison,
        GateReport,
        IngestReport,
        ListedPair,
        ParamChanges,
        Preview,
        Regrouping,
    )

REJECTIONS_SHOWN = 10
CONFLICTS_SHOWN = 5
PAIRS_SHOWN = 5
FILES_SHOWN = 10
LINKS_SHOWN = 5
NAMES_SHOWN = 5
HEADINGS_SHOWN = 5
DIM = "dim"
WARNING = "yellow"


def show_changes(console: Console, report: "IngestReport", data_dir: Path) -> None:
    """What an ingest changes, known before anything is encoded. `data_dir`: where rejected lines are."""
    for bad in report.bad_files[:FILES_SHOWN]:
        console.print(Text(f"passed over: {bad.file} {bad.reason}", style=WARNING))
        console.print(Text(f"  {bad.hint}", style=WARNING))
    _show_more(console, len(report.bad_files) - FILES_SHOWN, WARNING)
    _show_counts(console, report)
    _show_files(console, report)
    for title, pairs in (("+", report.changes.added), ("~", report.changes.updated)):
        _show_pairs(console, title, pairs)
    gone = report.changes.removed
    _show_pairs(console, "-", gone, len(gone) if report.dry_run else PAIRS_SHOWN)
    _show_rejections(console, report, data_dir)
    _show_conflicts(console, report)
    _show_pairs(console, "code fence in a line:", report.late_fence_pairs)
    for one in report.passed_over_headings[:HEADINGS_SHOWN]:
        console.print(Text(f"  no pair of {shorten(one.heading, 70)!r} ({one.file}:{one.line})", style=DIM))
    _show_more(console, report.passed_over - HEADINGS_SHOWN, DIM)
    if report.documents is not None:
        _show_documents(console, report.documents)


def show_preview(console: Console, preview: "Preview") -> None:
    """How a file would be read by fields that are guessed."""
    console.print(Text(f"{preview.file} ({preview.format}) has the fields {', '.join(preview.fields)}."))
    console.print(Text(f"Guessed: {', '.join(preview.guessed)}. So it would be read:"))
    for pair in preview.pairs:
        console.print(Text(f"  {pair.line}: {shorten(pair.question, 70)}", style="bold"))
        console.print(Text(f"     {shorten(pair.answer, 100)}", style=DIM))
    for bad in preview.rejected:
        console.print(Text(f"  {bad.said}", style=WARNING))


def show_outcome(console: Console, report: "IngestReport") -> None:
    """What became, or would become, of clusters and quality, and which build is live."""
    would = report.dry_run
    if report.cleaned:
        said = "would be removed" if would else "removed"
        console.print(f"Left behind by an interrupted ingest, {said}: {', '.join(report.cleaned)}")
    if report.cluster_changes is not None:
        _show_clusters(console, report.cluster_changes, would=would)
    if report.params is not None:
        _show_params(console, report.params)
    if report.gate is not None:
        _show_gate(console, report.gate, would=would)
    pairs = f"{report.pairs:,} pairs in {report.clusters} clusters"
    made = f"{pairs}, encoder {report.encoder}, {report.seconds:.1f} s."
    if not would:
        console.print(Text(f"Corpus {report.corpus} is live as build {report.build}: {made}"))
        return
    stopped = report.gate is not None and report.gate.stops
    ending = "would stay as it is" if stopped else f"would be live as build {report.build}"
    console.print(Text(f"Dry run: nothing was changed. Corpus {report.corpus} {ending}; it would hold {made}"))


def show_diff(console: Console, diff: "BuildDiff") -> None:
    """How two builds differ."""
    console.print(Text(f"From {diff.before.build} to {diff.after.build}, corpus {diff.corpus}", style="bold"))
    for title, pairs in (("+", diff.added), ("~", diff.updated), ("-", diff.removed)):
        console.print(f"{title} {len(pairs):,} pairs")
        _show_pairs(console, title, pairs)
    if diff.clusters is not None:
        console.print(f"{diff.before.clusters} clusters before, {diff.after.clusters} after")
        _show_regrouping(console, diff.clusters)
    names = sorted(diff.before.metrics.keys() | diff.after.metrics.keys())
    table = Table(box=None, pad_edge=False, header_style=DIM)
    for title in ("measure", "before", "after"):
        table.add_column(title, justify="left" if title == "measure" else "right")
    for name in names:
        table.add_row(
            name, *(f"{side[name]:,g}" if name in side else "–" for side in (diff.before.metrics, diff.after.metrics))
        )
    console.print(table)
    if any(name.startswith("held_out_") for name in names):
        console.print(Text("held_out: phrasings of each build, asked of it alone; the gate asks those of both", DIM))


def _show_counts(console: Console, report: "IngestReport") -> None:
    """What there is of each kind; a kind that there is nothing of is left out."""
    verb = "would be " if report.dry_run else ""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right", style="bold")
    table.add_column()
    counts = (
        (report.read, "pairs read"),
        (report.added, f"{verb}added"),
        (report.updated, f"{verb}updated"),
        (report.unchanged, "unchanged"),
        (report.removed, f"{verb}removed"),
        (report.rejections, "rejected"),
        (report.repeats, "repeat an earlier row's question (kept)"),
        (report.conflicts, "questions lead to different answers (kept)"),
        (report.late_fences, "have a code fence in the middle of a line (kept)"),
        (report.passed_over, "headings without a question mark have text that is in no pair"),
        (report.encoded, f"texts {verb}encoded"),
    )
    for count, text in counts:
        if count:
            table.add_row(f"{count:,}", text)
    if table.row_count:
        console.print(table)
    if not (report.added or report.updated or report.removed):
        console.print("No changes to the pairs.")


def _show_documents(console: Console, said: "DocumentsReport") -> None:
    """What became of the documents, and which names lead to none."""
    kept = "" if said.read else ", all kept from the live build"
    kinds = ((said.added, "added"), (said.changed, "changed"), (said.removed, "removed"))
    changes = ", ".join(f"{len(paths):,} {kind}" for paths, kind in kinds if paths) or "no changes"
    console.print(
        f"{said.documents:,} documents of {said.skills:,} skills, in {said.sections:,} sections{kept}: {changes}"
    )
    for bad in said.rejected[:REJECTIONS_SHOWN]:
        console.print(Text(f"  not taken: {bad.path}: {bad.reason}", style=WARNING))
    _show_more(console, len(said.rejected) - REJECTIONS_SHOWN, WARNING)
    if said.missing_links:
        console.print(
            f"{said.resolved:,} names in related_skills and related_docs lead to a document, "
            f"{said.missing_links:,} to none:"
        )
    for link in said.missing[:LINKS_SHOWN]:
        console.print(Text(f"  {link.name} ({link.pairs:,} pairs)", style=DIM))
    _show_more(console, said.missing_links - LINKS_SHOWN, DIM)


def _show_files(console: Console, report: "IngestReport") -> None:
    for one in report.files[:FILES_SHOWN]:
        kinds = ("added", "updated", "unchanged", "rejected")
        found = ", ".join(f"{getattr(one, kind):,} {kind}" for kind in kinds if getattr(one, kind))
        console.print(Text(f"  {one.file}: {one.read:,} pairs, {found} ({one.format})", style=DIM))
    _show_more(console, len(report.files) - FILES_SHOWN, DIM)


def _show_pairs(console: Console, sign: str, pairs: Sequence["ListedPair"], most: int = PAIRS_SHOWN) -> None:
    for pair in pairs[:most]:
        where = pair.file if pair.line is None else f"{pair.file}:{pair.line}"
        console.print(Text(f"  {sign} {pair.pair_id} {shorten(pair.question, 70)!r} ({where})", style=DIM))
    _show_more(console, len(pairs) - most, DIM)


def _show_more(console: Console, more: int, style: str) -> None:
    if more > 0:
        console.print(Text(f"  and {more:,} more; --json lists all", style=style))


def _show_rejections(console: Console, report: "IngestReport", data_dir: Path) -> None:
    for rejection in report.rejected[:REJECTIONS_SHOWN]:
        console.print(Text(f"  rejected {rejection.file}:{rejection.said}", style=WARNING))
    more = report.rejections - REJECTIONS_SHOWN
    if more > 0:
        console.print(Text(f"  and {more:,} more", style=WARNING))
    if report.rejected_file is not None:
        console.print(Text(f"  correct them in {data_dir / report.rejected_file} and ingest it", style=WARNING))


def _show_conflicts(console: Console, report: "IngestReport") -> None:
    conflicts = [question for question in report.repeated_questions if question.answers > 1]
    for question in conflicts[:CONFLICTS_SHOWN]:
        rows = ", ".join(f"{row.file}:{row.line}" for row in question.rows[:3])
        text = f"  {question.answers} answers to {shorten(question.question, 70)!r}: {rows}"
        console.print(Text(text, style=DIM))
    _show_more(console, len(conflicts) - CONFLICTS_SHOWN, DIM)


def _show_clusters(console: Console, changes: "ClusterChanges", *, would: bool) -> None:
    drift = "; ".join(changes.drift.reasons) if changes.drift is not None else ""
    if changes.recommended:
        console.print(Text(f"The pairs have drifted ({drift}): `qaserve fit` clusters them again.", style=WARNING))
    elif changes.reclustered:
        again = "would be clustered again" if would else "were clustered again"
        console.print(f"The pairs {again}{f' ({drift})' if drift else ''}.")
    else:
        kept, joined = ("would be kept", "would join") if would else ("kept", "joined")
        console.print(f"Clusters {kept}: what is new {joined} the nearest.")
    _show_regrouping(console, changes)


def _show_params(console: Console, changes: "ParamChanges") -> None:
    source = "tuned on these pairs" if changes.tuning else "those of the live build" if changes.live else "defaults"
    before = {} if changes.live is None else _listed_params(changes.live)
    shown = [
        f"{name} {value}" if before.get(name, value) == value else f"{name} {before[name]} → {value}"
        for name, value in _listed_params(changes.new).items()
    ]
    console.print(Text(f"Parameters, {source}: {', '.join(shown)}"))


def _listed_params(params: "BuildParams") -> dict[str, str]:
    search = params.search
    final = {"τ'": f"{search.final_temperature:g}"} if search.routing == "question2" else {}
    threshold = "none" if params.threshold is None else f"{params.threshold:.3f}"
    numbers = {
        "λ": params.regularization,
        "ω": search.whitening,
        "τ": search.temperature,
        "N": search.hits,
        "β": search.lexical_weight,
        "θ": search.topic_weight,
        "σ": search.second_share,
    }
    projection = {"projection": search.projection, "share": f"{search.projection_share:g}"}
    return {name: f"{value:g}" for name, value in numbers.items()} | final | projection | {"abstains below": threshold}


def _show_regrouping(console: Console, changes: "Regrouping") -> None:
    if changes.moved:
        console.print(Text(f"  pairs in another cluster: {changes.moved:,}", style=DIM))
    for title, names in (("appeared", changes.appeared), ("vanished", changes.vanished)):
        if names:
            more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
            console.print(Text(f"  {len(names)} {title}: {'; '.join(names[:NAMES_SHOWN])}{more}", style=DIM))
    for title, groups in (("split", changes.split), ("merged", changes.merged)):
        for group in groups[:NAMES_SHOWN]:
            text = f"  {title}: {'; '.join(group.before)} → {'; '.join(group.after)}"
            console.print(Text(text, style=DIM))
        _show_more(console, len(groups) - NAMES_SHOWN, DIM)


def _show_gate(console: Console, gate: "GateReport", *, would: bool) -> None:
    for name, one in (("held-out phrasings that both builds know", gate.held_out), ("golden questions", gate.golden)):
        if one is not None:
            style = None if one.passed else WARNING
            hits = f"Hit@3 {one.live.hit3:.3f} → {one.new.hit3:.3f}"
            console.print(Text(f"MRR {_change(one)}, {hits} over {one.questions:,} {name}", style=style or ""))
            _show_worse(console, one)
    if gate.forced:
        ending = "would make it live" if would else "made it live"
        console.print(Text(f"It finds less than the live build did; --force {ending}.", style=WARNING))
    elif gate.stops:
        console.print(
            Text("It finds less than the live build: the gate would stop it, and the live build would stay.", WARNING)
        )
        console.print(Text("  --force makes it live all the same", style=WARNING))


def _show_worse(console: Console, one: "Comparison") -> None:
    if one.passed:
        return
    for worse in one.worse[:PAIRS_SHOWN]:
        ranks = " → ".join("not found" if rank is None else f"{rank:g}" for rank in (worse.before, worse.after))
        console.print(Text(f"  rank {ranks}: {shorten(worse.question, 70)!r} ({worse.pair_id})", style=DIM))


def _change(one: "Comparison") -> str:
    low, high = one.difference.low, one.difference.high
    return f"{one.live.mrr:.3f} → {one.new.mrr:.3f} ({one.difference.mean:+.3f}, 95% {low:+.3f} … {high:+.3f})"
