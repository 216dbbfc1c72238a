import re
from dataclasses import replace
from pathlib import Path

import pytest

from qaserve.common.errors import UsageError
from train.experiments import reports, results
from train.experiments.harness import Report
from train.experiments.projection import EXPERIMENT, Cost, Measurement, ProjectionRun
from train.experiments.registry import EXPERIMENTS
from train.experiments.reports import Document, Measured, provenance

ROOT = Path(__file__).parents[3]
PUBLISHED, PAGE = ROOT / "train" / "published", ROOT / "docs" / "results.md"
MAX_PICTURE_BYTES = 60_000


def projection(*, quick=False, encoder="mini|lm", fit_seconds=8.0):
    def cost(seconds, size, asked):
        return Cost(fit_seconds=seconds, bytes=size, question_ms=asked)

    found = Measurement(
        seed=0,
        clusters=10,
        voting=3.5,
        costs={
            "dense": cost(fit_seconds, 40_000_000, 0.3),
            "low rank": cost(0.02, 1_000_000, 0.1),
            "per pair": cost(0, 0, 0.2),
        },
        difference=1e-14,
        stored_difference=1e-8,
    )
    one = ProjectionRun(
        encoder=encoder,
        dimension=64,
        pairs=100,
        asked=100,
        regularization=1.0,
        temperature=0.05,
        hits=32,
        dense_pairs_bytes=1_638_400,
        measurements=(found,),
    )
    origin = provenance("qaserve bench projection --seeds 1", seeds=[0], quick=quick, wall_seconds=130)
    return Measured(EXPERIMENT, Document(provenance=origin, report=Report[ProjectionRun](runs=(one,))))


def test_the_page_is_what_the_committed_reports_say():
    """Made anew by `qaserve bench publish`."""
    found = results.check(PUBLISHED, PAGE)
    assert not found.stale
    assert results.page(results.load(PUBLISHED)) == (PAGE).read_text(encoding="utf-8")


def test_committed_pictures_are_small_and_belong_to_a_report():
    drawn = {name for measured in results.load(PUBLISHED) for name, _ in reports.pictures(measured)}
    there = {path.name: path.stat().st_size for path in (PUBLISHED).glob("*.png")}
    assert set(there) == drawn
    assert max(there.values(), default=0) <= MAX_PICTURE_BYTES


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_listed_experiment_can_be_run(name):
    module = EXPERIMENTS[name].load()
    assert module.EXPERIMENT.name == name
    assert "runs" in module.EXPERIMENT.report.model_fields
    assert 0 < module.steps(range(1), True) <= module.steps(range(3), False)


def test_a_page_of_nothing_says_so(tmp_path):
    assert results.load(tmp_path / "reports") == []
    assert "Nothing has been published yet" in results.page([])


def test_the_page_shows_findings_tables_plots_and_origin(tmp_path):
    measured = projection()
    reports.write(tmp_path / "reports", measured)
    target = tmp_path / "docs" / "results.md"
    assert results.publish(tmp_path / "reports", target) == results.Checked(("projection",), ())
    text = target.read_text()
    report, origin = measured.document.report, measured.document.provenance
    for finding in results.findings(measured):
        assert f"\n- {finding}\n" in text
    for table in EXPERIMENT.tables(report):
        for row in table.rows:
            assert f"\n| {' | '.join(row)} |\n" in text
    assert "**mini|lm: D 64" in text
    assert f"\n    {origin.command}\n" in text
    assert f"on {origin.date}, seeds 0, in 2 min on {origin.machine.cpu}" in text
    assert f"numpy {origin.versions['numpy']}" in text
    links = re.findall(r"!\[(.+)\]\((.+)\)", text)
    assert [alt for alt, _ in links] == [plot.title for plot in EXPERIMENT.plots(report)]
    assert all((target.parent / link).is_file() for _, link in links)


def test_a_report_without_the_proposals_encoder_gives_the_command_that_would_run_it():
    said = results.findings(projection())
    assert said[:-1] == EXPERIMENT.findings(projection().document.report)
    assert "No table has nomic, the encoder that the proposal names: it has not been run." in said[-1]
    assert "`QASERVE_ENCODER=nomic qaserve bench projection --seeds 1`" in said[-1]
    for encoder in ("nomic", "nomic on topics"):
        assert "has not been run" not in " ".join(results.findings(projection(encoder=encoder)))


def test_a_bar_in_a_cell_does_not_end_it():
    measured = projection()
    table = EXPERIMENT.tables(measured.document.report)[0]
    changed = table._replace(rows=(("a|b", "1"),), columns=("name", "figure"))
    hostile = replace(EXPERIMENT, tables_of=lambda _: [changed])
    text = results.page([Measured(hostile, measured.document)])
    assert "\n| name | figure |\n| --- | ---: |\n| a\\|b | 1 |\n" in text


def test_what_is_stale_is_named(tmp_path):
    folder, target = tmp_path / "reports", tmp_path / "docs" / "results.md"
    assert results.check(folder, target).stale == (target,)
    reports.write(folder, projection())
    results.publish(folder, target)
    assert results.check(folder, target).stale == ()
    picture = folder / "projection-ratios.png"
    picture.unlink()
    assert results.check(folder, target).stale == (picture,)
    (folder / "projection.json").write_text(reports.to_json(projection(fit_seconds=9.0).document))
    assert results.check(folder, target).stale == (picture, target)
    results.publish(folder, target)
    assert results.check(folder, target).stale == ()
    target.write_text(target.read_text() + "A figure by hand: 99%.\n")
    assert results.check(folder, target).stale == (target,)


def test_a_quick_report_is_not_published(tmp_path):
    reports.write(tmp_path, projection(quick=True))
    for published in (results.publish, results.check):
        with pytest.raises(UsageError, match=r"projection\.json was measured with --quick") as refused:
            published(tmp_path, tmp_path / "page.md")
        assert refused.value.hint == f"Measure in full: qaserve bench projection --reports {tmp_path}"
    assert not (tmp_path / "page.md").exists()


def test_a_report_of_no_experiment_is_refused(tmp_path):
    (tmp_path / "phrenology.json").write_text("{}")
    with pytest.raises(UsageError, match=r"phrenology\.json is of no experiment"):
        results.load(tmp_path)


@pytest.mark.parametrize(("seconds", "text"), [(4.4, "4 s"), (99, "99 s"), (119, "2 min"), (7_500, "2 h 5 min")])
def test_durations_are_said_as_a_person_says_them(seconds, text):
    assert results.duration(seconds) == text
