"""An open connection whose peer has the right keys and the worst intentions: what is fed are payloads, and raw packets."""

from interpeer import Config
from interpeer._core.probe_conn import Lone
from tests.fuzz.source import Source

MS = 1_000_000
LIMITS = Config(max_streams=6, stream_window_bytes=4096, connection_window_bytes=16384, datagram_queue_bytes=4096).core_limits()
PEER = {
    "max_data": 1 << 20, "max_stream_data": 1 << 16, "max_streams": 6, "max_datagram": 1200, "max_udp_payload": 1472,
    "max_ack_delay_us": 5000, "idle_timeout_ms": 30_000,
}  # fmt: skip


def feed(data: bytes) -> None:
    source = Source(data)
    conn = Lone(limits=LIMITS, peer=PEER, is_initiator=bool(source.byte(2)))
    conn.give_entropy(bytes(range(256)))
    say_something(conn)
    now_ns = MS
    for _ in range(64):
        if not source:
            break
        how = source.byte()
        ecn = how >> 4 & 3
        if how & 3 == 3:
            conn.feed_packet(source.piece(), now_ns, ecn=ecn)
        else:
            conn.feed(source.piece(), now_ns, ecn=ecn)
        if how & 4:
            now_ns = max(now_ns, conn.deadline_ns) if how & 8 else now_ns + MS
            conn.handle_timeout(now_ns)
        listen(conn)
        conn.transmit(now_ns)  # it asserts that what is said can be read


def say_something(conn: Lone) -> None:
    """Have data, a datagram and the end of a stream on their way, for acknowledgements to hit."""
    for size in (10, 5000):
        stream = conn.open_stream()
        conn.write(stream, bytes(size))
    conn.finish(stream)
    conn.send_datagram(b"a datagram")
    conn.transmit(1)


def listen(conn: Lone) -> None:
    """Read and let go of what the peer has opened, as an application would."""
    while (stream := conn.accept_stream()) is not None:
        conn.read(stream, 100)
        if stream & 4:
            conn.release(stream)
    while conn.recv_datagram() is not None:
        pass
