"""Skills of a build with documents: found, listed and handed over, in the process, over HTTP and over MCP."""

import asyncio
import json
from contextlib import nullcontext
from io import StringIO

import pytest
from mcp import Client as McpClient
from mcp import MCPError
from rich.console import Console
from typer.testing import CliRunner

from qaserve.api import create_app
from qaserve.cli import load_all
from qaserve.cli.answering import InProcess
from qaserve.cli.prompt import Prompt
from qaserve.cli.render_skill import markdown_index
from qaserve.client.http import Client
from qaserve.common.errors import NotFoundError
from qaserve.common.text import one_line
from qaserve.mcp import create_server
from qaserve.mcp.results import UNTRUSTED
from qaserve.mcp.source import EngineSource
from qaserve.schemas.ask import AskRequest, Filters
from qaserve.search.engine import Engine
from qaserve.search.skills import found_for
from qaserve.service.gaps import QuestionLog
from qaserve.settings import ServerSettings

WHEN = "- To make bread\n- To bake"
BREAD = f"---\nowner: x\n---\n# Bread\n\nAll about bread.\n\n## 2. When to Use\n\n{WHEN}\n\n## Steps\nx\n"
DOCUMENTS = {
    "skill_bread.md": BREAD,
    "deep/skill_wine.md": "# Wine\n\nPress grapes.\n\nThen wait.\n",
    "skill_salt.md": "---\ndescription: 'Dry the sea'\n---\n# Salt\n",
    "README.md": "# bread wine salt sea\n\nAn index of bread, wine, salt.\n",
}


@pytest.fixture
def engine(edge, encoder, make_ingest, write_rows, rows, tmp_path):
    """An engine over a build with documents of some skills."""
    for path, text in DOCUMENTS.items():
        file = tmp_path / "documents" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    pairs = rows()
    pairs[0] |= {
        "related_skills": ["skills/skill_bread.md", "skill_wine"],
        "related_docs": ["README.md", "gone.md"],
        "confidence": 0.8,
        "confidence_issues": "thin",
        "manually_reviewed": True,
    }
    pairs[1] |= {"confidence": "high", "confidence_issues": None}
    made = make_ingest(edge, encoder, tune_pairs=0)
    made.run([write_rows(pairs)], documents=tmp_path / "documents")
    return Engine(edge, encoder, tmp_path / "models", "things")


def ask(engine, question, **options):
    return engine.ask(AskRequest(question=question, **options))


def test_skills_come_with_the_answers(engine):
    result = ask(engine, "How do I make bread?", top_k=3)
    first = result.skills[0]
    assert [skill.rank for skill in result.skills] == [1, 2, 3]
    assert (first.name, first.title, first.path) == ("skill_bread", "Bread", "skill_bread.md")
    assert first.when_to_use == WHEN
    assert first.pairs == 4
    assert first.score == pytest.approx(first.parts.pairs + first.parts.section)
    assert [skill.score for skill in result.skills] == sorted((one.score for one in result.skills), reverse=True)
    assert len(first.supporting) == 3
    assert all("bread" in pair.question for pair in first.supporting)
    assert first.section.similarity == pytest.approx(first.parts.section / 0.2, rel=1e-5)
    assert "README" not in {skill.name for skill in ask(engine, "index of bread wine salt", top_k=50).skills}


def test_a_skill_without_pairs_is_found_by_its_document_but_not_under_a_filter(engine):
    first = ask(engine, "salt from the sea").skills[0]
    assert (first.name, first.pairs, first.supporting) == ("skill_salt", 0, ())
    assert first.when_to_use == "Dry the sea"
    assert first.parts.pairs == pytest.approx(0.95 * first.section.similarity, rel=1e-5)
    filtered = ask(engine, "salt from the sea", filters=Filters(topics=("bread",)))
    assert {skill.name for skill in filtered.skills} <= {"skill_bread", "skill_wine"}


def test_under_a_filter_only_pairs_that_pass_count_for_a_skill(edge, encoder, make_ingest, write_rows, rows, tmp_path):
    pairs = [row | {"related_skills": ["skill_all.md"]} for row in rows()]
    pairs[0]["topics"] = pairs[5]["topics"] = ["two"]
    make_ingest(edge, encoder, tune_pairs=0).run([write_rows(pairs)])
    engine = Engine(edge, encoder, tmp_path / "models", "things")
    (skill,) = ask(engine, "How do I make bread?", filters=Filters(topics=("two",))).skills
    best, second = (one.score for one in skill.supporting)
    assert best > second + 0.1
    assert skill.score == pytest.approx((best + second) / 2)


def test_a_skill_that_the_question_names_comes_first(engine):
    unnamed = ask(engine, "How do I make bread?", top_k=4).skills
    assert unnamed[0].name == "skill_bread"
    assert not any(one.named for one in unnamed)
    named = ask(engine, "skill_salt.md: how do I make bread with deep/skill_wine?", top_k=4).skills
    assert {one.name for one in named[:2]} == {"skill_salt", "skill_wine"}
    assert [one.named for one in named] == [True, True, False, False]
    assert [one.score for one in named[:2]] == sorted((one.score for one in named[:2]), reverse=True)
    assert [one.rank for one in named] == [1, 2, 3, 4]
    assert named[2].score > named[0].score


@pytest.mark.parametrize("said", ["skill_bread", "skill_bread.md", "skills/skill_bread.md"])
def test_a_skill_is_a_filter_in_any_spelling(engine, said):
    found = ask(engine, "How do I make wine?", filters=Filters(related_skills=(said,)))
    hits = {hit.pair_id for hit in found.trace.hits}
    assert hits == {"bread_q0", "bread_q1", "bread_q2", "bread_q3"}
    assert found.trace.filters.related_skills == (said,)
    assert {one.by for one in found.trace.excluded} == {"filter"}
    assert not ask(engine, "How do I make wine?", filters=Filters(related_skills=("skill_none",))).answers


def test_answers_say_where_their_names_lead_and_what_the_author_said(engine):
    answers = ask(engine, "How do I make bread?", top_k=6).answers
    answer = next(one for one in answers if one.cluster_id == "make_bread")
    links = {link.name: link.path for link in answer.links}
    if answer.pair_id == "bread_q0":
        assert links == {
            "skills/skill_bread.md": "skill_bread.md",
            "skill_wine": "deep/skill_wine.md",
            "README.md": "README.md",
            "gone.md": None,
        }
    notes = {stored.pair.pair_id: stored.pair.author for stored in engine.cluster(answer.cluster).pairs}
    assert notes["bread_q0"].model_dump() == {
        "confidence": 0.8,
        "confidence_issues": "thin",
        "manually_reviewed": True,
    }
    assert notes["bread_q1"] is None


def test_a_skill_is_handed_over(engine):
    skill = engine.skill("skill_bread.md")
    assert skill.document.text == BREAD
    assert skill.document.characters == len(BREAD)
    assert [section.order for section in skill.document.sections] == [0, 1, 2, 3]
    assert len(skill.questions) == 4
    assert [(one.name, one.pairs) for one in skill.neighbours] == [("skill_wine", 1)]
    assert [(link.name, link.path) for link in skill.links] == [("README.md", "README.md"), ("gone.md", None)]
    assert engine.skill("SKILL_WINE").pairs == 5
    assert engine.skill("skill_cheese").document is None
    assert engine.document("deep/skill_wine.md").skill == "skill_wine"
    for name in ("nothing", "../../etc/passwd", ""):
        with pytest.raises(NotFoundError, match=r"^no skill"):
            engine.skill(name)
        with pytest.raises(NotFoundError, match=r"^no document"):
            engine.document(name)
    for name, hint in (
        ("skill_bred", "Did you mean 'skill_bread'?"),
        ("deep/SKILL_WNE.md", "Did you mean 'skill_wine'?"),
        ("nothing", "List the skills to see every name."),
    ):
        with pytest.raises(NotFoundError, match="no skill") as missing:
            engine.skill(name)
        assert missing.value.hint == hint


def test_the_index_lists_every_skill(engine):
    index = engine.skills()
    named = ["bread", "cheese", "glass", "paper", "salt", "steel", "wine"]
    assert [skill.name for skill in index.skills] == [f"skill_{name}" for name in named]
    assert {skill.name: skill.when_to_use for skill in index.skills}["skill_wine"] == "Press grapes."
    text = markdown_index(index)
    assert "- **skill_bread** (Bread): To make bread; To bake\n" in text
    assert "- **skill_steel** (skill_steel)\n" in text
    assert one_line("* a\n\n- b   c\n", 100) == "a; b c"


def test_a_build_without_documents_ranks_skills_by_pairs(edge, encoder, make_ingest, write_rows, rows, tmp_path):
    make_ingest(edge, encoder, tune_pairs=0).run([write_rows(rows())])
    result = ask(Engine(edge, encoder, tmp_path / "models", "things"), "How do I make bread?")
    first = result.skills[0]
    assert (first.name, first.path, first.section, first.parts.section) == ("skill_bread", None, None, 0.0)
    assert result.answers[0].links == ()


def test_the_client_gets_what_the_engine_gives(engine, serve_app):
    with Client(serve_app(create_app(engine, ServerSettings()))) as client:
        found = client.skills("How do I make bread?", 2)
        assert found == found_for(ask(engine, "How do I make bread?", top_k=2))
        assert client.skill_index() == engine.skills()
        assert client.skill("skill_bread") == engine.skill("skill_bread")
        assert client.document("deep/skill_wine.md") == engine.document("deep/skill_wine.md")
        for path in ("../../etc/passwd", "/etc/passwd", "deep/../../secret.md", "deep%2f..%2fx"):
            with pytest.raises(NotFoundError):
                client.document(path)
        with pytest.raises(NotFoundError, match="no skill 'x'"):
            client.skill("x")
        for path, hint in (
            ("deep/skill_win.md", "Did you mean 'deep/skill_wine.md'?"),
            ("nothing", "GET /v1/skill-index lists the documents of skills."),
        ):
            with pytest.raises(NotFoundError, match="no document") as missing:
                client.document(path)
            assert missing.value.hint == hint
        assert "deep/skill_wine.md" in {one.path for one in client.skill_index().skills}


def test_agents_find_and_read_skills(engine):
    async def talk():
        async with McpClient(create_server(EngineSource(lambda: engine))) as client:
            found = (await client.call_tool("search_skills", {"question": "How do I make bread?"})).structured_content
            assert list(found)[:2] == ["untrusted", "skills"]
            assert found["skills"][0]["name"] == "skill_bread"
            whole = (await client.call_tool("get_skill", {"name": "skill_bread"})).structured_content
            assert (whole["text"], whole["characters"], whole["untrusted"]) == (BREAD, len(BREAD), UNTRUSTED)
            part = (await client.call_tool("get_skill", {"name": "skill_bread", "sections": [3, 1]})).structured_content
            assert part["text"] == "# Bread\n\nAll about bread.\n\n## Steps\nx\n"
            assert part["given"] == [1, 3]
            contents = await client.call_tool("get_skill", {"name": "skill_bread", "sections": []})
            assert contents.structured_content["text"] == ""
            assert len(contents.structured_content["contents"]) == 4
            bad = await client.call_tool("get_skill", {"name": "skill_bread", "sections": [4]})
            assert "has no section 4. It has 4, from 0 on." in bad.content[0].text
            listed = (await client.list_resources()).resources
            assert [one.uri for one in listed] == ["skill://skill_bread", "skill://skill_salt", "skill://skill_wine"]
            read = (await client.read_resource("skill://skill_wine")).contents[0]
            assert read.text == f"<!-- {UNTRUSTED} -->\n\n{DOCUMENTS['deep/skill_wine.md']}"
            assert read.mime_type == "text/markdown"
            for uri in ("skill://skill_steel", "skill://..%2F..%2Fetc%2Fpasswd", "file:///etc/passwd"):
                with pytest.raises(MCPError, match=r"no (resource|skill)"):
                    await client.read_resource(uri)
            prompt = await client.get_prompt("use_skills", {"task": "bake {x}"})
            assert "for this task: bake {x}" in prompt.messages[0].content.text

    asyncio.run(talk())


@pytest.fixture
def kept(tmp_path):
    return QuestionLog(tmp_path, "things", keeps=False, days=30)


def test_the_command_line_shows_a_skill(engine, kept, monkeypatch):
    monkeypatch.setattr("qaserve.cli.answering.answerer", lambda _: nullcontext(InProcess(engine, kept)))
    app, run = load_all(), CliRunner().invoke
    assert run(app, ["skill", "skill_bread", "--raw"]).output == BREAD
    assert json.loads(run(app, ["skill", "skill_bread", "--json"]).output)["title"] == "Bread"
    shown = run(app, ["skill", "skill_bread"])
    assert shown.exit_code == 0
    assert isinstance(run(app, ["skill", "skill_steel", "--raw"]).exception, NotFoundError)
    assert run(app, ["skills", "export", "--index"]).output == markdown_index(engine.skills())


def test_the_prompt_shows_skills_by_name_and_by_answer(engine, kept):
    console = Console(file=StringIO(), width=120)
    lines = [
        ":skill 1",
        "salt from the sea",
        ":skill skill_salt",
        ":skill 9",
        ":skill",
        "How do I make bread?",
        ":skill 1",
    ]
    Prompt(InProcess(engine, kept), {"top_k": 2}, console).run(iter(lines))
    shown = console.file.getvalue()
    assert "no question has been answered yet" in shown
    assert "No pair names it." in shown
    assert ":skill 9: this is not the number of an answer" in shown
    assert ":skill takes a name" in shown
    assert "All about bread." in shown
    assert "skill_bread.md · " in shown
