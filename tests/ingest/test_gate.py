import json

import numpy as np
import pytest

from ingest import gate as gates
from ingest.corpus import Corpus
from ingest.evaluation import MAX_ASKED, limited, sample
from ingest.golden import MAX_QUESTIONS, GoldenQuestion, encode_golden, golden_file, read_golden
from ingest.pairs import PairTable
from ingest.pipeline import Ingest
from ingest.refit import refit
from qaserve.builds import bundle as bundles
from qaserve.builds.catalog import list_builds
from qaserve.common.errors import CorpusError, QualityError
from qaserve.schemas.pairs import Pair
from qaserve.settings import ReadSettings
from qaserve.store import BuildRef

MANY = [f"thing{number}" for number in range(24)]


@pytest.fixture
def many(rows):
    return rows(MANY)


@pytest.fixture
def shuffled(many, rng):
    """The same questions with the answers of others."""
    answers = [many[row]["answer"] for row in rng.permutation(len(many))]
    return [row | {"answer": answer} for row, answer in zip(many, answers, strict=True)]


@pytest.fixture
def ingest(edge, encoder, make_builder, tmp_path):
    """Ingest that knows its data folder, where the golden set is."""

    def ingest(paths, fit=None, **options):
        builder = make_builder(edge, encoder, **(fit or {}))
        return Ingest(builder, encoder, ReadSettings(), tmp_path / "data").run(paths, **options)

    return ingest


@pytest.fixture
def golden(tmp_path):
    """Write the golden set of corpus `things`."""

    def write(questions):
        path = golden_file(tmp_path / "data", "things")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"question": q, "pair_id": p}) + "\n" for q, p in questions))
        return path

    return write


def test_a_build_that_finds_clearly_less_does_not_go_live(edge, ingest, write_rows, many, shuffled, tmp_path):
    before = ingest([write_rows(many)])
    with pytest.raises(QualityError, match=r"MRR \d\.\d+ → 0\.\d+ over \d+ held-out phrasings") as stopped:
        ingest([write_rows(shuffled)])
    assert "rank" in stopped.value.message
    assert "--force" in stopped.value.hint
    assert edge.live("things").build == before.build
    assert [found.build for found in edge.builds("things")] == [before.build], "nothing is left of it"
    assert [folder.name for folder in (tmp_path / "models" / "things").glob("[!.]*")] == [before.build]


def test_force_makes_it_live_and_the_report_says_so(edge, ingest, write_rows, many, shuffled):
    ingest([write_rows(many)])
    report = ingest([write_rows(shuffled)], force=True)
    assert edge.live("things").build == report.build
    assert (report.gate.passed, report.gate.forced) == (False, True)
    compared = report.gate.held_out
    assert compared.new.mrr < compared.live.mrr
    assert compared.difference.high < 0
    worst = compared.worse[0]
    assert worst.before == 1
    assert worst.after > 1
    assert worst.pair_id.startswith("thing")
    gains = [1 / (one.after or np.inf) - 1 / one.before for one in compared.worse]
    assert gains == sorted(gains)
    back = ingest([write_rows(many)]).gate.held_out
    assert (back.better[0].before > 1, back.better[0].after) == (True, 1)
    gains = [1 / one.after - 1 / (one.before or np.inf) for one in back.better]
    assert gains == sorted(gains, reverse=True)
    assert gains[-1] > 0


def test_a_loss_within_the_tolerance_passes(edge, ingest, write_rows, many, shuffled):
    ingest([write_rows(many)])
    report = ingest([write_rows(shuffled)], fit={"gate_tolerance": 1.0})
    assert report.gate.passed
    assert not report.gate.forced
    assert report.gate.tolerance == 1.0


def test_a_change_that_loses_nothing_passes_and_its_figures_are_kept(edge, ingest, write_rows, many, rows, tmp_path):
    first = ingest([write_rows(many)])
    assert first.gate is None, "there was nothing to compare with"
    assert first.metrics["held_out_questions"] == 24
    report = ingest([write_rows(rows(["amber"]), "more.jsonl")])
    assert report.gate.passed
    assert report.gate.held_out.questions == 2 * 24
    assert report.gate.held_out.difference.mean >= -report.gate.tolerance
    manifest = bundles.read(tmp_path / "models", BuildRef("things", report.build)).manifest
    assert manifest.metrics == report.metrics
    assert 0 < manifest.metrics["held_out_mrr"] <= 1
    listed = list_builds(edge, tmp_path / "models", "things")
    assert [build.metrics for build in listed] == [report.metrics, first.metrics]


def test_more_rivals_are_no_fault_of_a_build(ingest, write_rows, many, rows):
    ingest([write_rows(many[:48])])
    rivals = [
        row | {"cluster_id": "rival", "pair_id": f"rival{n}", "question": f"other {n}", "original_answer": str(n)}
        for n, row in enumerate(many[:48])
    ]
    report = ingest([write_rows(rivals, "rivals.jsonl")], fit={"drift": "recommend"})
    found = report.gate.held_out
    assert found.new.mrr_among_all < found.live.mrr_among_all - 0.02, "every answer has a double now"
    assert found.passed
    assert found.new.mrr > found.new.mrr_among_all + 0.05


def test_too_few_intents_are_not_judged(edge, ingest, write_rows, rows, rng):
    few = rows(MANY[: gates.MIN_INTENTS - 1])
    ingest([write_rows(few)])
    answers = [few[row]["answer"] for row in rng.permutation(len(few))]
    report = ingest([write_rows([row | {"answer": answer} for row, answer in zip(few, answers, strict=True)])])
    assert report.gate.held_out is None
    assert report.gate.passed
    assert "held_out_mrr" not in report.metrics


def test_builds_with_nothing_in_common_are_not_judged(ingest, write_rows, many, rows):
    ingest([write_rows(many)])
    report = ingest([write_rows(rows([f"other{n}" for n in range(24)]), "other.jsonl")], replace=True)
    assert report.gate.held_out is None
    assert report.gate.passed


def test_abstention_is_measured_where_both_builds_are_calibrated(ingest, write_rows, rows):
    ingest([write_rows(rows([f"thing{n}" for n in range(40)]))])
    report = ingest([write_rows(rows(["amber"]), "more.jsonl")])
    found = report.gate.held_out
    assert 0 <= found.live.abstained <= 1
    assert 0 <= found.new.abstained <= 1
    assert report.metrics["held_out_abstained"] <= 1


def test_a_broken_live_bundle_cannot_be_compared_with(ingest, write_rows, many, rows, tmp_path):
    build = ingest([write_rows(many)]).build
    (bundles.folder_of(tmp_path / "models", BuildRef("things", build)) / bundles.MANIFEST).write_text("{")
    assert ingest([write_rows(rows(["amber"]), "more.jsonl")]).gate is None


def test_a_fit_passes_the_gate_too(edge, encoder, make_builder, ingest, write_rows, many):
    before = ingest([write_rows(many)])
    builder = make_builder(edge, encoder, regularization=3.0)
    asked = [GoldenQuestion(question="a good recipe for thing1", pair_id="thing1_q0")]
    manifest = refit(builder, golden=encode_golden(asked, encoder))
    assert manifest.build != before.build
    assert "gate" in builder.stages
    assert manifest.metrics["golden_mrr"] == 1
    assert manifest.metrics["held_out_questions"] == 24


def test_questions_are_fewer_where_pairs_are_many(rng):
    rows = np.arange(5_000)
    assert len(limited(rows, seed=0)) == MAX_ASKED
    np.testing.assert_array_equal(limited(rows[:10], seed=0), rows[:10])


@pytest.fixture
def large(rng):
    """500 pairs of 120 intents, the first of which is of one pair and the last of more than a sample holds."""
    sizes = [1, *[3] * 118, 145]
    intents = [f"i{number}" for number, size in enumerate(sizes) for _ in range(size)]
    pairs = {
        f"{row:04}": Pair(pair_id=f"p{row}", cluster_id=intent, question=f"q{row}", answer=f"a{row}", source_file="f")
        for row, intent in enumerate(intents)
    }
    rows = rng.normal(size=(len(pairs), 4)).astype(np.float32)
    return Corpus(PairTable.of(pairs), rows, rows, rows, np.ones(len(pairs)))


def test_of_many_pairs_whole_intents_are_drawn_and_what_golden_questions_want(large, monkeypatch):
    np.testing.assert_array_equal(sample(large, 0), np.arange(500))
    monkeypatch.setattr("ingest.evaluation.MAX_PAIRS", 100)
    intents = np.array([pair.cluster_id for pair in large.pairs.values()])
    rows = sample(large, 0, {"p0", "p7"})
    assert 97 < len(rows) <= 100
    drawn = set(intents[rows])
    assert {"i0", intents[7]} < drawn
    assert "i119" not in drawn
    np.testing.assert_array_equal(rows, np.flatnonzero(np.isin(intents, list(drawn))))
    assert set(intents[sample(large, 1)]) != set(intents[sample(large, 0)])


def test_builds_of_much_the_same_pairs_draw_much_the_same_intents(large, monkeypatch):
    monkeypatch.setattr("ingest.evaluation.MAX_PAIRS", 100)
    less = large.take(np.arange(30, 480))
    before, after = (
        {corpus.pairs[list(corpus.pairs)[row]].cluster_id for row in sample(corpus, 0)} for corpus in (large, less)
    )
    assert len(before & after) > 0.8 * len(before)


def test_a_large_corpus_is_measured_by_its_sample(ingest, golden, write_rows, many, shuffled, monkeypatch):
    monkeypatch.setattr("ingest.evaluation.MAX_PAIRS", 60)
    golden([("a good recipe for thing3", "thing3_q0")])
    first = ingest([write_rows(many)])
    assert first.metrics["held_out_questions"] == 15
    assert first.metrics["golden_questions"] == 1
    with pytest.raises(QualityError, match=r"over \d+ held-out phrasings"):
        ingest([write_rows(shuffled)])


# The golden set


def test_golden_questions_stop_a_build_that_no_longer_finds_them(edge, ingest, golden, write_rows, many, shuffled):
    golden([(f"a good recipe for {thing}", f"{thing}_q0") for thing in MANY])
    first = ingest([write_rows(many)])
    assert first.metrics["golden_questions"] == 24
    assert first.metrics["golden_mrr"] > 0.9
    with pytest.raises(QualityError, match="over 24 golden questions"):
        ingest([write_rows(shuffled)])
    assert edge.live("things").build == first.build
    report = ingest([write_rows(shuffled)], force=True)
    assert report.gate.golden.worse[0].question.startswith("a good recipe for")
    assert report.metrics["golden_mrr"] < first.metrics["golden_mrr"]


def test_golden_questions_whose_pair_is_gone_are_left_out(ingest, golden, write_rows, many):
    golden([(f"a good recipe for {thing}", f"{thing}_q0") for thing in [*MANY, "nothing"]])
    ingest([write_rows(many)])
    report = ingest([write_rows(many[4:], "fewer.jsonl")], replace=True)
    assert report.gate.golden.questions == 23
    assert report.metrics["golden_questions"] == 23


def test_golden_questions_of_too_few_intents_are_only_measured(ingest, golden, write_rows, many, shuffled):
    golden([("a good recipe for thing1", "thing1_q0")])
    ingest([write_rows(many)])
    report = ingest([write_rows(shuffled)], fit={"gate_tolerance": 1.0})
    assert report.gate.golden is None
    assert report.metrics["golden_questions"] == 1


def test_any_accepted_pair_of_a_golden_question_will_do(ingest, golden, write_rows, many):
    path = golden([("a good recipe for thing1", "thing2_q0")])
    alone = ingest([write_rows(many)], dry_run=True).metrics["golden_mrr"]
    line = {"question": "a good recipe for thing1", "pair_id": "thing2_q0"}
    path.write_text(json.dumps(line | {"also": ["nothing_q0", "thing1_q0", "thing3_q0"]}))
    assert ingest([write_rows(many)]).metrics["golden_mrr"] == 1 > alone


def test_builds_are_compared_by_the_accepted_pairs_that_both_hold(ingest, golden, write_rows, many):
    path = golden([])
    also = {thing: [f"{MANY[number - 1]}_q0"] for number, thing in enumerate(MANY)}
    lines = [
        {"question": f"a good recipe for {thing}", "pair_id": f"{thing}_q0", "also": also[thing]} for thing in MANY
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ingest([write_rows(many)])
    report = ingest([write_rows(many[4:], "fewer.jsonl")], replace=True)
    assert report.gate.golden.questions == 24, "the question whose own pair is gone has another"
    worst = report.gate.golden.worse[0] if report.gate.golden.worse else None
    assert worst is None or worst.question != "a good recipe for thing0", "its lost pair counts in neither build"


def test_the_last_line_of_a_question_counts_and_other_fields_are_left_alone(golden):
    path = golden([("q", "one"), ("other", "x"), ("q", "two")])
    path.write_text(path.read_text() + '\n{"question": "r", "pair_id": "y", "at": "2030"}\n')
    assert [(one.question, one.pair_id) for one in read_golden(path)] == [("other", "x"), ("q", "two"), ("r", "y")]


def test_the_latest_of_very_many_golden_questions_are_asked(golden):
    path = golden([(f"q{number}", "p") for number in range(MAX_QUESTIONS + 5)])
    found = read_golden(path)
    assert len(found) == MAX_QUESTIONS
    assert found[-1].question == f"q{MAX_QUESTIONS + 4}"


@pytest.mark.parametrize(
    ("line", "said"),
    [('{"question": ""}', "question"), ('{"question": "q"}', "pair_id"), ("{broken", "the line"), ("[]", "the line")],
)
def test_a_bad_golden_line_is_named_before_anything_changes(edge, ingest, golden, write_rows, many, line, said):
    path = golden([("q", "p")])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(CorpusError, match=rf"things.jsonl:2 is not a golden question: {said}"):
        ingest([write_rows(many)])
    assert edge.live_builds() == {}
