"""The table of kinds of NAT: what it says of each, and where a punch can work."""

import re

import pytest

from interpeer.testing import Allocation, Dependence, NatBehaviour, NatKind
from interpeer.testing._natkind import can_punch

EASY = {NatKind.FULLCONE, NatKind.PUBLIC, NatKind.ADDR, NatKind.SYMMETRIC_EI}
STRICT = {NatKind.FIREWALL, NatKind.PORT, NatKind.PORT_RANDOM, NatKind.LINUX, NatKind.DOUBLE, NatKind.CGN, NatKind.CGN_HAIRPIN}
HARD = {NatKind.SYMMETRIC, NatKind.SYMMETRIC_BLOCK, NatKind.SYMMETRIC_SEQ, NatKind.SYMMETRIC_AD}
NO_UDP = {NatKind.UDPBLOCK, NatKind.TCP443}


def test_every_kind_is_easy_strict_hard_or_takes_no_udp():
    assert sorted([*EASY, *STRICT, *HARD, *NO_UDP]) == sorted(NatKind)
    assert {kind for kind in NatKind if not kind.behaviour.udp} == NO_UDP


@pytest.mark.parametrize("one", NatKind)
@pytest.mark.parametrize("other", NatKind)
def test_a_punch_works_unless_one_is_hard_and_the_other_asks_for_the_port(one, other):
    is_blocked = bool({one, other} & NO_UDP)
    is_hopeless = (one in HARD and other in HARD | STRICT) or (other in HARD and one in HARD | STRICT)
    assert can_punch(one.behaviour, other.behaviour) == (not is_blocked and not is_hopeless)


def test_a_behaviour_is_a_changed_kind():
    short = NatKind.SYMMETRIC_SEQ.behaviour.replace(step=-2, lifetime_s=20)
    assert (short.mapping, short.step, short.lifetime_s) == (Dependence.ADDRESS_AND_PORT_DEPENDENT, -2, 20)
    assert not short.preserves_port and not short.is_predictable and short.translates


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"allocation": Allocation.SEQUENTIAL, "step": 0}, "step is"),
        ({"allocation": Allocation.SEQUENTIAL, "step": 2000}, "step is"),
        ({"block_ports": 0}, "block_ports is"),
        ({"lifetime_s": 0}, "lifetime_s is"),
        ({"reply_lifetime_s": -1}, "reply_lifetime_s is"),
        ({"mapping": Dependence.NONE, "hairpin": True}, "nothing to turn back"),
    ],
)
def test_what_no_nat_can_be_is_refused(changes, what):
    with pytest.raises(ValueError, match=what):
        NatBehaviour(**changes)


def test_the_documentation_says_what_the_table_says(root):
    page = (root / "docs" / "natlab.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| ([a-z-]+) \| ([a-z-]+) \|", page, re.MULTILINE)
    assert rows == [(kind.value, kind.behaviour.mapping.value, kind.behaviour.filtering.value) for kind in NatKind]
