import threading

import pytest

from qaserve.common.fair_lock import FairLock


def test_who_waits_comes_before_the_thread_that_just_had_it():
    turns, order = FairLock(), []

    def ask():
        with turns:
            order.append("question")

    asker = threading.Thread(target=ask)
    with turns:
        asker.start()
        while not turns.wanted:
            assert asker.is_alive()
        order.append("first step")
    with turns:
        order.append("second step")
    asker.join()
    assert order == ["first step", "question", "second step"]


def test_a_thread_may_take_it_again_also_while_another_waits():
    turns, order = FairLock(), []

    def ask():
        with turns:
            order.append("other")

    other = threading.Thread(target=ask)
    with turns:
        other.start()
        while not turns.wanted:
            assert other.is_alive()
        with turns, turns:
            order.append("inner")
        order.append("outer")
    other.join()
    assert order == ["inner", "outer", "other"]
    assert not turns.wanted


def test_an_error_lets_go_of_it():
    turns = FairLock()
    with pytest.raises(ValueError, match="x"), turns:
        raise ValueError("x")
    other = threading.Thread(target=turns.__enter__)
    other.start()
    other.join(60)
    assert not other.is_alive()


def test_one_thread_at_a_time():
    turns, inside, most = FairLock(), [], []

    def work():
        for _ in range(200):
            with turns:
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (max(most), len(most)) == (1, 800)
