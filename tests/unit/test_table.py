"""The hash table from numbers to pointers."""

import random

from interpeer._core.probe_memory import Map


def test_key_is_found_until_it_is_removed():
    table = Map()
    assert table.find(5) == 0 and table.remove(5) == 0
    table.put(5, 50)
    assert table.find(5) == 50 and table.find(6) == 0
    table.put(5, 51)
    assert table.find(5) == 51 and len(table) == 1
    assert table.remove(5) == 51 and table.remove(5) == 0
    assert table.find(5) == 0 and len(table) == 0


def test_table_of_100_000_keys_grows_and_shrinks(seed):
    chance, table = random.Random(seed), Map()
    keys = list({chance.getrandbits(64) | 1 for _ in range(100_000)})
    for key in keys:
        table.put(key, key >> 16 | 1)
    assert all(table.find(key) == key >> 16 | 1 for key in keys)
    largest = table.capacity
    chance.shuffle(keys)
    for key in keys[10:]:
        assert table.remove(key) == key >> 16 | 1
    assert all(table.find(key) for key in keys[:10]) and not any(table.find(key) for key in keys[10:1000])
    assert table.capacity < largest / 1000
    for key in keys[:10]:
        table.remove(key)
    assert table.capacity == 0


def test_zero_is_never_found():
    table = Map()
    for key in range(1, 7):
        table.put(key, key)
    assert table.find(0) == 0


def test_keys_that_meet_in_one_slot_are_told_apart_when_some_leave():
    """Multiples of the slots' number times the inverse of the multiplier all begin at the same slot."""
    inverse = pow(0x9E3779B97F4A7C15, -1, 2**64)
    keys = [(i << 48 | 1 << 40) * inverse % 2**64 for i in range(1, 13)]
    for first in range(12):
        table = Map()
        for key in keys:
            table.put(key, key)
        for i in range(12):
            assert table.remove(keys[(first + 5 * i) % 12]) == keys[(first + 5 * i) % 12]
            left = [keys[(first + 5 * j) % 12] for j in range(i + 1, 12)]
            assert all(table.find(key) == key for key in left)
