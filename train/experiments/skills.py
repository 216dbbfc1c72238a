"""The experiment behind `qaserve bench skills`: which skill is found for a question, by pairs, documents, or both.

For each seed one phrasing of every answer family is held out. A skill is right when the held-out pair names it. The
hyperparameters are tuned on the training side. A skill that no pair names is ranked along with the others in the rows
with documents, where its document stands in for pairs; a second table asks questions about these skills, written for
this experiment from what the documents are about and before anything was measured with them.

How much a document stands in for pairs (`core.skills.STAND_IN`) is chosen on training sides alone: some skills lose
all their pairs, and the questions of these pairs are asked beside further phrasings held out of the training side.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qaserve.common.errors import CorpusError
from qaserve.common.progress import Advance
from qaserve.core.routing import Floats
from qaserve.core.skills import BEST_PAIRS, SECTION_WEIGHT, STAND_IN, skill_scores
from qaserve.core.splits import Split, phrasing_split
from qaserve.schemas.documents import Section
from qaserve.schemas.pairs import Pair, skill_name
from qaserve.schemas.params import Hyperparameters
from qaserve.schemas.record import Record
from qaserve.settings import FitSettings
from train.experiments.datasets import Source
from train.experiments.harness import (
    MRR,
    Experiment,
    Plot,
    Report,
    Result,
    Run,
    Table,
    Tally,
    draw_gains,
    part_of,
    results_table,
    table,
)
from train.folds import Examples, Fold, make_fold, split_fold, unit_rows
from train.tuning import START, hyperparameters_of, tune

QUICK_PAIRS = 500
HIDDEN = 8
"""Skills of a training side that lose their pairs, to choose `STAND_IN` by."""
STAND_INS = (0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1)
RAW, BEST, MEAN = "raw answers, best pair", "best pair", f"mean of the best {BEST_PAIRS} pairs"
PRODUCT = f"{MEAN} and {SECTION_WEIGHT:g} of the best section"
DOCUMENTS_RAW, DOCUMENTS = "best section alone, question as it is", "best section alone, question projected"
UNPAIRED: Mapping[str, tuple[str, ...]] = {
    "context-recovery": (
        "How do I get back commands that I ran in an earlier Claude Code session?",
        "I lost an app specification from last week's conversation, where can I look for it?",
        "Which files hold the history of my previous conversations with the agent?",
        "Can I search my old session logs for a keyword?",
    ),
    "patch_tool_workaround": (
        "apply_patch keeps asking for approval although the file is in the workspace, what now?",
        "How do I edit a file when the patch tool rejects the path?",
        "What is a safe way to replace text in a repository file with a small script?",
        "The tool says that I am writing outside of the project; how do I go on?",
    ),
    "skill_model_registry": (
        "Where are the trained semantic search models stored?",
        "How do I list all models that are registered?",
        "Which federated model should I load to understand the project?",
        "How old is a model, and how do I see the command that trains it again?",
        "Should I run semantic search with an agent or with direct inference?",
    ),
    "skill_pearltrees_harvester": (
        "Where is the data that was harvested from Pearltrees kept?",
        "Why does the RDF export of Pearltrees stop at about 5004 trees?",
        "How do I run the Pearltrees harvester again?",
        "Which script assembles the DAG of Pearltrees folders from all sources?",
    ),
    "skill_scirepl_mcp": (
        "How should Kimi triage warnings in a sciREPL workbook?",
        "Why must I stay in one browser session when I automate sciREPL?",
        "When may I inspect the sciREPL server with a second debugging browser?",
        "What comes first in sciREPL, the rendered cell output or the console?",
    ),
    "skill_scirepl_mcp_claude": (
        "Which tools does the sciREPL MCP server offer to Claude Code?",
        "Can Claude Code use Playwright MCP together with sciREPL?",
        "How do I run all notebook cells of sciREPL from Claude Code?",
        "How do I install a local package in sciREPL from a zip file?",
    ),
}
"""Questions about skills that no pair of the public corpus names."""


class StandIn(Record):
    """What a factor of the document's cosine gives in the place of pairs, on training sides; all seeds together."""

    factor: float
    hidden_mrr: float = Field(description="Questions about skills whose pairs were taken away.")
    hidden_hit3: float
    paired_mrr: float = Field(description="Held-out phrasings about the other skills.")
    paired_hit3: float

    def weighted(self, unpaired: float) -> float:
        """Hit@3 of both, the first with this share."""
        return unpaired * self.hidden_hit3 + (1 - unpaired) * self.paired_hit3


class SkillsRun(Run):
    """What was found with one encoder."""

    pairs: int
    paired: int = Field(description="Skills that a pair names.")
    unpaired: int = Field(description="Skills that are known by their document alone.")
    sections: int
    queries: int = Field(description="Held-out phrasings, all seeds together.")
    results: tuple[Result, ...] = Field(description="Of the held-out phrasings.")
    asked_unpaired: int = Field(description="Questions written about skills without pairs; each seed asks all.")
    results_unpaired: tuple[Result, ...] = Field(description="None where the encoder is not at hand.")
    stand_ins: tuple[StandIn, ...]

    @property
    def chosen(self) -> StandIn:
        """The factor that finds most, each skill counting the same."""
        share = self.unpaired / (self.paired + self.unpaired)
        return max(self.stand_ins, key=lambda one: one.weighted(share))


class Skills(NamedTuple):
    """All skills, and the sections of their documents."""

    names: list[str]
    vectors: Floats
    """(s, D) unit rows."""
    owner: NDArray[np.int64]
    """(s,) skill of each section; -1: its document is about none."""

    def named(self, pairs: Sequence[Pair]) -> NDArray[np.bool_]:
        """(n, S) which skills each pair names."""
        column = {name: number for number, name in enumerate(self.names)}
        found = np.zeros((len(pairs), len(self.names)), dtype=bool)
        for row, pair in enumerate(pairs):
            found[row, [column[skill_name(said)] for said in pair.related_skills]] = True
        return found

    def best_sections(self, vectors: Floats) -> Floats:
        """(m, S) cosine of unit rows (m, D) to each skill's best section; NaN without a document."""
        cosines = vectors @ self.vectors.T
        best = np.full((len(vectors), len(self.names)), np.nan)
        for skill in range(len(self.names)):
            mine = np.flatnonzero(self.owner == skill)
            if mine.size:
                best[:, skill] = cosines[:, mine].max(axis=1)
        return best


class Parts(NamedTuple):
    """Of the queries of a fold."""

    scores: Floats
    """(m, c) of pairs."""
    raw: Floats
    """(m, c) of pairs, by a plain search."""
    named: NDArray[np.bool_]
    """(c, S)."""
    projected: Floats
    """(m, S) cosine to the best section."""
    unprojected: Floats
    """(m, S)."""

    def product(self, stand_in: float = STAND_IN) -> Floats:
        """(m, S) as the product scores skills."""
        counts = self.named.sum(axis=0)
        return skill_scores(self.scores, self.named, counts, self.projected, stand_in=stand_in).total

    def pairs_alone(self, scores: Floats, best: int) -> Floats:
        """(m, S) mean of the best pairs; a skill without pairs is not found."""
        counts = self.named.sum(axis=0)
        found = skill_scores(scores, self.named, counts, np.full_like(self.projected, np.nan), best=best)
        return np.where(counts > 0, found.pairs, -np.inf)


def run(source: Source, *, seeds: Sequence[int], quick: bool, advance: Advance) -> SkillsRun:
    """Find skills for held-out phrasings, once for each seed.

    Args:
        source: Pairs and documents of a build; with its model, questions about skills without pairs are asked too.
        seeds: Each chooses what is held out.
        quick: The first seed, some of the pairs, hyperparameters that are not tuned.
        advance: Told 1 after each step, see `steps`.

    Raises:
        CorpusError: The build has no documents.
    """
    if source.documents is None:
        raise CorpusError(
            "skills are measured with documents, and there are none",
            hint="`qaserve ingest FILE --documents DIR` gives the live build its documents; leave out --embeddings.",
        )
    examples, seeds = part_of(source.examples, seeds, QUICK_PAIRS, quick=quick)
    skills = _skills(examples.pairs, *source.documents)
    counts = skills.named(examples.pairs).sum(axis=0).tolist()
    unpaired = {name for name, count in zip(skills.names, counts, strict=True) if not count}
    written = _written(source, unpaired)
    tally, alone, stand_ins = Tally(), Tally(), list[tuple[Parts, NDArray[np.bool_], str]]()
    for seed in seeds:
        split = phrasing_split(examples.pairs, seed)
        numbers = START if quick else _tuned(examples.take(split.train), seed)
        advance(1)
        fold = split_fold(examples, split, seed)
        parts = _parts(fold, numbers, skills)
        tally.begin(fold.queries.intents)
        right = skills.named(fold.queries.pairs)
        for name, scores in _methods(parts):
            tally.add(name, figures(scores, right))
        advance(1)
        if written is not None:
            _ask_unpaired(fold, written, numbers, skills, alone)
        stand_ins += _hide(examples.take(split.train), seed, numbers, skills)
        advance(1)
    return SkillsRun(
        encoder=source.encoder,
        pairs=len(examples),
        paired=len(skills.names) - len(unpaired),
        unpaired=len(unpaired),
        sections=len(skills.vectors),
        queries=len(tally.pooled(PRODUCT, MRR)),
        results=tally.results(MEAN),
        asked_unpaired=0 if written is None else len(written),
        results_unpaired=alone.results(DOCUMENTS) if alone.methods else (),
        stand_ins=tuple(_stand_in(factor, stand_ins) for factor in STAND_INS),
    )


def steps(seeds: Sequence[int], quick: bool) -> int:
    """How often `run` calls `advance`: tuning, held-out phrasings and the choice of the stand-in, for each seed."""
    return 3 * (1 if quick else len(seeds))


def figures(scores: Floats, right: NDArray[np.bool_]) -> dict[str, Floats]:
    """Reciprocal rank and Hit@k of the first right skill of every query; of equal scores a right one comes first.

    Args:
        scores: (m, S) of skills, higher is better.
        right: (m, S); a query has one or more.
    """
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    ranks = 1 + ((scores > best) & ~right).sum(axis=1)
    found = np.isfinite(best[:, 0])
    hits = {f"hit{k}": (found & (ranks <= k)).astype(float) for k in (1, 3, 5)}
    return {MRR: np.where(found, 1 / ranks, 0.0), **hits}


def _skills(pairs: Sequence[Pair], sections: Sequence[Section], vectors: NDArray[np.float32]) -> Skills:
    owners = [section.skill for section in sections]
    named = {skill_name(said) for pair in pairs for said in pair.related_skills}
    names = sorted({*named, *(owner for owner in owners if owner is not None)})
    column: dict[str | None, int] = {name: number for number, name in enumerate(names)}
    return Skills(names, vectors.astype(np.float64), np.array([column.get(owner, -1) for owner in owners]))


def _tuned(examples: Examples, seed: int) -> Hyperparameters:
    fit = FitSettings(seed=seed)
    return hyperparameters_of(tune(examples, fit, lambda _: None), fit)


def _parts(fold: Fold, numbers: Hyperparameters, skills: Skills) -> Parts:
    projected = fold.project(numbers).searched
    return Parts(
        fold.scores(projected, numbers.search),
        fold.cosines(fold.queries.questions),
        skills.named(fold.candidates.pairs),
        skills.best_sections(unit_rows(projected)),
        skills.best_sections(fold.queries.questions),
    )


def _methods(parts: Parts) -> Iterator[tuple[str, Floats]]:
    yield MEAN, parts.pairs_alone(parts.scores, BEST_PAIRS)
    yield RAW, parts.pairs_alone(parts.raw, 1)
    yield BEST, parts.pairs_alone(parts.scores, 1)
    yield PRODUCT, parts.product()
    yield from _documents(parts)


def _documents(parts: Parts) -> Iterator[tuple[str, Floats]]:
    yield DOCUMENTS_RAW, np.nan_to_num(parts.unprojected, nan=-np.inf)
    yield DOCUMENTS, np.nan_to_num(parts.projected, nan=-np.inf)


# Skills without pairs


def _written(source: Source, unpaired: set[str]) -> Examples | None:
    """The questions about these skills as queries; None where there are none, or the encoder is not at hand."""
    asked = [(name, question) for name, questions in UNPAIRED.items() if name in unpaired for question in questions]
    if source.model is None or not asked:
        return None
    vectors = source.model.encode_questions([question for _, question in asked]).astype(np.float64)
    pairs = [
        Pair(
            pair_id=name,
            cluster_id=name,
            question=question,
            answer=question,
            related_skills=(name,),
            source_file="written",
        )
        for name, question in asked
    ]
    return Examples(pairs, vectors, vectors)


def _ask_unpaired(fold: Fold, written: Examples, numbers: Hyperparameters, skills: Skills, tally: Tally) -> None:
    parts = _parts(Fold(fold.train, written, fold.labels, fold.count, fold.candidates), numbers, skills)
    right = skills.named(written.pairs)
    tally.begin(written.intents)
    for name, scores in (*_documents(parts), (PRODUCT, parts.product())):
        tally.add(name, figures(scores, right))


def _hide(
    train: Examples, seed: int, numbers: Hyperparameters, skills: Skills
) -> Iterator[tuple[Parts, NDArray[np.bool_], str]]:
    """Take the pairs of some skills of a training side away, and ask about these and the other skills."""
    named = skills.named(train.pairs)
    there = np.flatnonzero(named.any(axis=0))
    hidden = np.zeros(len(skills.names), dtype=bool)
    hidden[np.random.default_rng(seed).permutation(there)[:HIDDEN]] = True
    touched = named[:, hidden].any(axis=1)
    rest, only = train.take(np.flatnonzero(~touched)), touched & ~named[:, ~hidden].any(axis=1)
    split: Split = phrasing_split(rest.pairs, seed)
    known = rest.take(split.train)
    for kind, queries in (("hidden", train.take(np.flatnonzero(only))), ("paired", rest.take(split.test))):
        if len(queries):
            parts = _parts(make_fold(known, queries, seed), numbers, skills)
            yield parts, skills.named(queries.pairs), kind


def _stand_in(factor: float, asked: Sequence[tuple[Parts, NDArray[np.bool_], str]]) -> StandIn:
    found: dict[str, float] = {}
    for kind in ("hidden", "paired"):
        measured = [figures(parts.product(factor), right) for parts, right, of in asked if of == kind]
        for measure in (MRR, "hit3"):
            values = np.concatenate([one[measure] for one in measured]) if measured else np.zeros(1)
            found[f"{kind}_{measure}"] = float(values.mean())
    return StandIn(factor=factor, **found)


# What is shown


def tables(run: SkillsRun) -> Iterator[Table]:
    """Held-out phrasings, skills without pairs, and the choice of the stand-in."""
    yield results_table(
        f"{run.encoder}: the right skill for held-out phrasings, {run.queries:,} questions, {run.paired} skills with "
        f"pairs and {run.unpaired} without, {run.sections:,} sections",
        run.results,
    )
    if run.results_unpaired:
        yield results_table(
            f"{run.encoder}: {run.asked_unpaired} questions about the skills that no pair names", run.results_unpaired
        )
    yield table(
        f"{run.encoder}: on training sides, what the best section stands in for where no pair names a skill",
        run.stand_ins,
        {
            "factor": lambda one: f"{one.factor:g}",
            "MRR, pairs taken away": lambda one: f"{one.hidden_mrr:.3f}",
            "Hit@3, pairs taken away": lambda one: f"{one.hidden_hit3:.3f}",
            "MRR, other skills": lambda one: f"{one.paired_mrr:.3f}",
            "Hit@3, other skills": lambda one: f"{one.paired_hit3:.3f}",
        },
    )


def findings(run: SkillsRun) -> Iterator[str]:
    """What came out, with figures."""
    by_name = {one.method: one for one in run.results}
    product, best = by_name[PRODUCT], by_name[BEST]
    yield (
        f"the right skill is among the first three for {product.metrics['hit3']:.1%} of held-out phrasings, with pairs "
        f"and documents; MRR {product.metrics[MRR]:.3f}, by the best pair alone {best.metrics[MRR]:.3f}."
    )
    raw, projected = by_name[DOCUMENTS_RAW].metrics[MRR], by_name[DOCUMENTS].metrics[MRR]
    yield f"by documents alone MRR is {raw:.3f} with the question as it is and {projected:.3f} with it projected."
    if run.results_unpaired:
        alone = {one.method: one for one in run.results_unpaired}[PRODUCT]
        yield (
            f"of {run.asked_unpaired} questions about skills that no pair names, {alone.metrics['hit3']:.1%} find the "
            f"right one among the first three, MRR {alone.metrics[MRR]:.3f}."
        )
    yield (
        f"on training sides a factor of {run.chosen.factor:g} finds most where each skill counts the same; the product "
        f"has {STAND_IN:g}."
    )


def summary(run: SkillsRun) -> Iterator[str]:
    """How often the right skill is near the top."""
    found = next(one for one in run.results if one.method == PRODUCT)
    yield f"The right skill is among the first three for {found.metrics['hit3']:.1%} of new phrasings."


def plots(runs: Sequence[SkillsRun]) -> list[Plot]:
    """What each way of finding a skill gains."""
    return [
        Plot(
            "gains",
            f"MRR of the right skill gained over the {MEAN}",
            lambda axes: draw_gains(axes, {run.encoder: run.results for run in runs}, MEAN),
        )
    ]


EXPERIMENT = Experiment("skills", "Finding the skill", Report[SkillsRun], tables, findings, plots, summary_of=summary)
