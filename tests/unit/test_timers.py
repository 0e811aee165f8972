"""The heap of deadlines."""

import random

from interpeer._core.probe_memory import Clock


def fired(clock, now_ns):
    found = []
    while (index := clock.due(now_ns)) is not None:
        found.append(index)
    return found


def test_timers_come_in_order_of_their_deadlines():
    clock = Clock(4)
    for index, deadline in enumerate((40, 10, 30, 20)):
        clock.set(index, deadline)
    assert clock.next_ns == 10
    assert fired(clock, 9) == []
    assert fired(clock, 10) == [1]
    assert fired(clock, 35) == [3, 2]
    assert clock.next_ns == 40 and len(clock) == 1
    assert fired(clock, 2**64 - 1) == [0]
    assert clock.next_ns == 0 and fired(clock, 2**64 - 1) == []


def test_timer_is_moved_both_ways_and_unset():
    clock = Clock(3)
    for index in range(3):
        clock.set(index, 10 + index)
    clock.set(2, 5)
    assert clock.next_ns == 5
    clock.set(2, 50)
    clock.set(0, 0)
    clock.set(0, 0)
    assert clock.next_ns == 11 and len(clock) == 2
    assert fired(clock, 50) == [1, 2]


def test_timer_may_be_set_again_when_it_has_fired():
    clock = Clock(1)
    for deadline in range(1, 5):
        clock.set(0, deadline)
        assert fired(clock, deadline) == [0]


def test_ten_thousand_timers_under_a_storm_of_changes(seed):
    chance, clock, model = random.Random(seed), Clock(10_000), {}
    for _ in range(50_000):
        index, deadline = chance.randrange(10_000), chance.choice((0, chance.randrange(1, 10**6)))
        clock.set(index, deadline)
        model[index] = deadline
    model = {index: deadline for index, deadline in model.items() if deadline}
    assert len(clock) == len(model)
    order = [model[index] for index in fired(clock, 10**6)]
    assert order == sorted(model.values())
