"""The experiment behind `qaserve bench finetuning`: the product next to an encoder fine-tuned on the same pairs."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ingest.pairs import TOPIC_TEXT
from qaserve.common.errors import UsageError
from qaserve.common.progress import Advance
from qaserve.core.routing import Floats
from qaserve.core.splits import check_families, phrasing_split
from qaserve.encoders.sentence_transformer import SentenceEncoder
from qaserve.schemas.params import PLAIN_SEARCH, Hyperparameters, SearchParams
from qaserve.schemas.record import Record
from qaserve.settings import FitSettings
from qaserve.store.points import pair_text
from qaserve.store.words import BM25Index
from train.experiments import encoder_finetuning
from train.experiments.datasets import Source
from train.experiments.finetuning_report import (
    COMPARED,
    FINE_TUNED,
    FINE_TUNED_PRODUCT,
    FINE_TUNED_UNPROJECTED,
    FINE_TUNED_WORDS,
    PREFACE,
    RAW_WORDS,
    Cost,
    Costs,
    FinetuningRun,
    findings,
    in_short,
    plots,
    tables,
)
from train.experiments.harness import COSINE, Experiment, Report, Tally, evaluate, mean, part_of, row_cosines
from train.experiments.result_cache import ResultCache
from train.experiments.routing_report import DEFAULT, RAW, TUNED
from train.folds import Examples, Fold, make_fold
from train.tuning import DEFAULTS, tune

QUICK_PAIRS = 24
QUICK_EPOCHS = 1
PARTS = 20
"""Steps of progress of one training, however long it is."""
STEPS_A_SEED = PARTS + 3
PACKAGES = ("torch", "transformers", "sentence-transformers")
"""Whose releases may change the weights."""
TRAINING = "training"
"""Key of what is kept next to the vectors."""
ALONE = Hyperparameters(search=SearchParams().override(PLAIN_SEARCH))
WITH_WORDS = Hyperparameters(search=ALONE.search.override(SearchParams(lexical_weight=SearchParams().lexical_weight)))

Made = TypeVar("Made")


class Seed(NamedTuple):
    """What one seed gives besides its figures."""

    trained_on: int
    queries: int
    losses: tuple[float, ...]
    costs: Costs


def run(source: Source, *, seeds: Sequence[int], quick: bool, advance: Advance) -> FinetuningRun:
    """Fine-tune the encoder on the training side of each seed's phrasing split, and ask what was held out.

    Vectors of the unchanged encoder are those of the source. The product has the hyperparameters of a build that was
    not tuned, or those tuned on the training side with the unchanged encoder. On the fine-tuned encoder it has the
    same: that encoder has seen all questions of the training side, so none could be held out to tune on. A finished
    training is kept in the source's cache, from which a run after an interrupted one takes it.

    Args:
        source: Pairs and vectors, and the encoder that made them.
        seeds: One split, one K-means and one training each.
        quick: The first of the seeds alone, about 25 pairs and one epoch.
        advance: Told as often as `steps` says.

    Raises:
        CorpusError: No phrasing can be held out.
        UsageError: The source has no encoder, or a training package is not installed.
        EncoderError: The encoder cannot be loaded.
        StoreWriteError: A finished training cannot be kept.
    """
    if source.model is None:
        raise UsageError(
            f"fine-tuning needs the encoder {source.encoder} itself; there are only its vectors",
            hint="Set QASERVE_ENCODER to the encoder that made the vectors.",
        )
    examples, seeds = part_of(source.examples, seeds, QUICK_PAIRS, quick=quick)
    epochs = QUICK_EPOCHS if quick else encoder_finetuning.EPOCHS
    check_families(examples.pairs)
    tally = Tally()
    trained = [one_seed(examples, source.model, seed, epochs, tally, source.cache, advance) for seed in seeds]
    return summary(source.encoder, examples, seeds, tally, trained)


def steps(seeds: Sequence[int], quick: bool) -> int:
    """How often `run` will call `advance`, each time with 1."""
    return STEPS_A_SEED * len(seeds[:1] if quick else seeds)


def one_seed(
    examples: Examples,
    model: SentenceEncoder,
    seed: int,
    epochs: int,
    tally: Tally,
    cache: ResultCache | None,
    advance: Advance,
) -> Seed:
    """Measure one seed: its ranks go into the tally, the rest comes back."""
    split = phrasing_split(examples.pairs, seed)
    train, queries = examples.take(split.train), examples.take(split.test)
    fold, fitting = timed(lambda: _fitted(train, queries, seed))
    tally.begin(queries.intents)
    _ask(fold, {RAW: ALONE, RAW_WORDS: WITH_WORDS, DEFAULT: DEFAULTS}, tally)
    advance(1)
    tuning, choosing = timed(lambda: tune(train, FitSettings(regularization=None, seed=seed), lambda _: None))
    product, unprojected = (DEFAULTS, _unprojected(DEFAULTS)) if tuning is None else (tuning.chosen, tuning.unprojected)
    if tuning is not None:
        _ask(fold, {TUNED: product}, tally)
    advance(1)
    tuned = fine_tuned(train, queries, model, seed, epochs, cache, advance)
    asked = {
        FINE_TUNED: ALONE,
        FINE_TUNED_WORDS: WITH_WORDS,
        FINE_TUNED_UNPROJECTED: unprojected,
        FINE_TUNED_PRODUCT: product,
    }
    _ask(_fitted(tuned.train, tuned.queries, seed), asked, tally)
    advance(1)
    took = tuned.training
    costs = Costs(fitting=fitting, choosing=choosing, training=took.training, encoding=took.encoding)
    return Seed(len(train), len(queries), took.losses, costs)


def summary(
    encoder: str, examples: Examples, seeds: Sequence[int], tally: Tally, trained: Sequence[Seed]
) -> FinetuningRun:
    """Means over the seeds, and the differences over all their questions together."""
    return FinetuningRun(
        encoder=encoder,
        dimension=examples.questions.shape[1],
        pairs=len(examples),
        seeds=tuple(seeds),
        epochs=len(trained[0].losses),
        trained_on=mean(one.trained_on for one in trained),
        queries=mean(one.queries for one in trained),
        losses=tuple(np.mean([one.losses for one in trained], axis=0).tolist()),
        costs=_mean_costs([one.costs for one in trained]),
        results=tally.results(RAW),
        differences=tuple(
            difference for method, others in COMPARED.items() for difference in tally.differences(method, others)
        ),
    )


# What is timed


def _fitted(train: Examples, queries: Examples, seed: int) -> Fold:
    """A fold with everything fitted that a build of its training side has."""
    fold = make_fold(train, queries, seed)
    fold.bank(DEFAULTS.regularization)
    _ = fold.whitening
    BM25Index([pair_text(pair) for pair in train.pairs])
    return fold


def _mean_costs(costs: Sequence[Costs]) -> Costs:
    def middle(name: str) -> Cost:
        parts: list[Cost] = [getattr(one, name) for one in costs]
        return Cost(
            cpu_seconds=mean(part.cpu_seconds for part in parts),
            wall_seconds=mean(part.wall_seconds for part in parts),
        )

    return Costs(**{name: middle(name) for name in Costs.model_fields})


# What is asked


def _unprojected(product: Hyperparameters) -> Hyperparameters:
    return product.model_copy(update={"search": product.search.override(SearchParams(projection="none"))})


def _ask(fold: Fold, methods: Mapping[str, Hyperparameters], tally: Tally) -> None:
    """Search with each of these hyperparameters."""
    for method, hyperparameters in methods.items():
        search = hyperparameters.search
        scores = fold.parts(fold.cosines_of(hyperparameters), search).total
        figures = evaluate(scores, fold.candidates.intents, fold.queries.intents, search.second_share)
        if not search.lexical_weight:
            figures[COSINE] = row_cosines(fold.project(hyperparameters).searched, fold.queries.answers)
        tally.add(method, figures)


# Fine-tuning one split


class Training(Record):
    """How an encoder was tuned."""

    losses: tuple[float, ...]
    """Mean of each epoch."""
    training: Cost
    encoding: Cost
    """Of all training answers with the tuned encoder."""


class FineTuned(NamedTuple):
    """The pairs of a split with the vectors of the tuned encoder."""

    train: Examples
    queries: Examples
    training: Training


def fine_tuned(
    train: Examples,
    queries: Examples,
    model: SentenceEncoder,
    seed: int,
    epochs: int,
    cache: ResultCache | None,
    advance: Advance,
) -> FineTuned:
    """Fine-tune an encoder on the training side and encode both sides with it, or take that from the cache.

    Args:
        train: The pairs to train on; their vectors play no part.
        queries: The pairs that are held out.
        model: The encoder; its files stay as they are.
        seed: Of the training.
        epochs: Passes over the training pairs.
        cache: Where a finished training is looked for and kept; None: nowhere.
        advance: Told 1, `PARTS` times.

    Raises:
        UsageError: The training packages are not installed.
        EncoderError: The encoder cannot be loaded.
        StoreWriteError: What should be kept cannot be written.
    """
    sides = (train, queries)
    texts = [texts_of(side, model) for side in sides]
    key = list(_depends_on(model, seed, epochs, texts))
    found = None if cache is None else cache.load(key)
    parts = Parts(advance, encoder_finetuning.steps(len(train), epochs=epochs))
    if found is None:
        (vectors, training), took = timed(lambda: _train(model, seed, epochs, texts, parts))
        if cache is not None:
            cache.save(key, vectors, {TRAINING: training.model_dump_json()}, seconds=took.wall_seconds)
    else:
        vectors, training = found[0], Training.model_validate_json(found[1][TRAINING])
    parts.finish()
    encoded = [
        Examples(side.pairs, *(_floats(vectors[f"{number}.{part}"]) for part in Texts._fields))
        for number, side in enumerate(sides)
    ]
    return FineTuned(encoded[0], encoded[1], training)


def timed(work: Callable[[], Made]) -> tuple[Made, Cost]:
    """What the work gives, and what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    made = work()
    return made, Cost(cpu_seconds=time.process_time() - cpu, wall_seconds=time.perf_counter() - wall)


class Texts(NamedTuple):
    """What is encoded of pairs, (n,) each, with the encoder's prompts."""

    questions: list[str]
    answers: list[str]
    topics: list[str]
    """Empty where a pair has none."""


def texts_of(examples: Examples, model: SentenceEncoder) -> Texts:
    """The texts of pairs."""
    ask, tell = model.identity.question_prompt, model.identity.answer_prompt
    topics = [TOPIC_TEXT.of(pair) for pair in examples.pairs]
    return Texts(
        [ask + pair.question for pair in examples.pairs],
        [tell + pair.answer for pair in examples.pairs],
        [topic and tell + topic for topic in topics],
    )


def _train(
    model: SentenceEncoder, seed: int, epochs: int, sides: Sequence[Texts], advance: Advance
) -> tuple[dict[str, NDArray[np.generic]], Training]:
    with model.borrowed() as loaded:
        folder = loaded.folder
    train = sides[0]
    tuned = encoder_finetuning.fine_tune(
        folder, train.questions, train.answers, epochs=epochs, seed=seed, advance=advance
    )
    answers, encoding = timed(lambda: tuned.encode(train.answers))
    vectors: dict[str, NDArray[np.generic]] = {
        f"{number}.{part}": answers if texts is train.answers else _encoded(tuned, texts)
        for number, side in enumerate(sides)
        for part, texts in side._asdict().items()
    }
    training = Cost(cpu_seconds=tuned.cpu_seconds, wall_seconds=tuned.wall_seconds)
    return vectors, Training(losses=tuned.losses, training=training, encoding=encoding)


def _encoded(tuned: encoder_finetuning.FineTuned, texts: Sequence[str]) -> NDArray[np.float32]:
    """(n, D) rows, each different text encoded once; NaN where it is empty."""
    different = sorted(set(texts))
    rows = tuned.encode(different)[[different.index(text) for text in texts]]
    rows[[not text for text in texts]] = np.nan
    return rows


def _depends_on(model: SentenceEncoder, seed: int, epochs: int, sides: Sequence[Texts]) -> Iterator[str]:
    """All that the tuned vectors depend on."""
    yield model.identity.model_dump_json()
    yield from (f"{package} {metadata.version(package)}" for package in PACKAGES)
    yield json.dumps(
        [seed, epochs, encoder_finetuning.BATCH, encoder_finetuning.LEARNING_RATE, encoder_finetuning.WARM_UP]
    )
    yield json.dumps(sides)


def _floats(vectors: NDArray[np.generic]) -> Floats:
    return np.asarray(vectors, dtype=np.float64)


class Parts:
    """Progress of a training in `PARTS` steps, whatever its own number of steps."""

    def __init__(self, advance: Advance, total: int) -> None:
        """`total`: the training's own steps, about."""
        self._advance, self._total = advance, total
        self._done, self._told = 0, 0

    def __call__(self, steps: int) -> None:
        """Counts finished training steps."""
        self._done += steps
        self._tell(min(PARTS, PARTS * self._done // self._total))

    def finish(self) -> None:
        """Tell what is still to tell."""
        self._tell(PARTS)

    def _tell(self, parts: int) -> None:
        for _ in range(parts - self._told):
            self._advance(1)
        self._told = max(self._told, parts)


EXPERIMENT = Experiment(
    "finetuning",
    "The product beside a fine-tuned encoder",
    Report[FinetuningRun],
    tables,
    findings,
    plots,
    (PREFACE,),
    summary_of=in_short,
)
