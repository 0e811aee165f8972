"""interpeer.testing's clock: order, and nothing before its time."""

import pytest

from interpeer.testing import SimClock


def test_callbacks_come_in_order_of_time_and_then_of_asking():
    clock, seen = SimClock(), []
    for delay, name in ((3, "c"), (1, "a"), (3, "d"), (2, "b")):
        clock.at(clock.start_ns + delay, seen.append, name)
    clock.advance_to(clock.start_ns + 3)
    assert seen == ["a", "b", "c", "d"]


def test_each_callback_finds_the_clock_at_its_time():
    clock, seen = SimClock(start_s=5), []
    clock.at(clock.start_ns + 1000, lambda: seen.append(clock.now_ns - clock.start_ns))
    clock.advance_s(1)
    assert seen == [1000]
    assert clock.now_s == 1.0


def test_what_is_asked_for_in_the_past_happens_now_and_time_does_not_go_back():
    clock, seen = SimClock(), []
    clock.advance_s(1)
    clock.at(clock.start_ns, lambda: seen.append(clock.now_s))
    clock.advance_to(clock.now_ns)
    clock.advance_to(clock.start_ns)
    assert seen == [1.0]
    assert clock.now_s == 1.0


def test_what_a_callback_asks_for_at_the_same_moment_still_happens():
    clock, seen = SimClock(), []
    clock.at(clock.now_ns, lambda: clock.at(clock.now_ns, seen.append, "second"))
    clock.advance_to(clock.now_ns)
    assert seen == ["second"]


def test_step_does_one_thing_and_tells_when_there_is_none():
    clock, seen = SimClock(), []
    clock.at(clock.now_ns + 7, seen.append, 1)
    clock.at(clock.now_ns + 9, seen.append, 2)
    assert clock.next_ns == clock.start_ns + 7
    assert clock.step()
    assert seen == [1]
    assert clock.step()
    assert not clock.step()
    assert clock.next_ns is None


def test_a_clock_does_not_start_at_zero_which_means_never():
    with pytest.raises(ValueError, match="later than 0"):
        SimClock(start_s=0)
