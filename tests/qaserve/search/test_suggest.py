"""Known questions offered while one is typed."""

import pytest

from qaserve.search.suggest import suggest


@pytest.fixture
def offered(edge, encoder, make_ingest, write_rows, engine):
    questions = ["Read a file?", "read a FILE, twice", "How to spread a file", "How to read", "Write"]
    rows = [{"question": question, "answer": f"answer {number}"} for number, question in enumerate(questions)]
    make_ingest(edge, encoder).run([write_rows(rows, "typed.jsonl")], replace=True)
    build = engine.load()

    def of(typed, limit=8):
        found = suggest(build, typed, limit)
        assert found.build == build.ref.build
        return list(found.questions)

    return of


def test_beginnings_come_before_words_and_these_before_the_rest(offered):
    assert offered("read") == ["Read a file?", "read a FILE, twice", "How to read", "How to spread a file"]
    assert offered("  READ -- a ") == ["Read a file?", "read a FILE, twice", "How to spread a file"]
    assert offered("read", 1) == ["Read a file?"]


@pytest.mark.parametrize("typed", ["", " ", "r", "?", "zyx", "read a file now"])
def test_what_no_question_holds_offers_nothing(offered, typed):
    assert offered(typed) == []
