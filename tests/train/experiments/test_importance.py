import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import vote
from scipy.stats import norm

from qaserve.common.errors import UsageError
from qaserve.core.routing import normalized_entropy
from qaserve.core.splits import phrasing_split
from qaserve.schemas.ingest import Interval
from qaserve.schemas.params import SearchParams
from train.experiments import importance as experiment
from train.experiments import importance_report as reporting
from train.experiments import reports
from train.experiments.datasets import Source, Weighing
from train.experiments.harness import MRR, PRODUCT_MRR, Report, Tally
from train.experiments.importance import EXPERIMENT, boundary_questions, run, steps
from train.experiments.importance_report import (
    CONTROL,
    ENTROPY,
    MRR_WITHOUT_WORDS,
    TO_ANSWER,
    TO_TEACHER,
    UNIFORM,
    ImportanceRun,
    Result,
    Spread,
)
from train.folds import make_fold, unit_rows
from train.importance.measures import PRIORS, ROUTING_MEASURES
from train.tuning import DEFAULTS, START, ranks_of


@pytest.fixture
def examples(rows, encoded, write_rows):
    return encoded(write_rows(rows([f"thing{number} part{number % 5}" for number in range(30)])))


def measure(source, seeds, quick):
    told = []
    found = run(source, seeds=seeds, quick=quick, advance=told.append)
    assert sum(told) == steps(seeds, quick)
    return found


def test_a_quick_run_compares_what_needs_no_encoder(examples):
    found = measure(Source("fake", examples), [3, 4], quick=True)
    assert found == measure(Source("fake", examples), [3], quick=True)
    assert found.weightings == [*ROUTING_MEASURES, CONTROL]
    assert found.left_out == ("token", "norm", "dropout", "combined")
    assert found.why_left_out == "a quick run takes no measures of the text"
    assert (found.seeds, found.epochs, found.queries, found.pairs) == ((3,), 2, 30, 120)
    check_uniform_is_the_product(found, examples)


def check_uniform_is_the_product(found, examples):
    split = phrasing_split(examples.pairs, 3)
    fold = make_fold(examples.take(split.train), examples.take(split.test), 3)
    everywhere, boundary = (found.result("prior", UNIFORM, queries) for queries in ("all", "boundary"))
    reciprocal = 1 / ranks_of(fold, START)
    chosen = boundary_questions(fold)
    assert everywhere.metrics[MRR] == pytest.approx(reciprocal.mean())
    assert boundary.metrics[MRR] == pytest.approx(reciprocal[chosen].mean())
    assert found.boundary == np.count_nonzero(chosen)
    without = ranks_of(fold, START.model_copy(update={"lexical_weight": 0.0}))
    assert everywhere.metrics[MRR_WITHOUT_WORDS] == pytest.approx((1 / without).mean())
    assert everywhere.metrics[PRODUCT_MRR] == pytest.approx((1 / ranks_of(fold, DEFAULTS)).mean())
    assert everywhere.gains == {}
    assert everywhere.over_entropy is None


def check_differences_are_those_of_the_means(found):
    for one in found.results:
        uniform = found.result(one.use, UNIFORM, one.queries)
        entropy = found.result(one.use, ENTROPY, one.queries)
        for metric, gain in one.gains.items():
            assert gain.mean == pytest.approx(one.metrics[metric] - uniform.metrics[metric], abs=1e-12)
        if one.over_entropy is not None:
            assert one.over_entropy.mean == pytest.approx(one.metrics[MRR] - entropy.metrics[MRR], abs=1e-12)
        assert (TO_TEACHER in one.metrics) == (one.use == "distillation")
    for use in ("prior", "distillation"):  # the weights reach what they should change
        cosines = [found.result(use, name, "all").metrics[TO_ANSWER] for name in (UNIFORM, *found.weightings)]
        assert len(set(cosines)) == len(cosines)


def test_boundary_questions_are_those_torn_between_clusters(examples):
    split = phrasing_split(examples.pairs, 0)
    fold = make_fold(examples.take(split.train), examples.take(split.test), 0)
    entropies = []
    for similar in fold.similarities:
        top = np.argsort(-similar)[: SearchParams().hits]
        _, weights = vote(similar[top], fold.labels[top], fold.count, SearchParams().temperature)
        entropies.append(normalized_entropy(weights))
    found = boundary_questions(fold)
    assert np.count_nonzero(found) == 8  # of 30
    assert np.min(np.array(entropies)[found]) > np.max(np.array(entropies)[~found]) - 1e-12


def test_with_the_encoder_every_measure_is_compared(examples, tiny_encoder):
    found = measure(Source("tiny", examples.take(np.arange(40)), tiny_encoder), [1], quick=False)
    assert found.weightings == [*PRIORS[1:], CONTROL]
    assert found.left_out == ()
    assert found.queries == 10
    assert found.head_perplexity is None  # this one has its own head
    for spread in found.spreads:
        assert 0.5 <= spread.lowest <= 1 <= spread.highest <= 2
        assert (spread.deviation > 0) == (spread.weighting != UNIFORM)
    deviation = {spread.weighting: spread.deviation for spread in found.spreads}
    assert deviation[CONTROL] == pytest.approx(deviation[ENTROPY])
    check_differences_are_those_of_the_means(found)


def test_weights_are_the_prior_of_the_vote_and_the_importance_in_the_loss(examples, rng, monkeypatch):
    """Each by hand: a pair of twice the weight votes twice, and counts twice in the loss."""
    split = phrasing_split(examples.pairs, 0)
    fold = make_fold(examples.take(split.train), examples.take(split.test), 0)
    values, given = rng.uniform(0.5, 2, len(fold.train)), {}

    class Still:
        def project(self, rows):
            return rows

    def watched(inputs, teacher, spec, recipe, **options):
        given.update(options, inputs=inputs, teacher=teacher)
        return SimpleNamespace(student=Still())

    monkeypatch.setattr(experiment, "distill", watched)
    tally = Tally()
    tally.begin(fold.queries.intents)
    search = SearchParams(lexical_weight=0.2, whitening=0.7, second_share=0.3)
    experiment._measure(fold, {"some": values}, search, experiment.SLOTS_RECIPE, [7], tally, lambda _: None)
    np.testing.assert_array_equal(given["importance"], values)
    assert (given["seed"], given["device"]) == (7, "cpu")
    np.testing.assert_array_equal(given["inputs"], fold.train.questions)

    def moved(prior):
        rows = []
        for query in fold.queries.questions:
            cosines = fold.train.questions @ query
            nearest = np.argsort(-cosines)[:32]
            powers = prior[nearest] * np.exp(cosines[nearest] / 0.05)
            votes = [powers[fold.labels[nearest] == k].sum() / powers.sum() for k in range(fold.count)]
            rows.append(sum(w * (query @ fold.bank(START.regularization)[k].dense()) for k, w in enumerate(votes)))
        return np.stack(rows)

    def cosines(rows, targets):
        return (rows * targets).sum(axis=1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(targets, axis=1)

    assert (START.search.temperature, START.search.hits) == (0.05, 32)
    by_prior = tally.pooled("prior: some", TO_ANSWER)
    np.testing.assert_allclose(by_prior, cosines(moved(values), fold.queries.answers), atol=1e-6)
    assert np.abs(by_prior - cosines(moved(1 / values), fold.queries.answers)).max() > 1e-4
    alike = moved(np.ones(len(fold.train)))
    np.testing.assert_allclose(given["teacher"](fold.queries.questions), alike, atol=1e-6)
    by_student = tally.pooled("distillation: some", TO_TEACHER)
    np.testing.assert_allclose(by_student, cosines(fold.queries.questions, alike), atol=1e-6)
    for method, rows in (("prior: some", moved(values)), ("distillation: some", fold.queries.questions)):
        whitened = unit_rows(0.3 * rows + 0.7 * rows @ fold.whitening)
        dense = whitened @ fold.candidates.answers.T
        scores = 0.8 * dense + 0.2 * dense.max(axis=1, keepdims=True) * fold.lexical
        np.testing.assert_allclose(tally.pooled(method, PRODUCT_MRR), 1 / fold.ranks(scores, 0.3))


def test_a_whole_run_without_the_encoder_says_what_is_missing(examples):
    found = measure(Source("fake", examples.take(np.arange(40))), [0, 1], quick=False)
    assert found.left_out == ("token", "norm", "dropout", "combined")
    assert found.queries == 20
    said = EXPERIMENT.findings(Report[ImportanceRun](runs=(found,)))
    assert said[-1] == "fake: Not compared: token, norm, dropout, combined; the encoder was not at hand."
    assert not any("BERT" in sentence for sentence in said)


def made(gains, over_entropy=0.0):
    """A run whose differences in MRR to uniform are known: by use, weighting and queries; 0 where none is given."""

    def interval(mean):
        return Interval(low=mean - 0.01, mean=mean, high=mean + 0.01)

    def result(use, name, queries):
        mean = gains.get((use, name, queries), 0.0)
        metrics = {MRR: 0.6, MRR_WITHOUT_WORDS: 0.5, PRODUCT_MRR: 0.65, TO_ANSWER: 0.7, TO_TEACHER: 0.9}
        return Result(
            use=use,
            weighting=name,
            queries=queries,
            metrics={**metrics, MRR: 0.4} if queries == "boundary" else metrics,
            gains={} if name == UNIFORM else {metric: interval(mean) for metric in metrics},
            over_entropy=None if name in {UNIFORM, ENTROPY} else interval(over_entropy),
        )

    names = [*PRIORS, CONTROL]
    return ImportanceRun(
        encoder="some/fake",
        dimension=4,
        pairs=9,
        seeds=(0,),
        queries=9,
        boundary=3,
        clusters=2,
        regularization=1,
        temperature=0.05,
        hits=32,
        lexical_weight=0.1,
        student="slots 256",
        epochs=20,
        left_out=(),
        why_left_out="",
        spreads=tuple(Spread(weighting=n, lowest=0.5, highest=2, deviation=0.4, with_entropy=0.3) for n in names),
        results=tuple(result(u, n, q) for u in ("prior", "distillation") for n in names for q in ("all", "boundary")),
    )


def test_findings_follow_the_intervals():
    gains = {
        ("prior", "token", "all"): 0.02,
        ("prior", "norm", "all"): -0.03,
        ("prior", CONTROL, "all"): 0.05,
        ("distillation", ENTROPY, "boundary"): 0.04,
    }
    preface, *said = EXPERIMENT.findings(Report[ImportanceRun](runs=(made(gains, over_entropy=-0.02),)))
    assert "with topics, whitening and second pairs too" in preface
    assert said[0] == (
        "some/fake: Counting uncertain pairs more in the routing softmax raises MRR: "
        "held for token +0.0200 (+0.0100 … +0.0300); did not hold (worse) for norm -0.0300 (-0.0400 … -0.0200); "
        "undecided for entropy, fisher-empirical, fisher-expected, dropout, combined (+0.0000 … +0.0000)."
    )
    text = "\n".join(said)
    assert "nearer to its teacher on boundary questions (cosine): held for entropy +0.0400 (+0.0300 … +0.0500)." in text
    assert "than entropy, in the routing softmax (MRR): did not hold (worse) for token -0.0200" in text
    assert "Control, the weights of entropy dealt out at random: MRR +0.0500 (+0.0400 … +0.0600) in the softmax" in text
    assert "routing softmax raises the MRR of the product: held for token +0.0200 (+0.0100 … +0.0300);" in text
    # 7 measures x 2 uses x 2 kinds of question x 5 figures to uniform, and 6 x 2 x 2 to entropy, all of them worse
    assert "Of all 164 differences" in text
    assert ") 10 are above zero and 29 below it with their whole interval; chance alone leaves about 8 so." in text
    # p of 0.02, 0.03 and 0.04 with an error of 0.01 / 1.96: 0.00009, 4e-9 and 4e-15
    assert "Corrected for their number (Holm), 10 stay above and 29 below; only these are called held or worse." in text
    assert "MRR 0.400 on boundary questions and 0.600 on all" in text
    assert "Not compared" not in text
    assert "perplexity" not in text


@pytest.mark.parametrize(
    ("low", "high", "holds", "verdict"),
    [
        (0.001, 0.003, True, "held"),
        (-0.003, -0.001, True, "did not hold (worse)"),
        (-0.0099, 0.0099, False, "the same within ±0.01"),
        (-0.01, 0.005, False, "undecided"),
        (-0.005, 0.01, False, "undecided"),
        (0.001, 0.003, False, "the same within ±0.01"),
        (0.001, 0.03, False, "undecided"),
    ],
)
def test_the_same_is_only_what_lies_wholly_within_the_margin(low, high, holds, verdict):
    assert reporting._verdict(Interval(low=low, mean=(low + high) / 2, high=high), holds=holds) == verdict


def gain_of(mean, error=0.01):
    return Interval(low=mean - 1.96 * error, mean=mean, high=mean + 1.96 * error)


def test_p_is_that_of_a_normal_error_as_wide_as_the_interval():
    for z in (0.0, 0.5, -1.96, 3.0):
        assert reporting.p_value(gain_of(0.01 * z)) == pytest.approx(2 * norm.sf(abs(z)))
    assert reporting.p_value(Interval(low=0.0, mean=0.0, high=0.0)) == 1
    assert reporting.p_value(Interval(low=0.1, mean=0.1, high=0.1)) == 0


def test_a_difference_holds_among_all_by_holms_method():
    """p of the smallest times 4, of the next times 3, and so on, up to the first above 5%."""
    p_values = {"first": 0.01, "second": 0.015, "third": 0.026, "fourth": 0.04}
    found = {name: gain_of(-0.01 * norm.isf(p / 2)) for name, p in p_values.items()}
    assert {name: holds for name, (_, holds) in reporting._among_all(found).items()} == {
        "first": True,
        "second": True,
        "third": False,  # 2 x 0.026
        "fourth": False,  # 0.04 alone would hold
    }
    more = found | {f"another {number}": gain_of(0.0) for number in range(2)}
    assert not any(holds for _, holds in reporting._among_all(more).values())  # 6 x 0.01


def test_an_interval_without_zero_does_not_hold_among_many():
    gains = {("prior", "token", "all"): 0.0105}  # z 2.06, of 164
    _, first, *_ = said = EXPERIMENT.findings(Report[ImportanceRun](runs=(made(gains),)))
    assert "raises MRR: undecided for " in first
    assert "token" in first
    assert "5 are above zero and 0 below it" in "\n".join(said)
    assert "(Holm), 0 stay above and 0 below" in "\n".join(said)


def test_trainings_are_others_and_a_questions_figure_is_their_mean(examples, monkeypatch):
    split = phrasing_split(examples.pairs, 0)
    fold = make_fold(examples.take(split.train), examples.take(split.test), 0)
    values, ones = np.ones(len(fold.train)), np.ones(len(fold.queries))
    asked = []

    def distilled(fold, weights, search, recipe, seed):
        asked.append(seed)
        return {MRR: seed * ones}

    monkeypatch.setattr(experiment, "_distilled", distilled)
    tally = Tally()
    tally.begin(fold.queries.intents)
    recipe = experiment.SLOTS_RECIPE
    experiment._measure(fold, {"some": values}, SearchParams(), recipe, [3, 8, 4], tally, lambda _: None)
    assert asked == [3, 8, 4]
    np.testing.assert_array_equal(tally.pooled("distillation: some", MRR), 5 * ones)


def test_trainings_and_bounds_reach_the_run(examples, monkeypatch):
    seeds, spreads = [], []

    def distilled(fold, weights, search, recipe, seed):
        seeds.append(seed)
        spreads.append((weights.min(), weights.max()))
        names = MRR, MRR_WITHOUT_WORDS, PRODUCT_MRR, TO_ANSWER, TO_TEACHER
        return {name: np.zeros(len(fold.queries)) for name in names}

    monkeypatch.setattr(experiment, "_distilled", distilled)
    weighing = Weighing(bounds=(0.9, 1.2), trainings=2)
    found = measure(Source("fake", examples, weighing=weighing), [3], quick=True)
    assert (found.alpha, found.bounds, found.trainings) == (0.5, (0.9, 1.2), 2)
    assert seeds == [3, 1003] * 5
    assert min(low for low, _ in spreads) == pytest.approx(0.9)
    assert max(high for _, high in spreads) <= 1.2
    assert any(high > 1.05 for _, high in spreads)


def test_alpha_reaches_the_combined_weights(examples):
    """By a token entropy that is all but one pair's."""
    fold = make_fold(examples, examples, 0)
    texts = {"token": np.array([9.0, *(1.0,) * (len(examples) - 1)])}
    some = {alpha: experiment._importances(fold, texts, Weighing(alpha), 0) for alpha in (0.0, 0.5, 1.0)}
    np.testing.assert_allclose(some[1.0]["combined"], some[1.0][ENTROPY])
    np.testing.assert_allclose(some[0.0]["combined"], some[0.0]["token"])
    assert np.ptp([one["combined"] for one in some.values()], axis=0).max() > 0.1


def test_a_fitted_head_is_judged_beside_frequencies_alone():
    fitted = made({}).model_copy(update={"head_perplexity": 81.4, "unigram_perplexity": 264.2})
    said = EXPERIMENT.findings(Report[ImportanceRun](runs=(fitted,)))
    assert said[-1].endswith("a perplexity of 81, their frequencies alone with one of 264.")


def test_a_report_without_the_mrr_of_the_product_is_refused(tmp_path):
    document = json.loads((Path(experiment.__file__).parents[1] / "published" / "importance.json").read_text("utf-8"))
    for one in document["report"]["runs"][0]["results"]:
        del one["metrics"][PRODUCT_MRR]
    (tmp_path / "importance.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UsageError, match="the metrics lack product_mrr") as refused:
        reports.read(tmp_path / "importance.json", EXPERIMENT)
    assert "bench importance" in refused.value.hint


def test_several_trainings_are_told():
    (table, *_) = EXPERIMENT.tables(Report[ImportanceRun](runs=(made({}).model_copy(update={"trainings": 3}),)))
    assert table.title.endswith("some/fake, β 0.1, 1 split, 3 trainings of a student on each")


def test_tables_and_plots_are_made_from_the_report_alone():
    from matplotlib.figure import Figure

    report = Report[ImportanceRun](runs=(made({("distillation", "token", "boundary"): 0.02}),))
    report = EXPERIMENT.report.model_validate_json(report.model_dump_json())
    tables = EXPERIMENT.tables(report)
    assert len(tables) == 5
    for table in tables:
        assert len(table.rows) == len(PRIORS) + 1
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert len(set(table.columns)) == len(table.columns)
    cells = {row[0]: dict(zip(tables[2].columns, row, strict=True)) for row in tables[2].rows}
    assert tables[2].title == "Importance in the distillation loss: MRR, some/fake, β 0.1, 1 split"
    assert cells[UNIFORM]["difference to uniform"] == "–"
    assert cells["token"]["on boundary questions"] == "+0.0200 (+0.0100 … +0.0300)"
    (plot,) = EXPERIMENT.plots(report)
    assert plot.name == "differences-some-fake"
    axes = Figure().subplots()
    plot.draw(axes)
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        f"{name}, {use}" for use in ("prior", "distillation") for name in [*PRIORS[1:], CONTROL]
    ]
    everywhere, boundary = (container.lines[0].get_xdata().tolist() for container in axes.containers)
    assert everywhere == [0.0] * 16
    assert boundary == pytest.approx([0.0] * (8 + 3) + [0.02] + [0.0] * 4)
