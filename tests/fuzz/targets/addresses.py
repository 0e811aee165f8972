"""Words that somebody was given and pastes: ids, addresses, tickets, endpoints. Refused with ValueError, or round-trip."""

from interpeer._address import Address, Endpoint, _check, split_host_port
from interpeer._cli.errors import Misuse
from interpeer._cli.target import parse_target
from interpeer._driver import parse_listen
from interpeer._identity import Identity, PeerId, from_base32, to_base32
from tests.fuzz.source import Source

PEER = Identity.from_seed(bytes(32)).id


def feed(data: bytes) -> None:
    source = Source(data)
    kind = source.byte(4)
    if kind == 0:  # what has the right checksum
        body = b"\1" + bytes(PEER) + source.rest()
        text = to_base32(body + _check(body))
    elif kind == 1:
        text = f"{PEER}@{source.rest().decode('utf-8', 'replace')}"
    elif kind == 2:
        text = to_base32(source.rest())
    else:
        text = source.rest().decode("utf-8", "replace")
    for read in (Address, PeerId, Endpoint.parse, from_base32, split_host_port, parse_listen):
        try:
            found = read(text)
        except ValueError:
            continue
        if isinstance(found, Address | PeerId):
            assert type(found)(str(found)) == found
        elif isinstance(found, Endpoint):
            assert Endpoint.parse(str(found)) == found
        elif isinstance(found, bytes):
            assert to_base32(found) == text
    try:
        parse_target(text)
    except Misuse as error:
        assert "\n" not in str(error)
