"""The stream of a tunnel, cut anywhere: whole frames are taken, half ones kept, and what is none ends it."""

from interpeer import Config
from interpeer._core import control, tunnels
from interpeer._core.engine import Engine
from tests.fuzz.source import Source

NUMBER = 1
LIMITS = Config().core_limits()
LARGEST_REST = 1501


def feed(data: bytes) -> None:
    source = Source(data)
    engine = Engine()
    control.configure(engine, bytes(32), b"", False, [b"fuzz/1"], ["chacha20-poly1305"], 8, LIMITS)
    exchange = control.Exchange(engine)
    tunnels.add(engine, NUMBER)
    rest = b""
    for _ in range(64):
        if not source:
            break
        stream = rest + source.piece()
        try:
            used = tunnels.receive(engine, NUMBER, stream)
        except ValueError:
            return
        rest = stream[used:]
        assert used <= len(stream) and len(rest) <= LARGEST_REST
        exchange.handle_timeout(1)
    assert exchange.transmit(1) == []
