"""The laboratory of NATs as far as it needs no namespaces: its rules, and the settings of its links."""

import itertools
import random
import re

import pytest

from interpeer.testing import Allocation, Dependence, Link, NatBehaviour, NatKind
from interpeer.testing.natlab import Ipv6
from interpeer.testing.natlab._rules import ruleset
from interpeer.testing.natlab._wire import settings

ADDRESS = "20.1.0.2"


def rules(nat, ipv6=Ipv6.OFF, seed=1):
    return ruleset(nat, ADDRESS, ipv6, random.Random(seed))


def pool(nat, seed=1):
    """Return the ports that a NAT walks through."""
    (numbered,) = re.findall(r"numgen inc mod \d+ map \{ (.*) \}", rules(nat, seed=seed))
    return [int(entry.partition(" : ")[2]) for entry in numbered.split(", ")]


def test_a_public_host_needs_no_rules():
    assert rules(NatKind.PUBLIC.behaviour, Ipv6.OPEN) == ""


def test_the_same_seed_draws_the_same_ports():
    nat = NatKind.PORT_RANDOM.behaviour
    assert rules(nat) == rules(nat) != rules(nat, seed=2)


def test_random_ports_are_no_server_ports_and_all_different():
    ports = pool(NatKind.PORT_RANDOM.behaviour)
    assert len(set(ports)) == len(ports) == 4096
    assert min(ports) >= 1024


@pytest.mark.parametrize("step", [1, 2, -3, 512])
def test_sequential_ports_are_a_step_apart(step):
    ports = pool(NatKind.SYMMETRIC_SEQ.behaviour.replace(step=step))
    assert {after - before for before, after in itertools.pairwise(ports)} == {step}
    assert min(ports) >= 1024 and max(ports) <= 65535


def test_a_block_is_one_of_those_that_a_carrier_cuts():
    for seed in range(20):
        (block,) = re.findall(
            rf"snat to {ADDRESS}:(\d+)-(\d+) fully-random", rules(NatKind.SYMMETRIC_BLOCK.behaviour, seed=seed)
        )[1:]
        first, last = map(int, block)
        assert last - first == 511 and first % 512 == 0 and first >= 1024


def test_time_outs_are_those_of_the_behaviour():
    text = rules(NatKind.PORT.behaviour.replace(lifetime_s=1.5, reply_lifetime_s=90))
    assert set(re.findall(r"timeout (\w+)", text)) == {"1500ms", "90000ms"}


def test_the_filter_asks_for_what_the_behaviour_says():
    asked = {filtering: rules(NatBehaviour(filtering=filtering)) for filtering in Dependence}
    assert "udp dport . ip saddr . udp sport @permitted" in asked[Dependence.ADDRESS_AND_PORT_DEPENDENT]
    assert "udp dport . ip saddr @permitted" in asked[Dependence.ADDRESS_DEPENDENT]
    assert "permitted" not in asked[Dependence.ENDPOINT_INDEPENDENT]


def test_plain_masquerade_is_what_the_kernel_does_and_nothing_else():
    assert "masquerade" in rules(NatKind.LINUX.behaviour)
    with pytest.raises(ValueError, match="plain masquerade"):
        rules(NatKind.LINUX.behaviour.replace(allocation=Allocation.RANDOM))


def test_a_link_is_told_in_the_units_of_the_program_that_carries_it():
    words = dict(word.split("=") for word in settings(Link(delay_s=0.015, loss=0.1, rate_bit_per_s=1e6)).split())
    assert (words["delay_ns"], words["loss"], words["rate_bit_per_s"]) == ("15000000", "0.1", "1000000")
    assert words["queue_bytes"] == "-1" and "overhead_bytes" not in words
    assert settings(Link(), 28).startswith("overhead_bytes=28 ")
    with pytest.raises(ValueError, match="CoDel"):
        settings(Link(codel_target_s=0.005))
