"""interpeer.testing's tables of NATs: what they remember, forget, and refuse."""

import random

import pytest

from interpeer.testing import Allocation, Dependence, NatBehaviour, NatKind
from interpeer.testing import _translation as translation
from interpeer.testing._translation import Translator

S = 1_000_000_000
OUTSIDE = b"\0" * 10 + b"\xff\xff\x0d\x00\x00\x01"
INNER = b"\0" * 10 + b"\xff\xff\xc0\xa8\x01\x0a", 5000, 0


def remote(number, port=9):
    return b"\0" * 10 + b"\xff\xff\x0b\x00" + number.to_bytes(2, "big"), port, 0


def table(behaviour, **options):
    return Translator(behaviour.behaviour if isinstance(behaviour, NatKind) else behaviour, OUTSIDE, random.Random(1), **options)


def test_what_is_over_is_let_go_of():
    nat = table(NatKind.SYMMETRIC)
    for number in range(1000):
        nat.outward(INNER, remote(number), S)
    assert nat.live_mappings(S) == 1000
    for number in range(1000, 1100):
        nat.outward(INNER, remote(number), 200 * S)
    assert nat.live_mappings(200 * S) == 100
    assert len(nat._by_inner) == len(nat._by_outer) < 110


def test_a_full_table_refuses_what_is_new(monkeypatch):
    monkeypatch.setattr(translation, "MAX_MAPPINGS", 3)
    nat = table(NatKind.SYMMETRIC)
    outer = [nat.outward(INNER, remote(number), S) for number in range(4)]
    assert None not in outer[:3]
    assert outer[3] is None
    assert nat.outward(INNER, remote(0), S) == outer[0]


def test_strangers_are_tracked_no_further_than_a_table_is_large(monkeypatch):
    monkeypatch.setattr(translation, "MAX_MAPPINGS", 3)
    nat = table(NatKind.LINUX)
    for port in range(100):
        assert nat.inward((OUTSIDE, 1000 + port, 0), remote(1), S) == "not mapped"
    assert nat.live_mappings(S) == 3


def test_a_port_serves_several_remotes_where_the_filter_keeps_them_apart_and_one_where_it_does_not():
    behaviour = NatBehaviour(mapping=Dependence.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM, block_ports=1)
    nat = table(behaviour)
    first, second = (nat.outward(INNER, remote(number), S) for number in (1, 2))
    assert first == second
    assert nat.outward((INNER[0], 5001, 0), remote(1), S) is None
    nat = table(behaviour.replace(filtering=Dependence.ENDPOINT_INDEPENDENT))
    assert nat.outward(INNER, remote(1), S) is not None
    assert nat.outward(INNER, remote(2), S) is None


def test_a_stranger_whom_the_filter_lets_in_moves_the_hosts_mapping_towards_him():
    nat = table(NatKind.SYMMETRIC_EI)
    known, towards = nat.outward(INNER, remote(1), S), nat.outward(INNER, remote(2), S)
    assert known != towards
    assert nat.inward(known, remote(2), S) == INNER
    assert nat.outward(INNER, remote(2), S) == known


@pytest.mark.parametrize("flows_per_s", [5, 50])
def test_flows_of_others_take_ports_at_their_rate(flows_per_s):
    nat = table(NatKind.SYMMETRIC_SEQ)
    nat.let_others_flow(flows_per_s, S)
    first = nat.outward(INNER, remote(1), S)
    last = nat.outward(INNER, remote(2), 101 * S)
    assert 0.8 < (last[1] - first[1]) % 64_512 / (100 * flows_per_s) < 1.2
    assert nat.live_mappings(101 * S) == pytest.approx(100 * flows_per_s, rel=0.2)
    nat.let_others_flow(0, 101 * S)
    assert nat.outward(INNER, remote(3), 200 * S)[1] - last[1] in (1, 1 - 64_512)
