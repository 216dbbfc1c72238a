from types import SimpleNamespace

import numpy as np
import pytest

from ingest.readers import Located, find_files, read_files
from qaserve.common.errors import CorpusError, UsageError
from qaserve.schemas.builds import EncoderIdentity
from qaserve.schemas.ingest import Interval
from qaserve.settings import ReadSettings
from train.experiments import encoder_finetuning
from train.experiments import finetuning as experiment
from train.experiments import finetuning_report as reporting
from train.experiments.datasets import Source
from train.experiments.finetuning import EXPERIMENT, run, steps
from train.experiments.finetuning_report import FinetuningRun
from train.experiments.harness import Difference, Report
from train.experiments.result_cache import ResultCache
from train.folds import Examples

THINGS = [f"thing{number}" for number in range(7)]


@pytest.fixture
def examples(rows, write_rows):
    items = read_files(find_files([write_rows(rows(THINGS))]), ReadSettings())
    pairs = [item.pair for item in items if isinstance(item, Located)]
    vectors = np.random.default_rng(0).normal(size=(2, len(pairs), 16))
    questions, answers = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    return Examples(pairs, questions, answers)


@pytest.fixture
def source(examples, tiny_encoder):
    for name in ("accelerate", "datasets"):
        pytest.importorskip(name, reason="the extra `bench` is not installed")
    return Source(tiny_encoder.identity.id, encoded(examples, tiny_encoder), tiny_encoder)


def encoded(examples, model):
    return Examples(
        examples.pairs,
        model.encode_questions([pair.question for pair in examples.pairs]).astype(np.float64),
        model.encode_answers([pair.answer for pair in examples.pairs]).astype(np.float64),
    )


def measure(source, *, quick=False, seeds=(0,)):
    told = []
    found = run(source, seeds=seeds, quick=quick, advance=told.append)
    assert set(told) == {1}
    assert len(told) == steps(seeds, quick)
    return found


def test_both_are_trained_on_the_same_pairs_and_asked_the_same(source):
    found = measure(source, seeds=(0, 1))
    assert (found.seeds, found.epochs, found.trained_on, found.queries) == ((0, 1), 4, 21, 7)
    assert len(found.losses) == 4
    assert found.losses[-1] < found.losses[0]
    metrics = {one.method: one.metrics for one in found.results}
    assert set(metrics) == {
        experiment.RAW,
        reporting.RAW_WORDS,
        experiment.DEFAULT,
        reporting.FINE_TUNED,
        reporting.FINE_TUNED_WORDS,
        reporting.FINE_TUNED_UNPROJECTED,
        reporting.FINE_TUNED_PRODUCT,
    }
    assert metrics[reporting.FINE_TUNED]["cosine"] != metrics[experiment.RAW]["cosine"]
    for one in found.differences:
        gained = metrics[one.method]["mrr"] - metrics[one.reference]["mrr"]
        assert one.gain.mean == pytest.approx(gained)
    costs = found.costs
    assert min(costs.fitting.cpu_seconds, costs.training.cpu_seconds, costs.encoding.wall_seconds) > 0


def test_quick_takes_one_seed_one_epoch_and_few_pairs(source):
    found = measure(source, quick=True, seeds=(5, 6))
    assert (found.seeds, found.epochs, found.pairs) == ((5,), 1, experiment.QUICK_PAIRS)


def test_an_interrupted_run_goes_on_where_it_stopped(source, tmp_path, monkeypatch):
    train, trained = encoder_finetuning.fine_tune, []

    def interrupted_once(*arguments, seed, **options):
        trained.append(seed)
        if trained == [0, 1]:
            raise KeyboardInterrupt
        return train(*arguments, seed=seed, **options)

    parts, whole = tmp_path / "parts", measure(source, seeds=(0, 1))
    monkeypatch.setattr(encoder_finetuning, "fine_tune", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        run(source._replace(cache=ResultCache(parts)), seeds=(0, 1), quick=False, advance=lambda _: None)
    cache = ResultCache(parts)
    found = measure(source._replace(cache=cache), seeds=(0, 1))
    assert trained == [0, 1, 1]
    assert cache.spared_seconds > 0
    assert found.losses == whole.losses
    assert (found.results, found.differences) == (whole.results, whole.differences)
    cache.clear()
    assert not parts.exists()


def test_a_kept_training_is_of_the_same_texts_seed_and_epochs(source, tmp_path, monkeypatch):
    parts = tmp_path / "parts"
    cache = ResultCache(parts)
    train, queries = source.examples.take(np.arange(6)), source.examples.take(np.arange(6, 12))

    def tune(train=train, queries=queries, seed=0, epochs=1):
        experiment.fine_tuned(train, queries, source.model, seed, epochs, cache, lambda _: None)
        return len(list(parts.iterdir()))

    assert tune() == 1
    assert tune() == 1
    assert tune(seed=1) == 2
    assert tune(epochs=2) == 3
    assert tune(train=queries, queries=train) == 4
    monkeypatch.setattr(encoder_finetuning, "LEARNING_RATE", 1e-3)
    assert tune() == 5


def test_the_tuned_encoder_encodes_topics_too_where_there_are_some(source):
    pairs = list(source.examples.pairs[:6])
    pairs[2] = pairs[2].model_copy(update={"topics": [], "tags": [], "related_skills": []})
    train = Examples(pairs, source.examples.questions[:6], source.examples.answers[:6])
    tuned = experiment.fine_tuned(train, train, source.model, 0, 1, None, lambda _: None)
    for side in (tuned.train, tuned.queries):
        assert np.isnan(side.topics).all(axis=1).tolist() == [number == 2 for number in range(6)]
        assert np.linalg.norm(side.topics[[0, 1, 3, 4, 5]], axis=1) == pytest.approx(1, abs=1e-3)
        assert not np.allclose(side.topics[0], side.answers[0])


def test_vectors_alone_cannot_be_fine_tuned(examples):
    with pytest.raises(UsageError, match="needs the encoder mpnet itself") as missing:
        run(Source("mpnet", examples), seeds=(0,), quick=True, advance=lambda _: None)
    assert missing.value.hint == "Set QASERVE_ENCODER to the encoder that made the vectors."


def test_pairs_without_phrasings_are_refused(examples, tiny_encoder):
    with pytest.raises(CorpusError, match="no answer of 2 pairs has 3 phrasings"):
        run(Source("tiny", examples.take(np.arange(2)), tiny_encoder), seeds=(0,), quick=True, advance=lambda _: None)


@pytest.mark.parametrize("total", [1, 7, 20, 168])
@pytest.mark.parametrize("more", [0, 5])
def test_a_training_of_any_length_is_as_many_steps_of_progress(total, more):
    told = []
    parts = experiment.Parts(told.append, total)
    for _ in range(total + more):
        parts(1)
    parts.finish()
    assert told == [1] * experiment.PARTS
    short = []
    experiment.Parts(short.append, total).finish()
    assert short == [1] * experiment.PARTS


def test_prompts_are_part_of_what_is_trained_on(examples):
    identity = EncoderIdentity(id="x", revision="1", dimension=16, question_prompt="ask: ", answer_prompt="tell: ")
    first = examples.pairs[0].model_copy(update={"topics": [], "tags": [], "related_skills": []})
    second = first.model_copy(update={"topics": ["csv", "files"]})
    two = Examples([first, second], examples.questions[:2], examples.answers[:2])
    questions, answers, topics = experiment.texts_of(two, SimpleNamespace(identity=identity))
    assert questions == [f"ask: {pair.question}" for pair in (first, second)]
    assert answers == [f"tell: {pair.answer}" for pair in (first, second)]
    assert topics == ["", "tell: csv, files"]


def test_what_is_shown_is_made_from_the_report_alone(source):
    figure = pytest.importorskip("matplotlib.figure", reason="the extra `bench` is not installed")
    report = Report[FinetuningRun](runs=(measure(source, quick=True),))
    again = Report[FinetuningRun].model_validate_json(report.model_dump_json())
    assert again == report
    shown = EXPERIMENT.tables(again)
    assert shown == EXPERIMENT.tables(report)
    for table in shown:
        assert {len(row) for row in table.rows} == {len(table.columns)}
    (plot,) = EXPERIMENT.plots(again)
    axes = figure.Figure().add_subplot()
    plot.draw(axes)
    assert experiment.RAW not in [label.get_text() for label in axes.get_yticklabels()]


def test_findings_say_what_the_figures_say(source):
    found = measure(source, quick=True)
    costs = found.costs.model_copy(
        update={
            "fitting": reporting.Cost(cpu_seconds=2, wall_seconds=1),
            "choosing": reporting.Cost(cpu_seconds=8, wall_seconds=4),
            "training": reporting.Cost(cpu_seconds=1500, wall_seconds=800),
        }
    )
    difference = Difference(
        method="a", reference="b", measure="mrr", base=0.6, gain=Interval(low=-0.01, mean=0.02, high=0.05)
    )
    changed = found.model_copy(update={"encoder": "some", "costs": costs, "differences": (difference,)})
    preface, *said = EXPERIMENT.findings(Report[FinetuningRun](runs=(changed,)))
    assert "are the same on the fine-tuned one" in preface
    assert said == [
        "some: a against b: no difference, MRR 0.620 and 0.600, difference +0.020 (-0.010 … +0.050).",
        (
            "some: fine-tuning took 1,500 CPU seconds a split, fitting the product 2.00: 750 times as much; with the "
            "tuning of the product's hyperparameters (8.0 CPU seconds) 150 times as much."
        ),
    ]
