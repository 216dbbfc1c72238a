"""Calls are counted over any minute, and callers who stay away are forgotten."""

import threading
from types import SimpleNamespace

import pytest

from qaserve.api import auth
from qaserve.api.auth import Recent


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [1_000.0]
    monkeypatch.setattr(auth, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_calls_of_any_minute_are_counted(clock):
    calls = Recent(3)
    for second in (0.0, 10.0, 20.0):
        clock[0] = 1_000.0 + second
        assert calls.wait("a") == 0.0
        calls.count("a")
    assert calls.wait("a") == 40.0
    assert calls.wait("b") == 0.0
    clock[0] = 1_059.9
    assert calls.wait("a") == pytest.approx(0.1)
    clock[0] = 1_060.0
    assert calls.wait("a") == 0.0
    calls.count("a")
    assert calls.wait("a") == 10.0


def test_callers_who_stay_away_are_forgotten(clock):
    calls = Recent(2)
    for number in range(1_000):
        calls.count(str(number))
    clock[0] += 30
    calls.count("0")
    clock[0] += 31
    calls.count("new")
    assert list(calls._calls) == ["0", "new"]


def test_counting_starts_no_thread():
    before, calls = set(threading.enumerate()), Recent(1_000)
    for _ in range(100):
        calls.wait("a")
        calls.count("a")
    assert set(threading.enumerate()) <= before
