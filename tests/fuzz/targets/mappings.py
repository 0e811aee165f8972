"""What gateways answer: PCP and NAT-PMP beside the twin, then as answers to a mapping that is being asked for; SSDP; routes."""

import ctypes
import ipaddress
from contextlib import suppress

from interpeer._core import portmap
from interpeer._portmap import gateway, igd
from interpeer._portmap.answers import Kind, Wish, is_usable
from interpeer._portmap.dialects import NatPmp, Pcp
from interpeer._portmap.machine import LIFETIME_S, Machine
from tests.fuzz.source import Source
from tests.models import portmap as model

NONCE = bytes(range(12))
WISH = Wish(4433, 4433, None, LIFETIME_S, NONCE)


def feed(data: bytes) -> None:
    exact = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)  # no zero behind it that a reader might step on
    assert portmap.parse_pcp(exact) == model.read_pcp(data)
    assert portmap.parse_natpmp(exact) == model.read_natpmp(data)
    location = igd.parse_reply(data)
    assert location is None or (location.isprintable() and len(location) <= igd.MAX_REPLY_BYTES)
    text = data.decode("utf-8", "replace")
    for read in (gateway.parse_routes, gateway.parse_routes_ipv6):
        with suppress(ValueError):
            assert read(text) is None or ipaddress.ip_address(read(text))
    converse(Source(data))


def converse(source: Source) -> None:
    """Let a gateway say pieces of the input to a machine."""
    dialect = Pcp("192.0.2.9") if source.byte(2) else NatPmp()
    machine = Machine(WISH.internal_port, 0.0, random_bytes=lambda n: NONCE[:n].ljust(n, b"\0"), epoch=dialect.epoch)
    now_s = 0.0
    for _ in range(64):
        if not source:
            break
        while (wish := machine.poll_request(now_s)) is not None:
            dialect.requests(wish)
        answer = dialect.parse(source.piece())
        if answer is not None:
            assert answer.kind is not Kind.GRANTED or (answer.port and is_usable(str(answer.host)))
            machine.handle_answer(answer, now_s)
        grant = machine.poll_verification(now_s)
        if source.byte(2) and grant is not None:
            machine.handle_verdict(grant, (True, False, None)[source.byte(3)], now_s)
        now_s += source.byte() * 10
        machine.handle_timeout(now_s)
        while machine.poll_request(now_s) is not None:
            pass
        machine.poll_verification(now_s)
        assert machine.poll_timeout() > now_s
        assert machine.grant is None or 10 <= machine.grant.lifetime_s <= LIFETIME_S
