"""The gate: a build to be is measured beside the live one before it is written, on the same questions in the same run.

Held-out phrasings: of every answer family of three or more pairs that both builds hold, one question is taken away from
both and asked of both, each with its own clusters and numbers. Ranks are counted among the answers that both builds
hold: a corpus that grows gives every answer more rivals, and that is no fault of the build. The ranks among all
answers are reported beside. Golden questions, which people said must find a pair, are ranked among all answers.

A build is stopped where the mean reciprocal rank falls by more than the tolerance and the 95% interval of the fall,
by a paired bootstrap over intents, lies wholly below zero: a fall that chance explains stops nothing.

Of a corpus of more than `ingest.evaluation.MAX_PAIRS` pairs a sample is asked and searched: whole intents, and all
that a golden question wants.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ingest.clusters import Clusters
from ingest.corpus import Choice, Corpus, LiveBuild
from ingest.evaluation import (
    Asked,
    EvaluatedBuild,
    ask_golden,
    ask_rest,
    golden_rows,
    limited,
    live_side,
    sample,
    side_of,
    still_found,
)
from ingest.golden import Golden
from qaserve.common.errors import QualityError
from qaserve.common.progress import Advance
from qaserve.common.text import shorten
from qaserve.core.metrics import paired_bootstrap, summarize
from qaserve.core.splits import phrasing_split
from qaserve.schemas.ingest import Comparison, Figures, GateReport, RankChange

SPLITS = 2
"""Phrasings held out of every family, one after the other."""
MIN_INTENTS = 10
"""With fewer intents among its questions an interval promises too much, and nothing is judged."""
WORSE_KEPT = 20
WORSE_SAID = 3


@dataclass(frozen=True)
class Measured:
    """What is known of a build before it is written."""

    metrics: dict[str, float]
    """For its manifest: these depend on the build and the golden set alone, not on the build before it."""
    gate: GateReport | None


def measure(
    corpus: Corpus,
    clusters: Clusters,
    choice: Choice,
    live: LiveBuild | None,
    golden: Golden | None,
    *,
    seed: int,
    tolerance: float,
    force: bool,
    advance: Advance,
) -> Measured:
    """Measure a build to be, alone and beside the live one.

    Args:
        corpus: Its pairs.
        clusters: Its clusters.
        choice: Its numbers.
        live: The build before it.
        golden: Questions that people said must find a pair.
        seed: Of the splits.
        tolerance: So much MRR may be lost.
        force: Let it pass whatever it loses.
        advance: Told 1 after each set of questions.
    """
    wanted = frozenset(() if golden is None else chain.from_iterable(golden.accepted))
    new = side_of(corpus, clusters.labels, clusters.count, choice, sample(corpus, seed, wanted))
    metrics = _alone(new, seed, advance)
    found = None if golden is None else golden_rows(new, golden)
    if golden is not None and found:
        metrics |= {f"golden_{name}": value for name, value in _figures(ask_golden(new, golden, found)).items()}
        metrics["golden_questions"] = float(len(found))
    old = None if live is None else live_side(live, seed, wanted)
    if old is None:
        return Measured(metrics, None)
    held_out = _compare_held_out(old, new, seed, tolerance, advance)
    # The live build's questions can only be asked with vectors of its own encoder.
    comparable = golden is not None and live is not None and live.metadata.encoder.comparable(golden.encoder)
    asked = golden if comparable else None
    on_golden = None if asked is None else _compare_golden(old, new, asked, tolerance)
    passed = all(one is None or one.passed for one in (held_out, on_golden))
    gate = GateReport(
        tolerance=tolerance,
        passed=passed,
        forced=force and not passed,
        stops=not passed and not force,
        held_out=held_out,
        golden=on_golden,
    )
    return Measured(metrics, gate)


# Held-out phrasings


def _alone(side: EvaluatedBuild, seed: int, advance: Advance) -> dict[str, float]:
    rows = limited(phrasing_split(side.examples.pairs, seed).test, seed)
    everything = frozenset(side.points)
    rows = rows[still_found(side, rows, everything)]
    if len({side.examples.pairs[row].intent for row in rows}) < MIN_INTENTS:
        return {}
    figures = _figures(ask_rest(side, rows, everything))
    advance(1)
    return {f"held_out_{name}": value for name, value in figures.items()} | {"held_out_questions": float(len(rows))}


def _compare_held_out(
    old: EvaluatedBuild, new: EvaluatedBuild, seed: int, tolerance: float, advance: Advance
) -> Comparison | None:
    common = frozenset(old.points) & frozenset(new.points)
    positions = [{point: row for row, point in enumerate(side.points)} for side in (old, new)]
    shared = [point for point in old.points if point in common]
    asked: list[str] = []
    went: list[list[Asked]] = [[], []]
    for number in range(SPLITS):
        pairs = [old.examples.pairs[positions[0][point]] for point in shared]
        drawn = limited(phrasing_split(pairs, seed + number).test, seed)
        rows = [np.array([where[shared[row]] for row in drawn], dtype=np.int64) for where in positions]
        kept = still_found(old, rows[0], common) & still_found(new, rows[1], common)
        if not kept.any():
            return None
        for side, found, outcome in zip((old, new), rows, went, strict=True):
            outcome.append(ask_rest(side, found[kept], common))
            advance(1)
        asked += [shared[row] for row in drawn[kept]]
    first, second = (_joined(outcome) for outcome in went)
    return _compared(old, asked, first, second, tolerance)


def _joined(asked: Sequence[Asked]) -> Asked:
    abstained = [one.abstained for one in asked if one.abstained is not None]
    return Asked(
        np.concatenate([one.ranks for one in asked]),
        np.concatenate([one.ranks_among_all for one in asked]),
        np.concatenate(abstained) if abstained else None,
    )


# Golden questions


def _compare_golden(old: EvaluatedBuild, new: EvaluatedBuild, golden: Golden, tolerance: float) -> Comparison | None:
    in_old, in_new = golden_rows(old, golden), golden_rows(new, golden)
    both = {number: there.keys() & in_new.get(number, {}).keys() for number, there in in_old.items()}
    both = {number: pair_ids for number, pair_ids in both.items() if pair_ids}
    if not both:
        return None
    first, second = (
        ask_golden(side, golden, {number: {one: rows[number][one] for one in both[number]} for number in both})
        for side, rows in ((old, in_old), (new, in_new))
    )
    points = [old.points[min(in_old[number][one] for one in both[number])] for number in both]
    texts = [golden.questions[number] for number in both]
    return _compared(old, points, first, second, tolerance, texts)


# Comparing


def _figures(asked: Asked) -> dict[str, float]:
    summary = summarize(asked.ranks)
    figures = {name: round(summary[name], 4) for name in ("mrr", "hit3")}
    return figures if asked.abstained is None else figures | {"abstained": round(float(asked.abstained.mean()), 4)}


def _compared(
    old: EvaluatedBuild,
    points: Sequence[str],
    before: Asked,
    after: Asked,
    tolerance: float,
    texts: Sequence[str] | None = None,
) -> Comparison | None:
    pairs = dict(zip(old.points, old.examples.pairs, strict=True))
    intents = [pairs[point].intent for point in points]
    if len(set(intents)) < MIN_INTENTS:
        return None
    gains = 1 / after.ranks - 1 / before.ranks
    difference = paired_bootstrap(1 / after.ranks, 1 / before.ranks, intents)
    order = np.argsort(gains, kind="stable").tolist()
    worst = [row for row in order[:WORSE_KEPT] if gains[row] < 0]
    best = [row for row in order[: -WORSE_KEPT - 1 : -1] if gains[row] > 0]

    def told(rows: list[int]) -> tuple[RankChange, ...]:
        return tuple(
            RankChange(
                id=points[row],
                pair_id=pairs[points[row]].pair_id,
                question=shorten(pairs[points[row]].question if texts is None else texts[row], 200),
                before=_rank(before.ranks[row]),
                after=_rank(after.ranks[row]),
            )
            for row in rows
        )

    figures = [
        Figures(**_figures(asked), mrr_among_all=round(float((1 / asked.ranks_among_all).mean()), 4))
        for asked in (before, after)
    ]
    return Comparison(
        questions=len(points),
        live=figures[0],
        new=figures[1],
        difference=difference,
        passed=not (difference.mean < -tolerance and difference.high < 0),
        worse=told(worst),
        better=told(best),
    )


def _rank(rank: float) -> float | None:
    return None if np.isinf(rank) else float(rank)


def stopped(gate: GateReport) -> QualityError:
    """What is said of a build that the gate stops: how much it loses, and on which questions."""
    said: list[str] = []
    worse: list[RankChange] = []
    for name, one in (("held-out phrasings", gate.held_out), ("golden questions", gate.golden)):
        if one is not None and not one.passed:
            low, high = one.difference.low, one.difference.high
            said.append(
                f"MRR {one.live.mrr:.3f} → {one.new.mrr:.3f} over {one.questions:,} {name} "
                f"(95% interval of the change {low:+.3f} … {high:+.3f})"
            )
            worse += one.worse[:WORSE_SAID]
    examples = "; ".join(
        f"{shorten(one.question, 80)!r} ({one.pair_id}): rank {_said(one.before)} → {_said(one.after)}" for one in worse
    )
    return QualityError(
        f"the new build finds less than the live one, which stays: {'; '.join(said)}. Worse: {examples}",
        hint="A dry run lists what changes. `force` (`--force`) makes it live all the same; "
        f"QASERVE_GATE_TOLERANCE ({gate.tolerance:g}) is the loss that is accepted.",
    )


def _said(rank: float | None) -> str:
    return "not found" if rank is None else f"{rank:g}"
