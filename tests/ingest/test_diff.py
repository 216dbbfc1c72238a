import pytest

from ingest.diff import diff
from qaserve.builds import bundle as bundles
from qaserve.common.errors import NotFoundError
from qaserve.store import BuildRef


@pytest.fixture
def two(edge, encoder, make_ingest, write_rows, rows):
    """Two builds: wine left, steel came, an answer about bread was edited."""
    first = make_ingest(edge, encoder).run([write_rows(rows(["bread", "wine"]))])
    edited = rows(["bread", "steel"])
    edited[0]["answer"] = "an edited answer about bread"
    second = make_ingest(edge, encoder).run([write_rows(edited)], replace=True)
    return first.build, second.build


def test_a_difference_names_pairs_clusters_and_metrics(edge, two, tmp_path):
    found = diff(edge, tmp_path / "models", "things", *two)
    assert (found.before.build, found.after.build) == two
    assert found.after.live
    assert {one.pair_id for one in found.added} == {f"steel_q{n}" for n in range(4)}
    assert {one.pair_id for one in found.removed} == {f"wine_q{n}" for n in range(4)}
    assert [one.pair_id for one in found.updated] == ["bread_q0"]
    assert found.edits[0].after == "an edited answer about bread"
    assert found.unchanged == 3
    assert found.clusters.vanished
    assert found.after.metrics["bank_bytes"] > 0


def test_the_other_way_round_what_was_added_is_removed(edge, two, tmp_path):
    there, back = (diff(edge, tmp_path / "models", "things", *pair) for pair in (two, two[::-1]))
    assert there.added == back.removed
    assert there.removed == back.added


def test_a_build_does_not_differ_from_itself(edge, two, tmp_path):
    found = diff(edge, tmp_path / "models", "things", two[1], two[1])
    assert (found.added, found.updated, found.removed, found.unchanged) == ((), (), (), 8)
    assert (found.clusters.moved, found.clusters.appeared, found.clusters.vanished) == (0, (), ())


def test_pairs_are_compared_where_a_bundle_is_broken(edge, two, tmp_path):
    (bundles.folder_of(tmp_path / "models", BuildRef("things", two[0])) / bundles.MANIFEST).unlink()
    found = diff(edge, tmp_path / "models", "things", *two)
    assert found.clusters is None
    assert len(found.added) == 4


def test_a_build_that_is_not_there_is_named(edge, two, tmp_path):
    with pytest.raises(NotFoundError, match="no build 'nothing' of corpus 'things'"):
        diff(edge, tmp_path / "models", "things", two[0], "nothing")
