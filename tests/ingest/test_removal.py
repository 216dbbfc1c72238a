import pytest
from store_builds import stored

from ingest.selection import Selection
from qaserve.builds.catalog import prune
from qaserve.common.errors import NotFoundError, UsageError


@pytest.fixture
def ingested(store, encoder, make_ingest, write_rows, rows):
    made = make_ingest(store, encoder)
    made.run([write_rows(rows(["bread", "wine"])), write_rows(rows(["steel"]), "metal.jsonl")])
    encoder.encoded = []
    return made


def texts(store):
    return {row.stored.pair.pair_id for row in stored(store, store.live("things"))}


def test_pairs_go_by_id_and_nothing_is_encoded(store, encoder, ingested):
    point = next(row.stored.id for row in stored(store, store.live("things")) if row.stored.pair.pair_id == "wine_q1")
    report = ingested.remove(Selection(ids=("bread_q0", point)))
    assert (report.removed, report.unchanged, report.pairs, report.encoded) == (2, 10, 10, 0)
    assert encoder.encoded == []
    assert report.build == store.live("things").build
    assert not texts(store) & {"bread_q0", "wine_q1"}
    assert sorted(one.pair_id for one in report.changes.removed) == ["bread_q0", "wine_q1"]
    assert {(one.file, one.line) for one in report.changes.removed} == {("pairs.jsonl", None)}


def test_pairs_go_by_source(store, ingested):
    assert ingested.remove(Selection(sources=("metal.jsonl",))).removed == 4
    assert not any(name.startswith("steel") for name in texts(store))


@pytest.mark.parametrize(
    ("filters", "gone"),
    [
        ({"topics": ("wine",)}, 4),
        ({"topics": ("wine", "bread")}, 8),
        ({"topics": ("wine", "bread"), "cluster_id": ("make_bread",)}, 4),
        ({"topics": ("making",), "cluster_id": ("make_bread",)}, 4),
        ({"related_skills": ("skill_steel.md",)}, 4),
        ({"related_skills": ("skills/skill_steel",)}, 4),
        ({"source_file": ("metal.jsonl",)}, 4),
    ],
)
def test_pairs_go_by_any_value_of_a_field_and_all_fields(store, ingested, filters, gone):
    report = ingested.remove(Selection(filters=filters))
    assert (report.removed, report.pairs) == (gone, 12 - gone)


def test_conditions_of_different_kinds_must_all_hold(ingested):
    report = ingested.remove(Selection(ids=("bread_q0", "steel_q0"), sources=("metal.jsonl",)))
    assert [one.pair_id for one in report.changes.removed] == ["steel_q0"]


def test_a_dry_run_removes_nothing(store, ingested):
    before = store.live("things"), texts(store)
    report = ingested.remove(Selection(ids=("bread_q0",)), dry_run=True)
    assert (report.removed, report.pairs) == (1, 11)
    assert (store.live("things"), texts(store)) == before
    assert ingested.remove(Selection(ids=("bread_q0",))).build == report.build


@pytest.mark.parametrize(
    ("selection", "error", "message"),
    [
        (Selection(), UsageError, "nothing says what to remove"),
        (Selection(ids=("bread_q0", "bred_q1")), NotFoundError, "no pair has the id 'bred_q1'"),
        (Selection(sources=("other.jsonl",)), NotFoundError, "no pair has the source_file 'other.jsonl'"),
        (Selection(filters={"tags": ("x",)}), NotFoundError, "no pair has the tags 'x'"),
        (Selection(ids=("bread_q0",), sources=("metal.jsonl",)), NotFoundError, "no pair meets all"),
        (Selection(filters={"topics": ("making",)}), UsageError, "would remove all 12 pairs"),
    ],
)
def test_what_cannot_be_removed_is_said_and_nothing_changes(store, ingested, selection, error, message):
    before = store.live("things"), texts(store)
    with pytest.raises(error, match=message):
        ingested.remove(selection)
    assert (store.live("things"), texts(store)) == before


INTENT = "That is the id of an intent (`cluster_id`), with the pairs bread_q0, bread_q1, bread_q2 and 1 more."


@pytest.mark.parametrize(
    ("selection", "hint"),
    [
        (Selection(ids=("make_bread",)), f"{INTENT} --filter cluster_id=make_bread means all."),
        (Selection(ids=("stel_q0",)), "Did you mean 'steel_q0' or 'steel_q3' or 'steel_q2'?"),
        (Selection(sources=("metals.jsonl",)), "Did you mean 'metal.jsonl'?"),
        (Selection(filters={"topics": ("wines",)}), "Did you mean 'wine'?"),
        (Selection(filters={"question_type": ("x",)}), "Check the spelling."),
    ],
)
def test_what_is_meant_is_named_where_nothing_is_found(ingested, selection, hint):
    with pytest.raises(NotFoundError, match="no pair has the ") as missing:
        ingested.remove(selection)
    assert missing.value.hint == f"{hint} Nothing was removed."


def test_removed_text_is_gone_from_disk_when_its_builds_are_pruned(
    store, encoder, make_ingest, write_rows, rows, tmp_path
):
    secret = rows(["wine"])[0] | {"pair_id": "s", "question": "Is it zyxwvut?", "answer": "It is qwertzuio."}
    made = make_ingest(store, encoder)
    made.run([write_rows([*rows(["bread"]), secret])])
    made.remove(Selection(ids=("s",)))
    if not store.where.startswith(":"):
        assert files_with(tmp_path, b"zyxwvut"), "the builds before hold it still"
    (tmp_path / "pairs.jsonl").unlink()
    prune(store, tmp_path / "models", "things", keep=0)
    assert files_with(tmp_path, b"zyxwvut") == files_with(tmp_path, b"qwertzuio") == []


def files_with(folder, text):
    return [path for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


def test_a_corpus_that_is_not_there_has_nothing_to_remove(edge, encoder, make_ingest):
    with pytest.raises(NotFoundError, match="no corpus 'things'"):
        make_ingest(edge, encoder).remove(Selection(ids=("x",)))
