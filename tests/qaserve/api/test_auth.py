"""Calls are counted over any minute, and callers who stay away are forgotten."""

import asyncio
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from fastapi.security import HTTPAuthorizationCredentials

from qaserve.api import auth
from qaserve.api.auth import RateLimiter, Recent
from qaserve.common.errors import LimitError


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


@pytest.mark.parametrize("keyed", [False, True])
def test_a_key_tells_callers_apart_only_where_there_are_keys(keyed):
    allowance, request = RateLimiter(1, keyed=keyed), SimpleNamespace(client=SimpleNamespace(host="::1"))
    first, second = (HTTPAuthorizationCredentials(scheme="Bearer", credentials=one) for one in "ab")
    asyncio.run(allowance(request, first))
    with nullcontext() if keyed else pytest.raises(LimitError):
        asyncio.run(allowance(request, second))
