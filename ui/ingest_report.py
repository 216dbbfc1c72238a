"""What an ingest did, or would do."""

import json
import re
from difflib import SequenceMatcher
from typing import Any

import pandas as pd
import streamlit as st

from qaserve.schemas.ingest import BuildParams, ClusterChanges, Comparison, IngestReport, ParamChanges
from qaserve.schemas.params import Trial, Tuning
from ui import charts, theme
from ui.markdown import literal

COUNTS = (("added", "Added"), ("updated", "Changed"), ("unchanged", "Unchanged"), ("removed", "Removed"))
REPEATS_SHOWN = 50
LISTED = 200
MOVED_SHOWN = 10
CLUSTERS_SHOWN = 20
PIECES = re.compile(r"\s+|\w+|[^\w\s]")


def draw(report: IngestReport) -> None:
    """Draw what an ingest did or, of a dry run, what it would do."""
    _counts(report)
    _documents(report)
    _verdict(report)
    _clusters(report)
    _quality(report)
    _edits(report)
    _listed(report)
    _rejected(report)
    _passed_over(report)
    _conflicts(report)


def draw_planned(report: IngestReport) -> None:
    """Draw what is known before clusters and quality are."""
    _counts(report)
    _edits(report)


def _counts(report: IngestReport) -> None:
    documents = report.documents
    edited = documents is not None and (documents.added or documents.changed or documents.removed)
    if not (report.added or report.updated or report.removed or edited):
        st.info("No changes.", icon=":material/done_all:")
    clusters = "" if report.clusters is None else f" in {theme.counted(report.clusters, 'cluster')}"
    holds = "would hold" if report.dry_run else "holds"
    st.caption(f"The corpus {holds} {theme.counted(report.pairs, 'pair')}{clusters}.")
    if documents is not None and documents.read and not (report.added or report.updated or report.unchanged):
        return  # no pairs were read
    with st.grid(6, min_column_width=120):
        for name, label in COUNTS:
            st.metric(label, f"{getattr(report, name):,}", border=True)
        st.metric("Rejected", f"{report.rejections:,}", border=True, help="Lines that are not valid pairs.")
        st.metric(
            "Conflicts",
            f"{report.conflicts:,}",
            border=True,
            help=f"Questions with different answers. All are kept. Rows that repeat a question: {report.repeats:,}.",
        )


def _documents(report: IngestReport) -> None:
    """What was made of the documents, and which names lead to none."""
    found = report.documents
    if found is None or not (found.documents or found.read or found.rejected):
        return
    changes = ((found.added, "added"), (found.changed, "changed"), (found.removed, "removed"))
    told = ", ".join(f"{len(paths):,} {what}" for paths, what in changes if paths) or "none changed"
    st.caption(f"{theme.counted(found.documents, 'document')}, {theme.counted(found.skills, 'skill')}: {told}.")
    for rows, label, icon in (
        (
            [{"document": path, "change": what} for paths, what in changes for path in paths],
            "Changed documents",
            "description",
        ),
        ([one.model_dump() for one in found.rejected], "Rejected documents", "block"),
        (
            [one.model_dump() for one in found.missing] if found.read else [],
            "Names in pairs that lead to no document",
            "link_off",
        ),
    ):
        if rows:
            with st.expander(f"{label} ({len(rows):,})", icon=f":material/{icon}:"):
                st.dataframe(pd.DataFrame(rows), hide_index=True, height="content" if len(rows) <= 8 else 320)


def _verdict(report: IngestReport) -> None:
    """The result of the quality check."""
    gate = report.gate
    if gate is None:
        return
    if gate.stops:
        st.warning(
            "**The quality check would stop this import.** Known questions would find their answers measurably less "
            "often. The figures are below. You can import the pairs anyway.",
            icon=":material/front_hand:",
        )
    elif gate.forced:
        st.warning("Quality check failed. The import was forced, so the build went live.", icon=":material/warning:")
    elif gate.held_out is not None and report.dry_run:
        st.success("Quality check passed: no measurable loss.", icon=":material/verified:")


def _clusters(report: IngestReport) -> None:
    """What it does to the clusters."""
    changes = report.cluster_changes
    if changes is None:
        return
    would = report.dry_run
    st.markdown("### Clusters: groups of similar answers")
    why = "; ".join(changes.drift.reasons) if changes.drift is not None else ""
    if changes.reclustered:
        said = "would be" if would else "were"
        st.markdown(
            f"The answers {said} clustered again{f', because the pairs changed: {literal(why)}' if why else ''}."
        )
    else:
        st.markdown(
            "The clusters would stay. New pairs would join the nearest cluster."
            if would
            else "The clusters stayed. New pairs joined the nearest cluster."
        )
    if changes.recommended:
        st.caption(
            f"The clusters fit less well than before ({literal(why)}). `qaserve fit` clusters the answers again."
        )
    parts = (
        (changes.moved, "known pair moved to another cluster", "known pairs moved to another cluster"),
        (len(changes.appeared), "new cluster", "new clusters"),
        (len(changes.vanished), "cluster removed", "clusters removed"),
        (len(changes.split), "cluster split", "clusters split"),
        (len(changes.merged), "cluster merged from others", "clusters merged from others"),
    )
    if any(count for count, _, _ in parts):
        st.markdown(" · ".join(f"**{count:,}** {one if count == 1 else many}" for count, one, many in parts if count))
        with st.expander("Which clusters", icon=":material/hub:"):
            st.markdown(_which(changes) or "No cluster was added or removed. Pairs moved between existing clusters.")


def _which(changes: ClusterChanges) -> str:
    lines = [f"- added: {literal(name)}" for name in changes.appeared[:CLUSTERS_SHOWN]]
    lines += [f"- removed: {literal(name)}" for name in changes.vanished[:CLUSTERS_SHOWN]]
    for word, groups in (("splits", changes.split), ("merges", changes.merged)):
        for one in groups[:CLUSTERS_SHOWN]:
            lines.append(f"- {word}: {literal(', '.join(one.before))} → {literal(', '.join(one.after))}")
    return "\n".join(lines)


def _quality(report: IngestReport) -> None:
    """How well questions find their answers, before and after."""
    gate = report.gate
    if report.params is None:
        return
    st.markdown("### Quality: how well questions find their answers")
    asked = [
        (one, name)
        for one, name in (
            (gate.held_out if gate else None, ("known question", "held out and asked of both builds")),
            (gate.golden if gate else None, ("golden question", "with a pair that must be found")),
        )
        if one is not None
    ]
    if not asked:
        st.caption("No comparison: there is no earlier build, or the builds share too few questions.")
    for one, (name, which) in asked:
        _compared(one, name, which, would=report.dry_run)
    _params(report.params)


def _compared(one: Comparison, name: str, which: str, *, would: bool) -> None:
    low, high = one.difference.low, one.difference.high
    st.caption(f"{theme.counted(one.questions, name)}, {which}")
    with st.grid(2, min_column_width=200):
        st.metric(
            "Mean reciprocal rank",
            f"{one.new.mrr:.3f}",
            **_change(round(one.new.mrr - one.live.mrr, 3), "{:+.3f}"),
            border=True,
            help="1: the right answer is always first. ½: it is always second. 95% confidence interval of the change: "
            f"{low:+.3f} to {high:+.3f}.",
        )
        st.metric(
            "Right answer in the first three",
            f"{one.new.hit3:.1%}",
            **_change(round(100 * (one.new.hit3 - one.live.hit3), 1), "{:+.1f} points"),
            border=True,
            help=f"{one.live.hit3:.1%} in the {'live' if would else 'previous'} build.",
        )
    for changed, label, icon in (
        (one.worse, "Questions with a worse rank", "trending_down"),
        (one.better, "Questions with a better rank", "trending_up"),
    ):
        if changed:
            with st.expander(label, icon=f":material/{icon}:"):
                rows = [(row.question, row.before, row.after) for row in changed[:MOVED_SHOWN]]
                frame = pd.DataFrame(rows, columns=["question", "rank before", "rank after"])
                st.dataframe(frame, hide_index=True, height="content")


def _change(change: float, shown: str) -> dict[str, Any]:
    """How a metric says that it changed."""
    if not change:
        return {"delta": "no change", "delta_color": "off", "delta_arrow": "off"}
    return {"delta": f"{shown.format(change)} compared with the previous build"}


def _params(changes: ParamChanges) -> None:
    """The parameters of the build, named as on the Why page."""
    chosen = "tuned on these pairs" if changes.tuning else "unchanged" if changes.live else "defaults"
    with st.expander(f"Parameters: {chosen}", icon=":material/tune:"):
        after = _said(changes.new)
        columns = {"parameter": list(after), **({"before": list(_said(changes.live).values())} if changes.live else {})}
        frame = pd.DataFrame(columns | {"after": list(after.values())})
        st.dataframe(frame, hide_index=True, height="content")
        if changes.tuning is not None:
            _tuning(changes.tuning)


def _tuning(tuning: Tuning) -> None:
    """Everything that was tried, by its quality on both kinds of question."""
    chosen, unprojected, plain = tuning.chosen, tuning.unprojected, tuning.plain
    told = (
        f"Chosen among {len(tuning.curve)} settings by mean reciprocal rank. New phrasings: {chosen.phrasings:.3f}, "
        f"without projection {unprojected.phrasings:.3f}, plain search with words {plain.phrasings:.3f}."
    )
    if chosen.intents is None:
        st.caption(told)
        return
    told += (
        f" Questions with no known phrasing: {chosen.intents:.3f}, without projection {unprojected.intents:.3f}, "
        f"plain search with words {plain.intents:.3f}."
    )
    if chosen.search.projection == "none":
        told += " The projection does not improve search on this corpus, so the build does not use it."
    st.caption(told)
    named = {plain: "plain search with words", unprojected: "best without projection", chosen: "chosen"}
    frame = pd.DataFrame(
        [
            {
                "phrasings": one.phrasings,
                "intents": one.intents,
                "setting": named.get(one, "tried"),
                "what": _short(one),
            }
            for one in sorted(tuning.curve, key=lambda one: one in named)
        ]
    )
    names = ["tried", *named.values()]
    shades = [charts.REST, charts.PALETTE[1], charts.PALETTE[2], charts.PALETTE[0]]
    axis, figures = {"zero": False, "nice": True}, ("phrasings", "intents")
    encoding = {
        "x": charts.number("phrasings", scale=axis, title="new phrasings"),
        "y": charts.number("intents", scale=axis, title="no known phrasing"),
        "color": charts.word("setting", scale={"domain": names, "range": shades}, legend={"orient": "bottom"}),
        "tooltip": [charts.word("what"), *(charts.number(one, format=".3f") for one in figures)],
    }
    points = charts.layer(frame, "point", encoding, filled=True, size=70)
    st.vega_lite_chart(points, width="stretch", alt=told)


def _short(trial: Trial) -> str:
    search = trial.search
    return (
        f"λ {trial.regularization:g}, {search.projection} {search.projection_share:g}, ω {search.whitening:g}, "
        f"τ {search.temperature:g}, N {search.hits}, "
        f"β {search.lexical_weight:g}, θ {search.topic_weight:g}, σ {search.second_share:g}"
    )


def _said(params: BuildParams) -> dict[str, str]:
    search = params.search
    return {
        "λ: regularization of the projections": f"{params.regularization:g}",
        "τ: temperature of the votes": f"{search.temperature:g}",
        "N: known questions that vote": f"{search.hits:,}",
        "projection": f"{search.projection}, share {search.projection_share:g}",
        "ω: whitening of the question": f"{search.whitening:g}",
        "β: weight of the words": f"{search.lexical_weight:g}",
        "θ: weight of the topic": f"{search.topic_weight:g}",
        "σ: share of an intent's second-best pair": f"{search.second_share:g}",
        "abstains below": "never" if params.threshold is None else f"{params.threshold:.0%}",
    }


def _edits(report: IngestReport) -> None:
    if not report.edits:
        return
    with st.expander(theme.counted(report.updated, "changed pair"), icon=":material/difference:", expanded=True):
        for one in report.edits:
            fields = ", ".join(name.replace("_", " ") for name in one.fields)
            st.markdown(f"**{literal(one.question)}** · {fields}")
            if one.before is not None and one.after is not None:
                st.markdown(_difference(one.before, one.after))
        if report.updated > len(report.edits):
            st.caption(f"The first {len(report.edits)} are shown.")


def _difference(before: str, after: str) -> str:
    """Two texts as one: removed text is red and struck out, added text is green."""
    old, new = PIECES.findall(before), PIECES.findall(after)
    pieces = []
    for what, start, end, begin, stop in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        gone, come = "".join(old[start:end]), "".join(new[begin:stop])
        if what == "equal":
            pieces.append(literal(gone) if gone.strip() else "")
        else:
            pieces += [f":red-background[~~{literal(gone)}~~]"] if gone.strip() else []
            pieces += [f":green-background[{literal(come)}]"] if come.strip() else []
    return " ".join(piece for piece in pieces if piece)


def _listed(report: IngestReport) -> None:
    added, removed, fences = report.changes.added, report.changes.removed, report.late_fence_pairs
    fenced = f"{theme.counted(report.late_fences, 'pair')} with a code fence in the middle of a line"
    for pairs, label, icon in (
        (added, theme.counted(len(added), "new pair"), "add_circle"),
        (removed, theme.counted(len(removed), "removed pair"), "remove_circle"),
        (fences, fenced, "code"),
    ):
        if pairs:
            with st.expander(label, icon=f":material/{icon}:"):
                rows = [(one.question, one.pair_id, one.file, one.line) for one in pairs[:LISTED]]
                frame = pd.DataFrame(rows, columns=["question", "pair id", "file", "line"])
                st.dataframe(frame, hide_index=True, height="content" if len(rows) <= 8 else 320)


def _rejected(report: IngestReport) -> None:
    if not report.rejected:
        return
    with st.expander(theme.counted(report.rejections, "rejected line"), icon=":material/block:", expanded=True):
        numbered = any(one.element is not None for one in report.rejected)
        rows = [one.model_dump(exclude=None if numbered else {"element"}) for one in report.rejected]
        st.dataframe(pd.DataFrame(rows), hide_index=True, height="content" if len(rows) <= 8 else 320)
        st.download_button(
            "Download with reasons",
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
            file_name="rejected.jsonl",
            mime="application/x-ndjson",
            icon=":material/download:",
        )


def _passed_over(report: IngestReport) -> None:
    if not report.passed_over:
        return
    count = theme.counted(report.passed_over, "heading")
    with st.expander(f"No pair: {count} without a question mark", icon=":material/title:"):
        st.caption("Their text is in no pair. A heading that ends in a question mark makes one.")
        rows = [one.model_dump() for one in report.passed_over_headings[:LISTED]]
        st.dataframe(pd.DataFrame(rows), hide_index=True, height="content" if len(rows) <= 8 else 320)


def _conflicts(report: IngestReport) -> None:
    if not report.repeated_questions:
        return
    count = theme.counted(len(report.repeated_questions), "question")
    with st.expander(f"Repeated: {count}", icon=":material/repeat:"):
        st.caption("All are kept. Where the answers differ, rephrase one of the questions.")
        for one in report.repeated_questions[:REPEATS_SHOWN]:
            lines = ", ".join(str(row.line) for row in one.rows)
            answers = f"{one.answers} different answers" if one.answers > 1 else "the same answer"
            st.markdown(f"- **{literal(one.question)}**: {answers}, lines {lines}")
