"""What is typed to name a peer says all that an address says."""

import asyncio

import pytest

from interpeer import Address, Endpoint, Identity
from interpeer._cli.target import parse_target

PEER, HELPER = (Identity.from_seed(bytes([number]) * 32).id for number in (1, 2))


def test_a_ticket_keeps_its_secret_and_the_peers_through_which_its_owner_is_reached():
    via = Address.of(HELPER, [Endpoint("192.0.2.1", 4433)])
    ticket = Address.of(PEER, [Endpoint("192.168.1.10", 5000)], secret=bytes(16), via=[via])
    assert asyncio.run(parse_target(str(ticket)).resolve()) == ticket


def test_an_address_may_name_a_tunnel():
    target = parse_target(f"{PEER}@192.0.2.1:4433,tls://192.0.2.1:443")
    assert target.places == (Endpoint("192.0.2.1", 4433), Endpoint("192.0.2.1", 443, "tls"))


@pytest.mark.parametrize(
    ("places", "has_udp"),
    [("192.0.2.1:4433,tls://192.0.2.1:443", True), ("host.example:4433", True), ("tls://192.0.2.1:443", False)],
)
def test_udp_is_worth_waiting_for_where_there_is_an_address_for_it(places, has_udp):
    assert parse_target(f"{PEER}@{places}").has_udp is has_udp
