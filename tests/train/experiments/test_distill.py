import numpy as np
import pytest

from ingest.readers import Located, find_files, read_files
from qaserve.common.errors import CorpusError
from qaserve.core.metrics import mean_cosine
from qaserve.core.splits import phrasing_split
from qaserve.schemas.ingest import Interval
from qaserve.schemas.params import MAX_HITS, SearchParams
from qaserve.settings import ReadSettings
from train.experiments import distill as distill_experiment
from train.experiments.datasets import Source
from train.experiments.distill import EXPERIMENT, run, steps
from train.experiments.distill_report import DistillRun, StudentResult, TeacherResult
from train.experiments.harness import Report
from train.folds import Examples, make_fold, unit_rows
from train.procrustes import centred_reference
from train.tuning import DEFAULTS, START


@pytest.fixture
def examples(rows, encoded, write_rows):
    return encoded(write_rows(rows([f"thing{number} part{number % 7}" for number in range(20)])))


def fold_of(examples, seed):
    split = phrasing_split(examples.pairs, seed)
    return make_fold(examples.take(split.train), examples.take(split.test), seed)


def test_a_quick_run_fills_a_report_that_needs_nothing_but_its_json(examples):
    told = []
    found = run(Source("fake", examples), seeds=[3, 4], quick=True, advance=told.append)
    assert sum(told) == steps([3, 4], True) == 5
    assert (found.seeds, found.pairs, found.queries) == ((3,), 80, 20)
    assert [(teacher.name, len(teacher.students)) for teacher in found.teachers] == [("proposal", 1), ("ours", 4)]
    report = Report[DistillRun](runs=(found,))
    read = Report[DistillRun].model_validate_json(report.model_dump_json())
    assert EXPERIMENT.tables(read) == EXPERIMENT.tables(report)
    assert EXPERIMENT.findings(read) == EXPERIMENT.findings(report)
    assert {row[-1] for row in EXPERIMENT.tables(report)[0].rows} == {"1"}
    assert EXPERIMENT.name == "distill"


def test_the_same_seed_gives_the_same_figures(examples):
    def figures():
        found = run(Source("fake", examples), seeds=[0], quick=True, advance=lambda _: None)
        students = [student for teacher in found.teachers for student in teacher.students]
        return [student.model_copy(update={"seconds": 0.0}) for student in students]

    assert figures() == figures()


def test_a_teacher_s_figures_are_what_asking_gives(examples):
    found = run(Source("fake", examples), seeds=[1], quick=True, advance=lambda _: None)
    fold = fold_of(examples, 1)
    moved = {
        "proposal": fold.through(SearchParams(temperature=0.1, hits=MAX_HITS), fold.reference_bank).vectors,
        "ours": fold.project(START).vectors,
    }
    for teacher in found.teachers:
        rows = moved[teacher.name]
        assert teacher.mrr == pytest.approx((1 / fold.ranks(fold.cosines(rows))).mean())
        assert teacher.answer_cosine == pytest.approx(mean_cosine(rows, fold.queries.answers))
        search = DEFAULTS.search
        whitened = unit_rows(0.5 * rows + 0.5 * rows @ fold.whitening)
        dense, share = whitened @ fold.candidates.answers.T, search.lexical_weight
        scores = (1 - share) * dense + share * dense.max(axis=1, keepdims=True) * fold.lexical
        assert teacher.product_mrr == pytest.approx((1 / fold.ranks(scores, search.second_share)).mean())


def test_the_proposal_s_teacher_is_question_routing_through_centred_w(examples):
    fold = fold_of(examples, 0)
    powers = np.exp(fold.similarities / 0.1)
    shares = powers / powers.sum(axis=1, keepdims=True)
    expected = np.zeros_like(fold.queries.questions)
    for cluster in range(fold.count):
        members = fold.labels == cluster
        matrix = centred_reference(fold.train.questions[members], fold.train.answers[members])
        expected += shares[:, members].sum(axis=1, keepdims=True) * (fold.queries.questions @ matrix)
    teacher = distill_experiment._teacher("proposal", fold)
    np.testing.assert_allclose(teacher(fold.queries.questions), expected, atol=1e-9)


@pytest.fixture
def in_short(monkeypatch):
    """One epoch instead of many."""
    for name in ("REFERENCE_RECIPE", "OUR_RECIPE", "SLOTS_RECIPE"):
        recipe = getattr(distill_experiment, name).model_copy(update={"epochs": 1})
        monkeypatch.setattr(distill_experiment, name, recipe)


def test_a_large_student_is_compared_with_its_teacher_on_its_own_splits(examples, in_short, monkeypatch):
    monkeypatch.setattr(distill_experiment, "SPLITS_BY_SIZE", ((40_000, 1_000), (70_000, 2)))
    told = []
    found = run(Source("fake", examples), seeds=range(3), quick=False, advance=told.append)
    assert sum(told) == steps(range(3), False) == 36
    proposal, ours = found.teachers
    assert (proposal.splits, ours.splits) == (2, 3)
    assert {student.label: student.splits for student in ours.students} == {
        "slots 64": 3,
        "slots 256": 3,
        "48x1 residual": 3,
        "12x2 residual": 2,
        "6x3 residual": 2,
        "4x4 residual": 1,
        "slots 64, ranking loss": 3,
        "slots 256, ranking loss": 3,
        "48x1 residual, ranking loss": 3,
    }
    for student in ours.students:
        if student.splits == 3:
            assert student.gain.mean == pytest.approx(student.mrr - ours.mrr)
            assert student.product_gain.mean == pytest.approx(student.product_mrr - ours.product_mrr)
    last = ours.students[5]
    alone = run(Source("fake", examples), seeds=[0], quick=False, advance=lambda _: None).teachers[1]
    assert last.name == "4x4 residual"
    assert last.mrr == alone.students[5].mrr
    assert last.gain.mean == pytest.approx(last.mrr - alone.mrr)


def test_what_the_ranking_loss_buys_is_against_the_same_student_without_it(examples):
    found = run(Source("fake", examples), seeds=[0], quick=True, advance=lambda _: None)
    students = {student.label: student for student in found.teachers[1].students}
    for name in ("slots 16", "48x1 residual"):
        assert students[name].loss_gain is None
        bought = students[f"{name}, ranking loss"]
        assert bought.loss_gain.mean == pytest.approx(bought.mrr - students[name].mrr)
        assert bought.train_loss != students[name].train_loss


@pytest.mark.parametrize(
    ("dimension", "names", "splits"),
    [
        (384, ["12x2 plain", "6x3 plain", "4x4 plain", "slots 64", "slots 256", "192x1 residual"], [2, 2, 2, 5, 5, 5]),
        (768, ["12x2 plain", "6x3 plain", "4x4 plain", "slots 64", "slots 256", "192x1 residual"], [1, 1, 1, 5, 5, 2]),
        (50, ["2x2 plain", "2x3 plain", "2x4 plain", "slots 64", "slots 256", "2x1 residual"], [5] * 6),
    ],
)
def test_students_have_heads_that_divide_d_and_few_splits_where_they_are_large(dimension, names, splits):
    plans = distill_experiment._plans(dimension, quick=False)[:6]
    assert [plan.spec.name for plan in plans] == names
    assert [min(5, plan.splits) for plan in plans] == splits


def test_too_few_pairs_say_so(examples):
    with pytest.raises(CorpusError, match="9 questions are too few to train a student"):
        run(Source("fake", examples.take(np.arange(12))), seeds=[0], quick=True, advance=lambda _: None)


def student(name, parameters, cosine, low, high, loss="cosine_mse"):
    gain = Interval(low=low, mean=(low + high) / 2, high=high)
    return StudentResult(
        name=name,
        loss=loss,
        capacity=64,
        parameters=parameters,
        splits=5,
        epochs=20,
        seconds=5,
        train_loss=0.02,
        teacher_cosine=cosine,
        answer_cosine=0.7,
        mrr=0.65 + gain.mean,
        gain=gain,
        product_mrr=0.67 + gain.mean,
        product_gain=gain,
        loss_gain=Interval(low=-0.001, mean=0.004, high=0.009) if loss == "ranking" else None,
    )


def report_of(*students, encoder="minilm"):
    one = DistillRun(
        encoder=encoder,
        dimension=384,
        pairs=1_888,
        seeds=(0, 1),
        queries=552,
        clusters=139,
        dense_numbers=20_496_384,
        bank_numbers=1_083_000,
        teachers=(
            TeacherResult(
                name="proposal",
                splits=2,
                answer_cosine=0.24,
                mrr=0.42,
                product_mrr=0.44,
                students=(student("6x3 plain", 3_847_296, 0.67, -0.2, -0.1),),
            ),
            TeacherResult(name="ours", splits=5, answer_cosine=0.72, mrr=0.65, product_mrr=0.67, students=students),
        ),
    )
    return Report[DistillRun](runs=(one,))


SMALLEST = "held-out cosine 0.98 or more and no difference in MRR to its teacher"


@pytest.mark.parametrize(
    ("students", "named"),
    [
        ([("b", 200, 0.98, -0.01, 0.01), ("a", 100, 0.99, -0.01, 0.01)], "a: 100 parameters, cosine 0.990"),
        ([("b", 200, 0.98, -0.01, 0.01), ("a", 100, 0.979, -0.01, 0.01)], "b: 200 parameters, cosine 0.980"),
        ([("b", 200, 0.98, -0.01, 0.01), ("a", 100, 0.99, -0.02, -0.01)], "b: 200 parameters"),
        ([("b", 200, 0.97, -0.01, 0.01), ("a", 100, 0.99, -0.02, -0.01)], None),
    ],
)
def test_the_smallest_student_that_can_stand_in_is_named(students, named):
    found = EXPERIMENT.findings(report_of(*(student(*values) for values in students)))
    if named is None:
        assert f"minilm: no student of ours has {SMALLEST}." in found
    else:
        assert [s for s in found if s.startswith(f"minilm: the smallest student with {SMALLEST} is {named}")]


def test_findings_say_what_the_figures_say():
    twins = student("slots 64", 49_153, 0.985, -0.004, 0.002), student("192x1 residual", 1_479_552, 0.98, -0.01, 0.0)
    ranked = student("slots 64", 49_153, 0.965, 0.001, 0.009, loss="ranking")
    first, second, *found = EXPERIMENT.findings(report_of(*twins, ranked))
    assert first.startswith("H changes nothing that a student can express")
    assert second.startswith("Answers are ranked by their cosine alone, and for the MRR of the product by topics")
    assert found == [
        (
            "minilm: of the proposal's teacher (MRR 0.420) the most faithful student is 6x3 plain, cosine 0.670 on "
            "held-out questions with 3,847,296 parameters; MRR less the teacher's: -0.150 (-0.200 … -0.100); of "
            "the product: -0.150 (-0.200 … -0.100)."
        ),
        (
            "minilm: of our teacher (MRR 0.650) the most faithful student is slots 64, cosine 0.985 on held-out "
            "questions with 49,153 parameters; MRR less the teacher's: -0.001 (-0.004 … +0.002), no difference; of "
            "the product: -0.001 (-0.004 … +0.002), no difference."
        ),
        (
            f"minilm: the smallest student with {SMALLEST} is slots 64: 49,153 parameters, cosine 0.985, "
            "MRR less the teacher's -0.001 (-0.004 … +0.002)."
        ),
        (
            "minilm: anchored W are 20,496,384 numbers as dense matrices and 1,083,000 exactly at low rank, 19 "
            "times fewer; students smaller than that: slots 64."
        ),
        (
            "minilm: the ranking loss takes slots 64 from cosine 0.985 to 0.965; "
            "MRR +0.004 (-0.001 … +0.009), no difference."
        ),
    ]


def test_a_table_has_a_row_for_each_teacher_and_student():
    table = EXPERIMENT.tables(report_of(student("slots 64", 49_153, 0.985, -0.004, 0.002)))[0]
    assert [row[0] for row in table.rows] == [
        "proposal: teacher",
        "proposal: 6x3 plain",
        "ours: teacher",
        "ours: slots 64",
    ]
    assert {len(row) for row in table.rows} == {len(table.columns)}
    last = dict(zip(table.columns, table.rows[-1], strict=True))
    assert (last["parameters"], last["dense ÷"], last["low-rank ÷"]) == ("49,153", "417.0", "22.0")
    assert (last["MRR"], last["MRR − teacher (95%)"]) == ("0.649", "-0.001 (-0.004 … +0.002)")
    assert (last["MRR of the product"], last["the product − teacher (95%)"]) == ("0.669", "-0.001 (-0.004 … +0.002)")


def test_a_plot_shows_every_student_at_its_size_and_cosine():
    from matplotlib.figure import Figure

    ranked = student("slots 64", 49_153, 0.965, 0.001, 0.009, loss="ranking")
    found = EXPERIMENT.plots(report_of(student("slots 64", 49_153, 0.985, -0.004, 0.002), ranked, encoder="org/model"))
    assert [plot.name for plot in found] == ["cosine-org-model"]
    axes = Figure().add_subplot()
    found[0].draw(axes)
    points = np.concatenate([np.asarray(drawn.get_offsets()) for drawn in axes.collections])
    np.testing.assert_allclose(points, [[3_847_296, 0.33], [49_153, 0.015], [49_153, 0.035]])
    assert {text.get_text() for text in axes.texts} >= {"6x3", "slots 64"}


@pytest.mark.corpus
def test_a_small_student_stands_in_for_the_product_s_teacher(real_corpus):
    pairs = [item.pair for item in read_files(find_files([real_corpus]), ReadSettings()) if isinstance(item, Located)]
    with np.load(real_corpus.parents[1] / "embeddings" / "minilm.npz") as arrays:
        examples = Examples(pairs, arrays["Q"].astype(np.float64), arrays["A"].astype(np.float64))
    fold = fold_of(examples, 0)
    plan = next(
        plan for plan in distill_experiment._plans(384, quick=False) if (plan.teacher, plan.spec.slots) == ("ours", 64)
    )
    teacher = distill_experiment._teacher("ours", fold)
    found, projected = distill_experiment._train(fold, teacher, teacher(fold.queries.questions), plan, seed=0)
    assert found.teacher_cosine == pytest.approx(0.985, abs=0.005)
    assert (1 / fold.ranks(fold.cosines(projected))).mean() == pytest.approx(0.65, abs=0.02)
