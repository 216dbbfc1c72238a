import hashlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qaserve.common.text import control_character, did_you_mean, digest, fold, has_surrogate, one_line, shorten

ASCII = st.text(st.characters(max_codepoint=127))
ANY = st.text(st.characters())  # half surrogate pairs too

# fold


@pytest.mark.parametrize(
    "text",
    [
        "How do I start?",
        "how do i start",
        "HOW DO I START!",
        "  how\tdo \n I — start… ",
        "“How”, do (I) start",
        "Ｈｏｗ do I start",
    ],
)
def test_case_punctuation_and_spacing_are_folded(text):
    assert fold(text) == "how do i start"


@pytest.mark.parametrize(("one", "other"), [("Straße", "STRASSE"), ("é", "e\u0301"), ("ΣΑΣ", "σας"), ("ﬁle", "file")])
def test_other_spellings_of_the_same_letters_fold_alike(one, other):
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    ("one", "other"), [("start", "stop"), ("a_b", "ab"), ("v1", "v2"), ("résumé", "resume"), ("how to", "howto")]
)
def test_different_words_stay_different(one, other):
    assert fold(one) != fold(other)


@pytest.mark.parametrize(("one", "other"), [("दिन", "दान"), ("ที", "ทู"), ("கி", "கா")], ids=["hindi", "thai", "tamil"])
def test_words_that_differ_in_a_vowel_sign_stay_different(one, other):
    assert fold(one) != fold(other)


def test_punctuation_alone_folds_to_itself():
    assert fold("  ?! ") == "?!"
    assert fold("++") != fold("--")


def test_nothing_folds_to_nothing():
    assert fold(" \n ") == ""


@settings(deadline=None)
@given(ANY)
def test_a_folded_text_is_folded(text):
    assert fold(fold(text)) == fold(text)


@settings(deadline=None)
@given(ASCII)
def test_case_and_space_around_never_matter(text):
    assert fold(text.upper()) == fold(text.lower())
    assert fold(f" {text}\n") == fold(text)


@settings(deadline=None)
@given(ANY)
def test_a_text_keeps_an_identity(text):
    assert bool(fold(text)) == bool(text.strip())


# digest


def test_a_digest_is_sha256_over_lengths_and_parts():
    assert digest() == hashlib.sha256(b"").hexdigest()
    assert digest("ä") == hashlib.sha256((2).to_bytes(8, "big") + "ä".encode()).hexdigest()


def test_the_borders_between_parts_count():
    digests = [digest(*parts) for parts in ((), ("",), ("", ""), ("abc",), ("ab", "c"), ("a", "bc"), ("a", "b", "c"))]
    assert len(set(digests)) == len(digests)


@settings(deadline=None)
@given(st.lists(ANY, max_size=4), st.lists(ANY, max_size=4))
@example(["\ud800"], ["\udfff"])
def test_digests_are_equal_exactly_when_the_parts_are(one, other):
    assert (digest(*one) == digest(*other)) == (one == other)


# Characters that are not text


@pytest.mark.parametrize(
    ("text", "found"),
    [("a\x00b", "U+0000"), ("\x1b[31m", "U+001B"), ("\x7f", "U+007F"), ("\x08\x00", "U+0008"), ("a\x0bb", "U+000B")],
)
def test_the_first_control_character_is_named(text, found):
    assert control_character(text) == found


@pytest.mark.parametrize("text", ["", "plain", "tab\tline\nend\r\n", "ä 你好 🎉 \u200b"])
def test_tabs_and_line_breaks_are_text(text):
    assert control_character(text) is None


@pytest.mark.parametrize("text", [chr(0xD800), chr(0xDFFF), "a\udc00b"])
def test_half_a_surrogate_pair_is_found(text):
    assert has_surrogate(text)


@pytest.mark.parametrize("text", ["", "\ud7ff\ue000", "🎉"])
def test_whole_characters_are_no_surrogates(text):
    assert not has_surrogate(text)


@settings(deadline=None)
@given(ANY)
def test_text_without_surrogates_is_what_utf8_can_carry(text):
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        assert has_surrogate(text)
    else:
        assert not has_surrogate(text)


# shorten


def test_a_short_text_is_put_on_one_line():
    assert shorten(" a \n\t b ", 10) == "a b"


def test_a_long_text_is_cut_with_an_ellipsis():
    assert shorten("abcdefghij", 10) == "abcdefghij"
    assert shorten("abcdefghijk", 10) == "abcdefghi…"
    assert shorten("abcd fghijk", 6) == "abcd…"


@settings(deadline=None)
@given(st.text(), st.integers(1, 30))
def test_the_limit_holds_and_the_result_is_one_line(text, limit):
    short = shorten(text, limit)
    assert len(short) <= limit
    assert short == " ".join(short.split())


@settings(deadline=None)
@given(st.text(st.sampled_from("ab \n"), max_size=60), st.integers(1, 30))
@example("a" + " " * 100 + "b", 10)
@example(" " * 100 + "b", 10)
def test_nothing_is_dropped_without_an_ellipsis(text, limit):
    short = shorten(text, limit)
    assert short.endswith("…") or short == " ".join(text.split())


def test_the_items_of_a_list_are_on_one_line():
    assert one_line("- User asks a\n\n- User needs b\nor c - d", 100) == "User asks a; User needs b; or c - d"
    assert one_line("* a\n+ bcdefgh", 6).endswith("…")


@pytest.mark.parametrize(
    ("said", "known", "asked"),
    [
        ("playbok", ["bread", "playbook", "wine"], "Did you mean 'playbook'?"),
        ("PLAYBOOK", ["Playbook"], "Did you mean 'Playbook'?"),
        ("bread-1", ["bread_1", "wine_1"], "Did you mean 'bread_1'?"),
        ("abc", ["abcd", "abce", "abcf", "abcg"], "Did you mean 'abcg' or 'abcf' or 'abce'?"),
        ("nothing", ["bread", "wine"], ""),
        ("", ["bread"], ""),
        ("bread", [], ""),
    ],
)
def test_what_is_spelled_nearly_so_is_asked_for(said, known, asked):
    assert did_you_mean(said, known) == asked


def test_a_long_name_is_shortened_in_the_question():
    assert did_you_mean("x" * 500, ["x" * 501]) == f"Did you mean {'x' * 79 + '…'!r}?"
