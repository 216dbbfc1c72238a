"""What an experiment runs on, from a build or from files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ingest.pairs import TOPIC_TEXT
from ingest.readers import Located, find_files, read_files
from qaserve.builds.catalog import open_documents
from qaserve.common.errors import CorpusError
from qaserve.schemas.documents import Section
from qaserve.schemas.pairs import Pair
from qaserve.settings import ReadSettings
from qaserve.store import Store
from qaserve.store.points import ANSWER, QUESTION, to_pair_vectors, to_sections
from train.folds import Examples
from train.importance.measures import BOUNDS, COMBINED_SHARE

if TYPE_CHECKING:
    from qaserve.encoders.sentence_transformer import SentenceEncoder
    from train.experiments.result_cache import ResultCache
    from train.experiments.trec import TrecExport

MIN_PAIRS = 30
UNIT_TOLERANCE = 1e-3
"""Vectors of half precision are still of length 1 within this."""


class Weighing(NamedTuple):
    """How an experiment weighs pairs by their importance."""

    alpha: float = COMBINED_SHARE
    """α of `combined`."""
    bounds: tuple[float, float] = BOUNDS
    """Lowest and highest weight."""
    trainings: int = 1
    """How many students of each weighting are trained on a split."""


class Source(NamedTuple):
    """What an experiment runs on: pairs with the vectors of one encoder."""

    encoder: str
    """Its name, as a report has it."""
    examples: Examples
    model: "SentenceEncoder | None" = None
    """The encoder that made the vectors, where it is at hand; its weights are read when they are first needed."""
    cache: "ResultCache | None" = None
    """Where finished parts of a long experiment are kept until the report is made."""
    trec: "TrecExport | None" = None
    """Where runs and judgements are written, by an experiment that can."""
    weighing: Weighing = Weighing()
    """For an experiment that weighs pairs by their importance."""
    students: bool = True
    """Whether an experiment that can do without students trains them."""
    documents: tuple[tuple[Section, ...], NDArray[np.float32]] | None = None
    """Sections of a build's documents and their (s, D) vectors; None: there are none."""


def from_build(store: Store, corpus: str, model: "SentenceEncoder | None" = None) -> Source:
    """The pairs, documents and vectors of the live build.

    Args:
        store: Where the build is.
        corpus: Its corpus.
        model: An encoder that is at hand; it goes along if its vectors are comparable to those of the build.

    Raises:
        NotFoundError: The corpus has no live build.
        CorpusError: It has too few pairs to split.
    """
    build = store.open(store.live(corpus))
    identity = build.metadata.encoder
    rows = [to_pair_vectors(point) for point in build.scroll()]
    check_enough(len(rows))
    examples = Examples(
        [row.stored.pair for row in rows],
        np.stack([row.question for row in rows]).astype(np.float64),
        np.stack([row.answer for row in rows]).astype(np.float64),
        topics_of([row.topic for row in rows], identity.dimension),
    )
    found = open_documents(store, build.metadata)
    return Source(
        identity.id,
        examples,
        model if model is not None and model.identity.comparable(identity) else None,
        documents=None if found is None else to_sections(found.scroll()),
    )


def from_files(corpus: Path, embeddings: Path, read: ReadSettings, model: "SentenceEncoder | None" = None) -> Source:
    """Pairs of a corpus file with vectors made beforehand.

    Args:
        corpus: File or folder of pairs.
        embeddings: npz file with arrays Q and A, or question and answer as an export has them, (n, D) unit rows in the
            order of the pairs; its name without ending is taken as the encoder's.
        read: What a reader accepts.
        model: An encoder that is at hand; it goes along, and makes the topics, if its name and dimension are those of
            the vectors. Without it there are no topics.

    Raises:
        CorpusError: The file is no such file, does not fit the corpus, or the pairs are too few to split.
    """
    pairs = [item.pair for item in read_files(find_files([corpus]), read) if isinstance(item, Located)]
    check_enough(len(pairs))
    examples = _examples(pairs, corpus, embeddings)
    dimension = examples.questions.shape[1]
    if model is None or (model.identity.id, model.identity.dimension) != (embeddings.stem, dimension):
        return Source(embeddings.stem, examples)
    texts = [TOPIC_TEXT.of(pair) for pair in pairs]
    different = sorted(set(texts) - {""})
    vectors = dict(zip(different, model.encode_answers(different) if different else (), strict=True))
    topics = topics_of([vectors.get(text) for text in texts], dimension)
    return Source(embeddings.stem, replace(examples, topics=topics), model)


def topics_of(found: Sequence[NDArray[np.float32] | None], dimension: int) -> NDArray[np.float64] | None:
    """(n, D) topics, NaN rows where there is none; None: there is none at all."""
    if all(one is None for one in found):
        return None
    none = np.full(dimension, np.nan)
    return np.stack([none if one is None else one for one in found]).astype(np.float64)


def check_enough(pairs: int) -> None:
    """Raise CorpusError where there are too few pairs to hold some of them out."""
    if pairs < MIN_PAIRS:
        raise CorpusError(f"{pairs} pairs are too few to split; {MIN_PAIRS} are needed", hint="Ingest more pairs.")


def _examples(pairs: list[Pair], corpus: Path, embeddings: Path) -> Examples:
    questions, answers = _arrays(embeddings)
    if not questions.ndim == answers.ndim == 2 or not len(questions) == len(answers) == len(pairs):
        raise CorpusError(
            f"{embeddings} holds Q {questions.shape} and A {answers.shape}; {corpus} gives {len(pairs)} pairs",
            hint="Both arrays need a row for every pair, in the order of the file.",
        )
    if questions.shape != answers.shape:
        _refuse(embeddings, f"Q has {questions.shape[1]} dimensions and A {answers.shape[1]}")
    for name, rows in (("Q", questions), ("A", answers)):
        lengths = np.linalg.norm(rows, axis=1)
        bad = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))
        if bad.size:
            _refuse(embeddings, f"row {bad[0]} of {name} has length {lengths[bad[0]]:.4g}, not 1")
    return Examples(pairs, questions, answers)


def _refuse(embeddings: Path, reason: str) -> NoReturn:
    raise CorpusError(f"{embeddings}: {reason}", hint="Save the unit vectors of one encoder with numpy.savez.")


def _arrays(embeddings: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        with embeddings.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            names = ("Q", "A") if "Q" in arrays else (QUESTION, ANSWER)
            questions, answers = (arrays[name].astype(np.float64) for name in names)
            return questions, answers
    except (OSError, EOFError, ValueError, LookupError, BadZipFile) as error:
        raise CorpusError(
            f"{embeddings} is not an npz file with arrays Q and A: {error}", hint="Save it with numpy.savez."
        ) from error
