"""The window that tells new packets from replayed ones."""

import random

import pytest

from interpeer._core.probe_memory import Replay

WINDOW = 8192


@pytest.fixture
def window():
    return Replay()


@pytest.mark.row("P1")
def test_each_of_100_000_counters_is_new_once(window, seed):
    counters = list(range(100_000))
    chance = random.Random(seed)
    for start in range(0, len(counters), 4000):  # out of order, but never by more than the window
        part = counters[start : start + 4000]
        chance.shuffle(part)
        counters[start : start + 4000] = part
    for counter in counters:
        assert window.is_new(counter)
        window.accept(counter)
    assert not any(window.is_new(counter) for counter in counters)


@pytest.mark.row("P2")
@pytest.mark.parametrize("newest", [WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 64 * 1000 + 63, 64 * 1000, 2**56 - 1])
def test_edges_of_the_window(window, newest):
    window.accept(newest)
    for behind, is_new in ((1, True), (WINDOW - 2, True), (WINDOW - 1, True), (WINDOW, False), (WINDOW + 1, False)):
        if behind <= newest:
            assert window.is_new(newest - behind) == is_new, behind
    assert window.is_new(newest + 1) and not window.is_new(newest)


def test_nothing_is_seen_before_the_first_packet(window):
    for counter in (0, 1, 63, 64, WINDOW, 2**56 - 1):
        assert window.is_new(counter)


@pytest.mark.row("P3")
def test_asking_changes_nothing(window):
    window.accept(10)
    for counter in (11, 5000, 2**56 - 1):
        assert window.is_new(counter)
    assert window.next == 11
    assert window.is_new(9)


@pytest.mark.parametrize("jump", [64, 8128, 8191, 8192, 8193, 8255, 8256, 8257, 10**9])
def test_jump_ahead_forgets_what_falls_out_and_nothing_else(window, jump):
    for counter in range(200):
        window.accept(counter)
    newest = 199 + jump
    window.accept(newest)
    for counter in range(200):
        assert not window.is_new(counter)
    for counter in range(max(newest - WINDOW + 1, 200), newest):
        assert window.is_new(counter)
