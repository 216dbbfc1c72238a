"""Runs and relevance judgements in TREC's format, and their figures by `ir-measures`: so that anyone can check them.

What is ranked are intents, each listed once, by its score. There are three ways to be relevant:

- intent: the intent of the question's own pair;
- skill: every intent that names one of the skills that the question's own pair names; questions of pairs that name
  none are left out;
- graded: the own intent, and for half as much every intent with an answer that another encoder than the one that is
  judged holds to be the same as the question's own (cosine of at least `SAME`).
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from qaserve.common.errors import UsageError
from qaserve.core.routing import Floats
from qaserve.core.scoring import intent_scores
from train.experiments.harness import INSTALL, Table, mean
from train.folds import Examples, Fold

SAME = 0.85
DEPTH = 100
"""Intents of a run, for each question."""
FULL, HALF = 2, 1
"""Gains of the graded judgements; `nDCG@10` is linear in them."""
MEASURES = ("RR", "Success@1", "Success@3", "nDCG@10")
RUN_NAME_CHARS = 80

Qrels = dict[str, dict[str, int]]
Run = dict[str, dict[str, float]]


class Scored(NamedTuple):
    """A method's scores of one fold."""

    method: str
    scores: Floats
    """(m, c), higher is better; -inf is not listed."""
    second_share: float = 0.0


class Judge:
    """What an encoder holds to be the same answer."""

    def __init__(self, encoder: str, examples: Examples) -> None:
        """Remember the vectors that this encoder gives the answers of all pairs."""
        self.encoder = encoder
        self._vectors = {pair.answer: row for pair, row in zip(examples.pairs, examples.answers, strict=True)}

    def cosines(self, queries: Examples, candidates: Examples) -> Floats:
        """(m, c) of the queries' own answers to the candidates'."""
        return np.asarray(self._rows(queries) @ self._rows(candidates).T)

    def _rows(self, examples: Examples) -> NDArray[np.float64]:
        return np.stack([self._vectors[pair.answer] for pair in examples.pairs])


class TrecExport:
    """Writes runs and judgements of one encoder into a folder, and keeps their figures."""

    def __init__(self, folder: Path, encoder: str, judge: Judge | None = None) -> None:
        """Make the folder. Without a judge there are no graded judgements.

        Raises:
            UsageError: ir-measures is not installed.
            OSError: The folder cannot be made.
        """
        try:
            import ir_measures  # noqa: F401, PLC0415 - an extra
        except ImportError as error:
            raise UsageError(f"--trec needs {error.name}, which is not installed", hint=INSTALL) from error
        self.folder, self.encoder, self._judge = folder / quote(encoder, safe=""), encoder, judge
        self.folder.mkdir(parents=True, exist_ok=True)
        self._figures: dict[tuple[str, str, str], list[dict[str, float]]] = defaultdict(list)

    def write(self, split: str, seed: int, fold: Fold, scored: Iterable[Scored]) -> None:
        """Write one fold, into `SPLIT-SEED/`: queries.tsv, qrels.KIND.txt and a run.METHOD.txt for every method."""
        folder = self.folder / f"{split}-{seed}"
        folder.mkdir(exist_ok=True)
        queries = (f"{row}\t{' '.join(pair.question.split())}\n" for row, pair in enumerate(fold.queries.pairs))
        (folder / "queries.tsv").write_text("".join(queries), encoding="utf-8")
        qrels = judgements(fold, self._judge)
        for kind, judged in qrels.items():
            lines = (f"{query} 0 {one} {gain}\n" for query, gains in judged.items() for one, gain in gains.items())
            (folder / f"qrels.{kind}.txt").write_text("".join(lines), encoding="utf-8")
        for one in scored:
            run = run_of(one, fold.candidates.intents)
            _write_run(folder, one.method, run)
            for kind, judged in qrels.items():
                self._figures[split, kind, one.method].append(measured(judged, run))

    @property
    def table(self) -> Table:
        """Every method's figures by every kind of judgement, mean over the seeds."""
        rows = tuple(
            (method, split, kind, *(f"{mean(seed[name] for seed in seeds):.4f}" for name in MEASURES))
            for (split, kind, method), seeds in self._figures.items()
        )
        graded = "no second encoder judged" if self._judge is None else f"graded by {self._judge.encoder}"
        return Table(f"{self.encoder}: {graded}", ("method", "split", "relevant by", *MEASURES), rows)

    def close(self) -> Path:
        """Write `measures.json`; gives its path."""
        path = self.folder / "measures.json"
        found = [
            {"split": split, "relevant": kind, "method": method, "seeds": seeds}
            for (split, kind, method), seeds in self._figures.items()
        ]
        judge = None if self._judge is None else self._judge.encoder
        path.write_text(json.dumps({"encoder": self.encoder, "judge": judge, "figures": found}, indent=1) + "\n")
        return path


def judgements(fold: Fold, judge: Judge | None) -> dict[str, Qrels]:
    """The intents that are relevant to every query, by kind. Raises nothing; a query without any is left out."""
    intents = fold.candidates.intents
    skills: dict[str, set[str]] = defaultdict(set)
    for pair in fold.candidates.pairs:
        for skill in pair.related_skills:
            skills[skill].add(pair.intent)
    own = {str(row): {_name(pair.intent): 1} for row, pair in enumerate(fold.queries.pairs)}
    by_skill = {
        str(row): {_name(one): 1 for one in sorted(set().union(*(skills[skill] for skill in pair.related_skills)))}
        for row, pair in enumerate(fold.queries.pairs)
    }
    found = {"intent": own, "skill": {query: gains for query, gains in by_skill.items() if gains}}
    if judge is not None:
        names, nearest = intent_scores(judge.cosines(fold.queries, fold.candidates), intents)
        found["graded"] = {
            query: {_name(names[column]): HALF for column in np.flatnonzero(nearest[int(query)] >= SAME)}
            | dict.fromkeys(gains, FULL)
            for query, gains in own.items()
        }
    return found


def run_of(scored: Scored, intents: list[str]) -> Run:
    """The best `DEPTH` intents of every query. Their score is `DEPTH` at rank 1 and falls by 1: tools round others.

    Equal scores are in the order of the intents' names, which says nothing about relevance.
    """
    names, best = intent_scores(scored.scores, intents, scored.second_share)
    order = np.argsort(-best, axis=1, kind="stable")[:, :DEPTH]
    return {
        str(query): {
            _name(names[column]): float(DEPTH - place)
            for place, column in enumerate(columns.tolist())
            if best[query, column] > -np.inf
        }
        for query, columns in enumerate(order)
    }


def measured(qrels: Qrels, run: Run) -> dict[str, float]:
    """`MEASURES` by `ir-measures`, over the queries of the judgements."""
    import ir_measures  # noqa: PLC0415 - an extra

    wanted = [ir_measures.parse_measure(name) for name in MEASURES]
    found = ir_measures.calc_aggregate(wanted, qrels, run)
    return {name: round(float(found[one]), 6) for name, one in zip(MEASURES, wanted, strict=True)}


def _write_run(folder: Path, method: str, run: Run) -> None:
    """`QUERY Q0 INTENT RANK SCORE METHOD`, a line for each."""
    tag = quote(method.replace(" ", "_"), safe="")[:RUN_NAME_CHARS]
    lines = (
        f"{query} Q0 {one} {rank} {score:g} {tag}\n"
        for query, ranked in run.items()
        for rank, (one, score) in enumerate(ranked.items(), start=1)
    )
    (folder / f"run.{tag}.txt").write_text("".join(lines), encoding="utf-8")


def _name(intent: str) -> str:
    """An intent as a word: the formats are split at white space."""
    return quote(intent, safe="/:@")
