import json
import socket
import sys
from pathlib import Path

import pytest
from PIL import Image

from qaserve.common.errors import NotFoundError, StoreWriteError, UsageError
from train.experiments import reports
from train.experiments.harness import Experiment, Plot, Report, Run, Table
from train.experiments.reports import Document, Measured, provenance


class ToyRun(Run):
    values: tuple[float, ...]


def toy(draw=None):
    def plots(runs):
        return [
            Plot("curve", "A curve that goes up", draw or (lambda axes: axes.plot(runs[0].values))),
            Plot("own", "Text for a reader", lambda axes: axes.set_title("Its own title", loc="right")),
        ]

    return Experiment(
        "toy",
        "A toy",
        Report[ToyRun],
        lambda run: [Table("Values", ("encoder", "sum"), ((run.encoder, str(sum(run.values))),))],
        lambda run: [f"It sums to {sum(run.values)}."],
        plots,
    )


def measured(values=(1.0, 2.5, 3.0), *, quick=False, experiment=None):
    origin = provenance("qaserve bench toy --seeds 2", seeds=range(2), quick=quick, wall_seconds=1.26)
    report = Report[ToyRun](runs=(ToyRun(encoder="fake", values=values),))
    return Measured(experiment or toy(), Document(provenance=origin, report=report))


def test_what_is_written_is_read_back(tmp_path):
    one = measured()
    paths = reports.write(tmp_path / "reports", one)
    assert [path.name for path in paths] == ["toy.json", "toy-curve.png", "toy-own.png"]
    assert reports.read(paths[0], one.experiment).document == one.document
    document = json.loads(paths[0].read_text())
    assert document["report"] == {"runs": [{"encoder": "fake", "values": [1.0, 2.5, 3.0]}]}
    assert document["provenance"]["seeds"] == [0, 1]
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == sorted(path.name for path in paths)


def test_provenance_says_with_what_and_nothing_of_where():
    origin = measured().document.provenance
    assert origin.wall_seconds == 1.3
    assert {"qaserve", "python", "numpy", "torch", "scikit-learn", "qdrant-client", "sentence-transformers"} == set(
        origin.versions
    )
    assert origin.machine.cores >= 1
    assert origin.machine.cpu
    text = origin.model_dump_json()
    for secret in (socket.gethostname(), str(Path.cwd()), str(Path.home())):
        assert secret == "/" or secret not in text


def test_pictures_are_small_white_and_the_same_every_time(tmp_path):
    one = measured()
    first, again = reports.draw(tmp_path / "a", one), reports.draw(tmp_path / "b", one)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    for path in first:
        assert path.stat().st_size <= 60_000
        with Image.open(path) as image:
            assert image.size == (900, 500)
            assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
            assert set(image.info) <= {"Report"}


def test_a_style_that_somebody_set_changes_no_picture(tmp_path):
    import matplotlib as mpl

    one = measured()
    plain = reports.draw(tmp_path / "a", one)[0].read_bytes()
    with mpl.rc_context({"axes.facecolor": "black", "lines.linewidth": 9}):
        assert reports.draw(tmp_path / "b", one)[0].read_bytes() == plain


def test_pictures_of_another_report_are_stale(tmp_path):
    one = measured()
    paths = reports.draw(tmp_path, one)
    assert reports.stale_pictures(tmp_path, one) == []
    assert reports.stale_pictures(tmp_path, measured((4.0,))) == paths
    paths[0].unlink()
    paths[1].write_bytes(b"not a picture")
    assert reports.stale_pictures(tmp_path, one) == paths


def test_a_plot_that_fails_leaves_the_picture_of_before(tmp_path):
    (before, _) = reports.draw(tmp_path, measured())
    content = before.read_bytes()

    def fail(axes):
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        reports.draw(tmp_path, measured(experiment=toy(fail)))
    assert before.read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no JSON", r"toy.json is not a report of experiment 'toy': the document: Invalid JSON"),
        ("{}", "provenance: Field required"),
        (None, "runs.0.more: Extra inputs are not permitted"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path, content, message):
    path = reports.write(tmp_path, measured())[0]
    if content is None:
        document = json.loads(path.read_text())
        document["report"]["runs"][0]["more"] = 1
        content = json.dumps(document)
    path.write_text(content)
    with pytest.raises(UsageError, match=message) as refused:
        reports.read(path, toy())
    assert refused.value.hint == f"Measure again: qaserve bench toy --reports {tmp_path}"


def test_a_report_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NotFoundError, match=r"toy\.json is not there"):
        reports.read(tmp_path / "toy.json", toy())


def test_a_quick_report_never_replaces_a_full_one(tmp_path):
    reports.check_writable(tmp_path, toy(), quick=True)
    reports.write(tmp_path, measured(quick=True))
    reports.check_writable(tmp_path, toy(), quick=True)
    reports.write(tmp_path, measured())
    reports.check_writable(tmp_path, toy(), quick=False)
    with pytest.raises(UsageError, match=r"toy\.json holds a full measurement, which a --quick one would replace"):
        reports.check_writable(tmp_path, toy(), quick=True)


def test_without_matplotlib_it_says_so_beforehand(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match="matplotlib, which is not installed") as refused:
        reports.check_writable(tmp_path, toy(), quick=False)
    assert refused.value.hint == "pip install 'qaserve[bench]'"


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "reports").write_text("")
    with pytest.raises(StoreWriteError, match=r"toy\.json cannot be written"):
        reports.write(tmp_path / "reports", measured())
