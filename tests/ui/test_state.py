from types import SimpleNamespace

import pytest

from ui import state


class BrokenOff(BaseException):
    """What Streamlit raises where something new is asked while a page is drawn."""


class Address(dict):
    """The query of an address; writing to it reaches the browser, and then the page is broken off."""

    broken = False

    def get_all(self, name):
        return list(self.get(name, []))

    def __setitem__(self, name, value):
        super().__setitem__(name, [value] if isinstance(value, str) else value)
        if self.broken:
            raise BrokenOff


@pytest.fixture
def address(monkeypatch):
    found = Address()
    monkeypatch.setattr(state, "st", SimpleNamespace(session_state={}, query_params=found))
    return found


def test_a_question_asked_while_the_address_of_the_one_before_is_written_is_not_lost(address):
    state.load("search")
    state.keep("q", "the first")
    address.broken = True
    with pytest.raises(BrokenOff):
        state.save()
    address.broken = False
    state.keep("q", "the second")  # what the box says in the next run
    state.load("search")
    assert state.get("q") == "the second"
    state.save()
    assert address.get_all("q") == ["the second"]


def test_an_address_that_somebody_changed_is_taken_over(address):
    state.load("search")
    state.keep("q", "the first")
    state.save()
    address["q"] = "typed"
    state.load("search")
    assert state.get("q") == "typed"


def drawn(question):
    """A run of the page in which the box says this."""
    state.st.session_state[state.widget("q")] = question
    state.load("search")
    state.keep("q", state.st.session_state.get(state.widget("q"), state.get("q")))
    state.save()
    state.offer("q")
    state.remember_widgets()


def test_going_back_at_once_is_not_lost(address):
    drawn("the first")
    state.load("search")  # the browser has received it
    drawn("the second")
    address["q"] = "the first"  # the browser went back; no widget changed
    state.load("search")
    assert state.get("q") == "the first"


def test_going_back_while_the_page_is_still_being_drawn_is_not_lost(address):
    drawn("the first")
    state.load("search")
    state.st.session_state[state.widget("q")] = "the second"
    state.load("search")
    state.save()  # what follows is broken off
    address["q"] = "the first"
    state.load("search")
    assert state.get("q") == "the first"


def test_an_address_older_than_the_last_writing_is_no_news_while_a_widget_changes(address):
    drawn("the first")
    state.load("search")
    drawn("the second")
    address["q"] = "the first"  # sent with the next question, before the browser received the second
    drawn("the third")
    assert state.get("q") == "the third"
    assert address.get_all("q") == ["the third"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("q", "\0"),
        ("top_k", "99999"),
        ("top_k", "0"),
        ("top_k", "9" * 5_000),
        ("routing", "psychic"),
        ("projection", "psychic"),
        ("temperature", "nan"),
        ("temperature", "inf"),
        ("final_temperature", "-1"),
        ("hits", "-5"),
        ("lexical_weight", "1.5"),
        ("priors", "perhaps"),
        ("cluster", "-1"),
        ("cluster", "9" * 30),
        ("topics", "x" * 5_000),
        ("topics", "a\0b"),
    ],
)
def test_a_value_that_cannot_be_used_is_ignored_and_noted(address, name, text):
    address[name] = text
    state.load("search")
    assert not state.get(name)
    assert state.ignored() == {name: [text]}
    state.request()
    state.save()
    assert address.get_all(name) == []
    state.keep("q", "another question")
    assert state.ignored() == {}


def test_a_list_that_is_too_long_is_cut_and_noted(address):
    address["topics"] = [f"topic{number}" for number in range(5_000)]
    state.load("search")
    assert len(state.get("topics")) == state.MOST_VALUES
    assert "topics" in state.ignored()
