from types import SimpleNamespace

import pytest

from qaserve.common.errors import UsageError
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


@pytest.mark.parametrize(("name", "value"), [("q", "bread \ud83c"), ("topics", "\udfff"), ("routing", "\ud800")])
def test_half_a_surrogate_pair_is_ignored_and_said_in_letters_that_can_be_sent(address, name, value):
    address[name] = value
    said = []
    state.st.warning = lambda text, **_: said.append(text)
    with state.in_address("search"):
        assert not state.get(name)
    assert "\N{REPLACEMENT CHARACTER}" in said[0]
    said[0].encode()


def test_a_question_whose_answer_failed_is_in_the_address(address):
    def draw():
        with state.in_address("search"):
            state.keep("q", "the question")
            raise UsageError("too long")

    with pytest.raises(UsageError, match="too long"):
        draw()
    assert address.get_all("q") == ["the question"]
