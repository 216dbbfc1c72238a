import sys

import numpy as np
import pytest

from qaserve.common.errors import CorpusError
from qaserve.core.splits import Split, intent_split
from qaserve.schemas.ingest import Interval
from qaserve.settings import ReadSettings
from train.experiments import routing as experiment
from train.experiments import routing_report as reporting
from train.experiments.datasets import Source, from_files
from train.experiments.harness import Difference, Report, Tally, evaluate
from train.experiments.routing import EXPERIMENT, run, steps
from train.experiments.routing_report import DEFAULT, RAW, TUNED, RoutingRun, verdict, with_words
from train.folds import Examples, split_fold
from train.procrustes import centred_reference
from train.tuning import START

# MiniLM, the phrasing split of seed 0: MRR, Hit@3, cosine to the answer.
PUBLISHED = {
    "raw answers": (0.6142, 0.7355, 0.6450),
    "raw questions": (0.5564, 0.6830, None),
    "anchored W, centroid τ=0.1": (0.6420, 0.7826, 0.7147),
    "anchored W, question τ=0.05": (0.6496, 0.7935, 0.7233),
    "per-pair W, τ=0.1": (0.6490, 0.7808, 0.7210),
}
# Outside the span of the few pairs of a cluster, rounding decides what the reference W does: these land within ±0.02.
LOOSE = {
    "reference W, centroid τ=0.1": (0.357, 0.409, 0.194),
    "reference W, question τ=0.1": (0.427, 0.491, 0.251),
}
THINGS = [f"thing{number} part{number % 7}" for number in range(40)]


@pytest.fixture
def examples(rows, encoded, write_rows):
    return encoded(write_rows(rows(THINGS)))


def measure(source, *, quick=False, seeds=(0,)):
    told = []
    found = run(source, seeds=seeds, quick=quick, advance=told.append)
    assert set(told) == {1}
    assert len(told) == steps(seeds, quick)
    return found


def of(found, split="phrasing"):
    (part,) = (part for part in found.splits if part.split == split)
    return {one.method: one for one in part.results}


@pytest.mark.corpus
def test_the_published_figures_come_out_on_one_seed(real_corpus):
    embeddings = real_corpus.parents[1] / "embeddings" / "minilm.npz"
    found = measure(from_files(real_corpus, embeddings, ReadSettings()))
    results = of(found)
    for figures, tolerance in ((PUBLISHED, 5e-4), (LOOSE, 0.02)):
        for method, (mrr, hit3, cosine) in figures.items():
            measured = results[method].metrics
            assert (measured["mrr"], measured["hit3"]) == pytest.approx((mrr, hit3), abs=tolerance), method
            assert cosine is None or measured["cosine"] == pytest.approx(cosine, abs=tolerance), method
    assert found.product == TUNED
    better = {one.reference for one in found.against if one.gain.low > 0}
    assert better >= {RAW, reporting.FUSION, reporting.REFERENCE_CENTROID, reporting.REFERENCE_QUESTION}


def test_every_split_is_asked_and_gains_are_over_raw_answers(examples):
    pytest.importorskip("txtai", reason="the extra `peers` is not installed")
    found = measure(Source("fake", examples), seeds=(0, 1))
    assert [part.split for part in found.splits] == ["phrasing", "intent", "random"]
    assert [(part.queries, part.searched) for part in found.splits] == [(40, 120), (32, 160), (16, 160)]
    for part in found.splits:
        assert [one.method for one in part.results if one.gain is None] == [RAW]
    alone = set(of(found)) - set(of(found, "intent"))
    peers = {reporting.TXTAI, reporting.TXTAI_HYBRID_ANSWERS}
    assert alone == {*experiment.REFERENCE_METHODS, *peers, reporting.TUNED_PHRASINGS}
    tuned = {TUNED, reporting.UNPROJECTED, reporting.PLAIN_WORDS}
    assert set(of(found, "intent")) - set(of(found, "random")) == tuned
    assert (len(found.chosen), len(found.chosen_unknown)) == (2, 2)
    assert {one.reference for one in found.against_unknown} == set(reporting.RIVALS_UNKNOWN)
    assert found.left_out == ()
    assert {one.reference for one in found.against} == set(reporting.RIVALS) - {
        reporting.TXTAI_BOTH,
        reporting.TXTAI_HYBRID,
    }
    assert len(found.hypotheses) == len(reporting.HYPOTHESES)


def test_the_same_seeds_give_the_same_run(examples):
    assert measure(Source("fake", examples)) == measure(Source("fake", examples))


def test_txtai_over_vectors_of_the_answers_is_raw_answers(examples):
    pytest.importorskip("txtai", reason="the extra `peers` is not installed")
    results = of(measure(Source("fake", examples)))
    assert results[reporting.TXTAI].metrics["mrr"] == pytest.approx(results[RAW].metrics["mrr"])


def test_with_the_encoder_txtai_gets_question_and_answer_as_one_text(examples, encoder):
    pytest.importorskip("txtai", reason="the extra `peers` is not installed")
    found = measure(Source("fake", examples, encoder))
    assert encoder.encoded[-160:] == [f"{pair.question} {pair.answer}" for pair in examples.pairs]
    results = of(found)
    assert {reporting.TXTAI_BOTH, reporting.TXTAI_HYBRID} <= set(results)
    assert reporting.TXTAI_HYBRID_ANSWERS not in results


def test_what_is_not_installed_or_too_small_is_left_out_and_said(examples, monkeypatch):
    monkeypatch.setitem(sys.modules, "txtai", None)
    found = measure(Source("fake", examples.take(np.arange(80))))
    assert found.product == DEFAULT
    assert DEFAULT not in {one.reference for one in found.against}
    assert TUNED not in of(found)
    said = EXPERIMENT.findings(Report[RoutingRun](runs=(found,)))
    assert [sentence for sentence in said if "left out" in sentence] == [
        "fake: left out: tuned hyperparameters: the training side is too small to hold queries out of it.",
        (
            "fake: left out: txtai: the comparison with txtai needs a package that is not installed: txtai; "
            "pip install 'qaserve[peers]'."
        ),
    ]


def test_quick_takes_one_seed_and_few_pairs(examples, monkeypatch):
    monkeypatch.setattr(experiment, "QUICK_PAIRS", 99)
    monkeypatch.setattr(experiment, "QUICK_DIMENSION", 20)
    found = measure(Source("fake", examples), quick=True, seeds=(7, 8))
    assert (found.pairs, found.seeds) == (100, (7,))
    assert not set(experiment.REFERENCE_METHODS) & set(of(found))
    assert "the reference W, dense: a quick run has no time for them at this dimension" in found.left_out
    assert len(found.hypotheses) == 8


def test_pairs_without_phrasings_are_refused(examples):
    with pytest.raises(CorpusError, match="no answer of 2 pairs has 3 phrasings"):
        run(Source("fake", examples.take(np.arange(2))), seeds=(0,), quick=False, advance=lambda _: None)


def test_an_intent_held_out_keeps_its_answers_and_loses_its_questions(examples):
    split = intent_split(examples.pairs, 0)
    fold = split_fold(examples, split, 0, whole=True)
    assert len(fold.train) == len(split.train)
    assert [pair.answer for pair in fold.candidates.pairs] == [pair.answer for pair in examples.pairs]
    for row in split.test:
        assert fold.candidates.pairs[row].question == ""
    for row in split.train:
        assert fold.candidates.pairs[row] == examples.pairs[row]
    assert not evaluate(fold.similarities, fold.train.intents, fold.queries.intents)["mrr"].any()
    assert np.isfinite(fold.ranks(fold.cosines(fold.queries.questions))).all()


def test_no_word_of_an_unknown_question_is_searched(examples):
    """The word `recipe` is in one phrasing of each family and in no answer."""
    asked = np.array([row for row, pair in enumerate(examples.pairs) if "recipe" in pair.question])
    split = Split(np.setdiff1d(np.arange(len(examples)), asked), asked)
    only_recipe = [pair.model_copy(update={"question": "recipe"}) for pair in examples.take(asked).pairs]
    fold = split_fold(examples, split, 0, whole=True)
    alone = Examples(only_recipe, fold.queries.questions, fold.queries.answers)
    assert not type(fold)(fold.train, alone, fold.labels, fold.count, fold.candidates).lexical.any()
    assert type(fold)(fold.train, alone, fold.labels, fold.count, examples).lexical.any()


def test_the_best_question_of_a_cluster_votes_alone(examples):
    fold = split_fold(examples, intent_split(examples.pairs, 1), 1, whole=False)
    powers = np.exp(fold.similarities / 0.05)
    best = np.array([[row[fold.labels == k].max() for k in range(fold.count)] for row in powers])
    weights = best / best.sum(axis=1, keepdims=True)
    bank = fold.bank(1.0)
    expected = [
        sum(weight * (query @ bank[k].dense()) for k, weight in enumerate(row))
        for query, row in zip(fold.queries.questions, weights, strict=True)
    ]
    np.testing.assert_allclose(experiment.METHODS[reporting.BEST_QUESTION](fold), expected, atol=1e-6)


def by_hand(fold, matrices, *, temperature, final=None, top=None, hits=None):
    """Question routing, or by the top mean questions, through these matrices; one query after the other."""
    rows = []
    for query in fold.queries.questions:
        if top is None:
            cosines = fold.train.questions @ query
            chosen = np.argsort(-cosines)[:hits]
            powers = np.exp(cosines[chosen] / temperature)
            weights = np.array([powers[fold.labels[chosen] == k].sum() / powers.sum() for k in range(fold.count)])
        else:
            sums = [fold.train.questions[fold.labels == k].sum(axis=0) for k in range(fold.count)]
            cosines = np.array([query @ one / np.linalg.norm(one) for one in sums])
            powers = np.where(cosines >= np.sort(cosines)[-top], np.exp(cosines / temperature), 0.0)
            weights = powers / powers.sum()
        if final is not None:
            weights = np.exp(weights / final) / np.exp(weights / final).sum()
        rows.append(sum(weight * (query @ matrix) for weight, matrix in zip(weights, matrices, strict=True)))
    return np.stack(rows)


def test_every_method_is_what_its_name_says(examples):
    fold = split_fold(examples, intent_split(examples.pairs, 1), 1, whole=False)
    top = min(10, fold.count)
    anchored, reference = [], []
    for cluster in range(fold.count):
        s, t = fold.train.questions[fold.labels == cluster], fold.train.answers[fold.labels == cluster]
        left, _, right = np.linalg.svd(s.T @ t + START.regularization * np.eye(s.shape[1]))
        anchored.append(left @ right)
        reference.append(centred_reference(s, t))
    expected = {
        reporting.CENTROID: by_hand(fold, anchored, temperature=0.1, top=top),
        reporting.QUESTION_REFERENCE_TEMPERATURE: by_hand(fold, anchored, temperature=0.1),
        reporting.QUESTION: by_hand(fold, anchored, temperature=0.05),
        reporting.QUESTION_HITS: by_hand(fold, anchored, temperature=0.05, hits=32),
        experiment.QUESTION2: by_hand(fold, anchored, temperature=0.05, final=0.1),
        reporting.REFERENCE_CENTROID: by_hand(fold, reference, temperature=0.1, top=top),
        reporting.REFERENCE_QUESTION: by_hand(fold, reference, temperature=0.1),
        experiment.REFERENCE_QUESTION2: by_hand(fold, reference, temperature=0.1, final=0.1),
    }
    methods = experiment.METHODS | experiment.REFERENCE_METHODS
    for name, rows in expected.items():
        np.testing.assert_allclose(methods[name](fold), rows, atol=1e-6, err_msg=name)


def test_words_add_to_what_has_none(examples):
    found = measure(Source("fake", examples))
    none, *more = found.words
    assert (none.weight, none.gain) == (0, Interval(low=0, mean=0, high=0))
    results = of(found)
    assert none.mrr == pytest.approx(results[reporting.QUESTION_HITS].metrics["mrr"])
    for point in more:
        assert point.mrr == pytest.approx(results[with_words(point.weight)].metrics["mrr"])
        assert point.gain.mean == pytest.approx(point.mrr - none.mrr)


@pytest.mark.parametrize(
    ("low", "high", "at_least", "word"),
    [
        (0.06, 0.08, 0.1, "held"),
        (0.01, 0.08, 0.1, "undecided"),
        (0.01, 0.03, 0.1, "did not hold"),
        (-0.03, -0.01, 0.0, "did not hold"),
        (-0.01, 0.2, 0.1, "no difference"),
        (0.01, 0.03, 0.0, "held"),
    ],
)
def test_a_hypothesis_is_judged_by_its_whole_interval(low, high, at_least, word):
    difference = Difference(
        method="m", reference="r", measure="mrr", base=0.5, gain=Interval(low=low, mean=(low + high) / 2, high=high)
    )
    tested = reporting.Tested(claim="c", split="phrasing", at_least=at_least, difference=difference)
    assert word in verdict(tested)


def test_what_is_shown_is_made_from_the_report_alone(examples):
    figure = pytest.importorskip("matplotlib.figure", reason="the extra `bench` is not installed")
    report = Report[RoutingRun](runs=(measure(Source("fake", examples)),))
    again = Report[RoutingRun].model_validate_json(report.model_dump_json())
    assert again == report
    shown = EXPERIMENT.tables(again)
    assert shown == EXPERIMENT.tables(report)
    for table in shown:
        assert {len(row) for row in table.rows} == {len(table.columns)}
    said = EXPERIMENT.findings(again)
    part = report.runs[0].splits[0]
    product, raw = ({one.method: one for one in part.results}[name] for name in (TUNED, "raw answers"))
    figures = f"MRR {product.metrics['mrr']:.3f} and {raw.metrics['mrr']:.3f}"
    assert any("On new phrasings of known intents, qaserve " in one and figures in one for one in said)
    assert sum("routing by questions" in sentence for sentence in said) == 7
    told = EXPERIMENT.headline(again)
    assert [bar.share for bar in told.bars[:1]] == [product.metrics["hit1"]]
    assert {bar.label: bar.share for bar in told.bars}["plain search"] == raw.metrics["hit1"]
    assert f"{product.metrics['hit1']:.0%} of new phrasings" in told.sentence
    gains, words = EXPERIMENT.plots(again)
    axes = figure.Figure().add_subplot()
    words.draw(axes)
    (line,) = axes.lines
    assert line.get_xdata().tolist() == [0, *reporting.LEXICAL_WEIGHTS]
    assert line.get_ydata().tolist() == [point.mrr for point in report.runs[0].words]
    gains.draw(figure.Figure().add_subplot())


def test_there_is_no_headline_where_nothing_was_tuned_or_measured():
    result = reporting.Result(method=DEFAULT, metrics={"hit1": 1.0}, gain=None)
    part = reporting.SplitResults(split="phrasing", queries=1, searched=1, clusters=1, results=(result,))
    assert reporting.headline(RoutingRun.model_construct(splits=(part,))) is None
    assert EXPERIMENT.headline(Report[RoutingRun](runs=())) is None


def test_a_missing_method_is_no_rival():
    assert Tally().differences(DEFAULT, reporting.RIVALS) == ()
