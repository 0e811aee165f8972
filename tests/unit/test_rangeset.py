"""Sets of ranges: what merges, what splits, and what no longer fits."""

import pytest

from interpeer._core.probe_memory import Ranges


def ranges(*pairs, limit=64):
    result = Ranges(limit)
    for start, end in pairs:
        assert result.add(start, end)
    return result


def test_numbers_in_order_are_one_range():
    found = Ranges(1)
    for number in range(1000):
        assert found.add(number, number + 1)
    assert list(found) == [(0, 1000)]


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ((5, 10), [(5, 10), (20, 30), (40, 50)]),
        ((15, 20), [(15, 30), (40, 50)]),
        ((15, 25), [(15, 30), (40, 50)]),
        ((20, 30), [(20, 30), (40, 50)]),
        ((22, 28), [(20, 30), (40, 50)]),
        ((25, 35), [(20, 35), (40, 50)]),
        ((30, 40), [(20, 50)]),
        ((30, 39), [(20, 39), (40, 50)]),
        ((31, 40), [(20, 30), (31, 50)]),
        ((32, 38), [(20, 30), (32, 38), (40, 50)]),
        ((0, 100), [(0, 100)]),
        ((45, 60), [(20, 30), (40, 60)]),
        ((50, 60), [(20, 30), (40, 60)]),
        ((51, 60), [(20, 30), (40, 50), (51, 60)]),
        ((7, 7), [(20, 30), (40, 50)]),
        ((9, 3), [(20, 30), (40, 50)]),
    ],
)
def test_ranges_that_overlap_or_touch_become_one(added, expected):
    found = ranges((20, 30), (40, 50))
    assert found.add(*added)
    assert list(found) == expected


@pytest.mark.parametrize(
    ("removed", "expected"),
    [
        ((0, 20), [(20, 30), (40, 50)]),
        ((0, 21), [(21, 30), (40, 50)]),
        ((20, 30), [(40, 50)]),
        ((22, 28), [(20, 22), (28, 30), (40, 50)]),
        ((29, 41), [(20, 29), (41, 50)]),
        ((0, 100), []),
        ((49, 60), [(20, 30), (40, 49)]),
        ((30, 40), [(20, 30), (40, 50)]),
        ((25, 25), [(20, 30), (40, 50)]),
    ],
)
def test_removing_shortens_splits_and_takes_away(removed, expected):
    found = ranges((20, 30), (40, 50))
    assert found.remove(*removed)
    assert list(found) == expected


@pytest.mark.row("S2")
def test_more_ranges_than_the_limit_are_refused_and_change_nothing():
    found = ranges((1, 2), (4, 6), (8, 10), limit=3)
    for start, end in ((12, 13), (2**63, 2**63 + 1)):
        assert not found.add(start, end)
    assert list(found) == [(1, 2), (4, 6), (8, 10)]
    full = ranges((0, 10), limit=1)
    assert not full.remove(4, 5) and not full.add(11, 12)
    assert list(full) == [(0, 10)]
    assert not Ranges(0).add(0, 1)


def test_full_set_still_grows_and_merges():
    found = ranges((0, 2), (4, 6), limit=2)
    assert found.add(6, 7) and found.add(2, 4)
    assert list(found) == [(0, 7)]
    assert found.add(10, 11) and not found.add(20, 21)


def test_dropping_the_lowest_takes_one_range():
    found = ranges((0, 2), (4, 6))
    found.drop_lowest()
    assert list(found) == [(4, 6)]
    found.drop_lowest()
    found.drop_lowest()
    assert list(found) == []


def test_ranges_reach_from_zero_to_the_greatest_number():
    found = ranges((0, 1), (2**64 - 2, 2**64 - 1))
    assert 0 in found and 2**64 - 2 in found and 2**64 - 1 not in found and 1 not in found
    assert found.add(0, 2**64 - 1)
    assert list(found) == [(0, 2**64 - 1)]


def test_emptied_set_gives_a_large_array_back():
    found = Ranges(1000)
    for number in range(0, 200, 2):
        found.add(number, number + 1)
    assert found.capacity >= 100
    found.remove(0, 200)
    assert found.capacity <= 8
