"""Vectors of questions, answers and topics: each text is encoded once, and kept from build to build."""

import numpy as np
import pytest
from store_builds import stored

from ingest import builder, embed, pairs
from ingest.pairs import TOPIC_TEXT
from qaserve.schemas.pairs import Pair, TopicText


def pair(**fields):
    return Pair(**({"pair_id": "1", "cluster_id": "1", "question": "q", "answer": "a", "source_file": "f"} | fields))


def test_the_text_of_a_topic_says_each_thing_once_and_names_skills_without_path_and_suffix():
    told = pair(topics=("XML", "data_processing"), tags=("xml", "c++"), related_skills=("a/skill-xml.md", "plain"))
    assert TopicText().of(told) == "XML, data processing, c++, skill xml, plain"
    assert TopicText(fields=("tags",), separator=" | ").of(told) == "xml | c++"
    assert TopicText().of(pair(topics=(" ", "_"))) == ""
    assert TopicText().of(pair()) == ""


def test_each_topic_is_encoded_once_and_absent_where_a_pair_has_none(store, encoder, make_ingest, write_rows, rows):
    some = rows(["bread", "wine"])
    some[0] |= {"topics": [], "related_skills": []}
    make_ingest(store, encoder).run([write_rows(some)])
    texts = {TOPIC_TEXT.of(row.stored.pair) for row in stored(store, store.live("things"))} - {""}
    assert len(texts) == 2
    assert [text for text in encoder.encoded if text in texts] == [
        *dict.fromkeys(t for t in encoder.encoded if t in texts)
    ]
    for row in stored(store, store.live("things")):
        text = TOPIC_TEXT.of(row.stored.pair)
        assert (row.topic is None) == (text == "")
        if text:
            np.testing.assert_allclose(row.topic, encoder.encode_answers([text])[0], atol=1e-6)


def test_topics_are_kept_and_an_edited_one_alone_is_encoded(store, encoder, make_ingest, write_rows, rows):
    edited = rows(["bread", "wine"])
    edited[0] |= {"topics": [], "related_skills": []}
    make_ingest(store, encoder).run([write_rows(edited)])
    encoder.encoded = []
    edited[1]["topics"] = ["baking"]
    edited[2] |= {"topics": [], "related_skills": []}
    report = make_ingest(store, encoder).run([write_rows([*edited, *rows(["steel"])])])
    assert report.updated == 2
    new = [text for text in encoder.encoded if "steel" not in text]
    assert new == [TOPIC_TEXT.of(pair(topics=("baking",), related_skills=("skill_bread.md",)))]
    for row in stored(store, store.live("things")):
        text = TOPIC_TEXT.of(row.stored.pair)
        assert (row.topic is None) == (text == "")
        if text:
            np.testing.assert_allclose(row.topic, encoder.encode_answers([text])[0], atol=1e-6)


def test_topics_that_were_joined_otherwise_are_encoded_again(edge, encoder, make_ingest, write_rows, rows, monkeypatch):
    make_ingest(edge, encoder).run([write_rows(rows(["bread", "wine"]))])
    encoder.encoded = []
    other = TopicText(fields=("topics",))
    for module in (pairs, builder):
        monkeypatch.setattr(module, "TOPIC_TEXT", other)
    parts = (*embed.PARTS[:2], embed.PARTS[2]._replace(text=other.of))
    monkeypatch.setattr(embed, "PARTS", parts)
    make_ingest(edge, encoder).run([write_rows(rows(["steel"]), "more.jsonl")])
    assert {"making, bread", "making, wine"} <= set(encoder.encoded)
    assert edge.open(edge.live("things")).metadata.topic_text == other
    assert not any("How do I make bread" in text for text in encoder.encoded)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_topic_counts_as_much_as_its_weight_says(engine, weight):
    from qaserve.schemas.ask import AskRequest

    result = engine.ask(AskRequest(question="making wine", topic_weight=weight, lexical_weight=0.0))
    assert (result.answers[0].parts.topic > 0) == (weight > 0)
