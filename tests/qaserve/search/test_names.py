"""Questions that are names: which they are, and what is found for them."""

import pytest

from qaserve.schemas.ask import AskRequest
from qaserve.schemas.params import SearchParams
from qaserve.search.confidence import _of_names
from qaserve.search.engine import Engine
from qaserve.search.names import RARE, WEIGHT, by_plain_name, named_skills, rare_names
from qaserve.store.words import Kind, words_by_kind

NAMES = ("--dry-run", "load_grapes", "press.sh", "BreadMaker", "well-known")
"""Each is spelled by one pair."""
THINGS = [f"wine{number}" for number in range(14)]


@pytest.fixture
def named(edge, encoder, make_ingest, write_rows, rows, tmp_path):
    """An engine over pairs of which few hold a name, and all hold `common_name`."""
    pairs = rows(THINGS)
    for row in pairs:
        row["answer"] += " Use common_name."
    for row, name in zip(pairs[::4], NAMES, strict=False):
        row["answer"] += f" Run {name} first."
    make_ingest(edge, encoder, tune_pairs=0).run([write_rows(pairs)])
    return Engine(edge, encoder, tmp_path / "models", "things")


def ask(engine, question, **options):
    return engine.ask(AskRequest(question=question, **options))


@pytest.mark.parametrize(
    ("text", "word", "kind"),
    [
        ("use --file-filter here", "file-filter", Kind.NAME),
        ("`-v`? no, --verbose", "verbose", Kind.NAME),
        ("call Generate_JSON_reader()", "generate_json_reader", Kind.NAME),
        ("run extract_records.pl.", "extract_records.pl", Kind.NAME),
        ("what is math.pi", "math.pi", Kind.NAME),
        ("a type-safe one", "type-safe", Kind.COMPOUND),
        ("in WebAssembly", "webassembly", Kind.COMPOUND),
        ("some - dashes -- here", "here", Kind.WORD),
        ("Python 3.11", "3.11", Kind.WORD),
        ("e.g. this", "e.g", Kind.WORD),
        ("-v alone", "v", Kind.WORD),
        ("C++ and C#", "c++", Kind.WORD),
        ("the NASA", "nasa", Kind.WORD),
    ],
)
def test_names_are_told_from_words_by_their_spelling(text, word, kind):
    assert dict(words_by_kind(text))[word] is kind


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("--dry-run", ("dry-run",)),
        ("What does load_grapes do?", ("load_grapes",)),
        ("How do I use press.sh?", ("press.sh",)),
        ("LOAD_GRAPES press.sh", ("load_grapes", "press.sh")),
        ("BreadMaker", ("breadmaker",)),
        ("well-known", ("well-known",)),
        ("How do I use BreadMaker?", ()),  # prose spells so too
        ("make wine with load_grapes", ()),  # mainly something else
        ("common_name", ()),  # not rare
        ("What of load_grapes and common_name?", ("load_grapes",)),
        ("no_such_name", ()),
        ("load_grapes horoscope", ()),  # nothing here is about horoscopes
        ("How do I make bread?", ()),
        ("...", ()),
    ],
)
def test_a_question_is_of_names_that_few_pairs_hold_where_it_is_mainly_these(named, question, names):
    assert rare_names(named.load().points, question) == names


@pytest.mark.parametrize("held", [RARE, RARE + 1])
def test_a_name_is_rare_up_to_a_number_of_pairs(edge, encoder, make_ingest, write_rows, rows, tmp_path, held):
    pairs = rows(THINGS)
    for row in pairs[:held]:
        row["answer"] += " See some_name."
    make_ingest(edge, encoder, tune_pairs=0).run([write_rows(pairs)])
    build = Engine(edge, encoder, tmp_path / "models", "things").load().points
    assert rare_names(build, "some_name") == (("some_name",) if held == RARE else ())


@pytest.mark.parametrize("name", NAMES)
def test_a_name_finds_the_pair_that_holds_it_and_is_not_abstained_on(named, name):
    result = ask(named, name)
    first = result.answers[0]
    assert name in first.answer
    assert result.trace.params.lexical_weight == WEIGHT
    assert result.trace.names == (name.strip("-").lower(),)
    assert not result.confidence.abstained
    assert result.confidence.value is None
    assert result.confidence.reason == f"The first answer holds {name.strip('-').lower()}."


def test_a_name_that_no_pair_holds_that_passes_the_filter_is_none(named):
    found = ask(named, "load_grapes", filters={"topics": ["wine9"]})
    assert found.answers
    assert found.trace.names == ()
    assert ask(named, "load_grapes", filters={"topics": ["wine1"]}).trace.names == ("load_grapes",)


def test_without_a_holder_among_the_answers_nothing_is_promised(named):
    first = ask(named, "load_grapes").answers[0].model_copy(update={"words": ("grapes",)})
    said = _of_names(("load_grapes",), first)
    assert (said.abstained, said.reason) == (True, "The first answer does not hold load_grapes.")


def test_a_weight_of_words_that_is_given_is_taken(named):
    result = ask(named, "load_grapes", lexical_weight=0.3)
    assert (result.trace.params.lexical_weight, result.trace.names) == (0.3, ())
    named._overrides = SearchParams(lexical_weight=0.2)
    assert ask(named, "load_grapes").trace.params.lexical_weight == 0.2
    assert ask(named, "load_grapes", temperature=0.2).trace.params.temperature == 0.2


SKILLS = ["skill_theming", "skill_data_sources", "context-recovery", "sysd", "skill_ipc", "Skill-IPC"]


@pytest.mark.parametrize(
    ("question", "skills"),
    [
        ("theming", {"skill_theming"}),
        ("Skill_Theming.md", {"skill_theming"}),
        ("How do I use theming?", set()),
        ("How do I use skill_theming?", {"skill_theming"}),
        ("data sources", {"skill_data_sources"}),
        ("docs/skills/skill_theming.md", {"skill_theming"}),
        ("theming?", {"skill_theming"}),
        ("`data sources`", {"skill_data_sources"}),
        ("How do I do dark mode/ipc", set()),
        ("see docs/skills/skill_data_sources.md", {"skill_data_sources"}),
        ("are data-sources and context_recovery related?", {"skill_data_sources", "context-recovery"}),
        ("ipc", {"skill_ipc", "Skill-IPC"}),
        ("skill", set()),
        ("where are my sources of data", set()),
        ("???", set()),
    ],
)
def test_a_skill_is_named_by_its_name_alone_or_a_word_of_several_parts(question, skills):
    assert named_skills(by_plain_name(SKILLS), question) == skills
