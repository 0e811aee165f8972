"""ZeroMQ with CURVE, by pyzmq's blocking sockets: the library's own thread encrypts and sends beside Python.

ZeroMQ bundles small messages by itself and has no call for many at once: batches are sent one by one. A pair of PAIR
sockets carries the loads of one connection; handshakes and idle connections are DEALER sockets, one a connection, at
one ROUTER. A server takes any client (no ZAP); a client knows the server's key beforehand.
"""

import time
from typing import Any

import zmq

from interpeer._bench import loads
from interpeer._bench.end import Control, Facts, Stopwatch, raise_descriptor_limit, resident_bytes

CHUNK_BYTES = 1 << 20
CHUNKS_QUEUED = 4
MESSAGES_QUEUED = 100_000
HELLO = b"\x01"
END = b""


def version() -> str:
    return f"pyzmq {zmq.pyzmq_version()}, libzmq {zmq.zmq_version()}"


def serve(control: Control, *, part: str, **_: Any) -> Facts:
    public, secret = zmq.curve_keypair()
    kind, load = SERVERS[part]
    with _context() as context, context.socket(kind) as sock:
        sock.curve_server = True
        sock.curve_secretkey = secret
        sock.hwm = CHUNKS_QUEUED if part == "bulk" else MESSAGES_QUEUED
        sock.setsockopt(zmq.BACKLOG, 1024)
        control.tell(port=sock.bind_to_random_port("tcp://127.0.0.1"), server_key=public.decode())
        return load(control, sock)


def dial(control: Control, *, part: str, port: int, server_key: str, seconds: float) -> Facts | None:
    with _context() as context:
        return CLIENTS[part](_Dialler(context, part, port, server_key), control, seconds)


def _context() -> zmq.Context:
    raise_descriptor_limit()
    context = zmq.Context()
    context.setsockopt(zmq.MAX_SOCKETS, 2 * loads.IDLE_CONNECTIONS)
    context.setsockopt(zmq.LINGER, 0)
    return context


class _Dialler:
    """Makes client sockets that are on their way to the server."""

    def __init__(self, context: zmq.Context, part: str, port: int, server_key: str) -> None:
        self._context = context
        self._queued = CHUNKS_QUEUED if part == "bulk" else MESSAGES_QUEUED
        self._address = f"tcp://127.0.0.1:{port}"
        self._server_key = server_key.encode()
        self._keys = zmq.curve_keypair()

    def __call__(self, kind: int) -> zmq.Socket:
        """Return a socket that connects, and has said hello."""
        sock = self._context.socket(kind)
        sock.curve_serverkey = self._server_key
        sock.curve_publickey, sock.curve_secretkey = self._keys
        sock.hwm = self._queued
        sock.connect(self._address)
        sock.send(HELLO)
        return sock


def _serve_bulk(control: Control, sock: zmq.Socket) -> Facts:
    sock.recv()
    count = 0
    watch = Stopwatch()
    while size := len(sock.recv(copy=False).buffer):
        count += size
    figures = {"bytes": count, **watch.read()}
    sock.send(loads.COUNT.pack(count))
    control.wait_stop()
    return figures


def _dial_bulk(dialler: _Dialler, _control: Control, seconds: float) -> Facts:
    with dialler(zmq.PAIR) as sock:
        chunk = bytes(CHUNK_BYTES)
        sent = 0
        watch = Stopwatch()
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            sock.send(chunk, copy=False)
            sent += CHUNK_BYTES
        sock.send(END)
        assert loads.COUNT.unpack(sock.recv())[0] == sent
        return {"bytes": sent, **watch.read()}


def _serve_messages(control: Control, sock: zmq.Socket) -> Facts:
    recv = sock.recv
    recv()
    count = 0
    watch = Stopwatch()
    while recv():
        count += 1
    figures = {"received": count, **watch.read()}
    sock.send(loads.COUNT.pack(count))
    control.wait_stop()
    return figures


def _dial_messages(dialler: _Dialler, _control: Control, seconds: float) -> Facts:
    with dialler(zmq.PAIR) as sock:
        send, message = sock.send, loads.MESSAGE
        sent = 0
        watch = Stopwatch()
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            for _ in range(loads.BATCH_MESSAGES):
                send(message)
            sent += loads.BATCH_MESSAGES
        send(END)
        sock.recv()
        return {"sent": sent, **watch.read()}


def _serve_echo(control: Control, sock: zmq.Socket) -> Facts:
    sock.send(sock.recv())
    while message := sock.recv():
        sock.send(message)
    control.wait_stop()
    return {}


def _dial_ping(dialler: _Dialler, _control: Control, seconds: float) -> Facts:
    with dialler(zmq.PAIR) as sock:
        sock.recv()
        times_ns = []
        clock = time.perf_counter_ns
        deadline_ns = clock() + int(seconds * 1e9)
        sent_ns = 0
        while sent_ns < deadline_ns:
            sent_ns = clock()
            sock.send(loads.MESSAGE)
            sock.recv()
            times_ns.append(clock() - sent_ns)
        sock.send(END)
        return loads.round_trips(times_ns)


def _messages_until_stop(control: Control, sock: zmq.Socket) -> Any:
    """Yield (sender, message) of every message that comes, until this end shall stop."""
    poller = zmq.Poller()
    poller.register(sock, zmq.POLLIN)
    poller.register(control, zmq.POLLIN)
    while True:
        ready = dict(poller.poll())
        if control.fileno() in ready:
            return
        try:
            while True:
                yield sock.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            pass


def _serve_greeting(control: Control, sock: zmq.Socket) -> Facts:
    count = 0
    for sender, _ in _messages_until_stop(control, sock):
        sock.send_multipart((sender, HELLO))
        count += 1
    return {"handshakes": count}


def _dial_many(dialler: _Dialler, seconds: float, in_flight: int) -> Facts:
    poller = zmq.Poller()
    completed = 0
    deadline = time.perf_counter() + seconds
    for _ in range(in_flight):
        poller.register(dialler(zmq.DEALER), zmq.POLLIN)
    while poller.sockets:
        for sock, _ in poller.poll():
            sock.recv()
            poller.unregister(sock)
            sock.close()
            if time.perf_counter() < deadline:
                completed += 1
                poller.register(dialler(zmq.DEALER), zmq.POLLIN)
    return {"handshakes": completed, "seconds": seconds}


def _dial_handshakes(dialler: _Dialler, _control: Control, seconds: float) -> Facts:
    return _dial_many(dialler, seconds, loads.HANDSHAKES_IN_FLIGHT)


def _dial_handshakes_in_a_row(dialler: _Dialler, _control: Control, seconds: float) -> Facts:
    return _dial_many(dialler, seconds, 1)


def _serve_idle(control: Control, sock: zmq.Socket) -> Facts:
    memory = loads.IdleServer()
    missing: dict[bytes, int] = {}
    for sender, message in _messages_until_stop(control, sock):
        if sender not in missing:
            missing[sender] = loads.IDLE_BYTES
            memory.opened()
        else:
            missing[sender] -= len(message)
            if missing[sender]:
                continue
            memory.moved()
        sock.send_multipart((sender, HELLO))
    return memory.figures()


def _dial_idle(dialler: _Dialler, control: Control, _seconds: float) -> None:
    piece = bytes(loads.IDLE_PIECE_BYTES)

    def connect(count: int) -> list[zmq.Socket]:
        connections = []
        for _ in range(count):
            sock = dialler(zmq.DEALER)
            sock.recv()
            connections.append(sock)
        return connections

    def move(connections: list[zmq.Socket]) -> None:
        for sock in connections:
            for _ in range(loads.IDLE_BYTES // loads.IDLE_PIECE_BYTES):
                sock.send(piece)
            sock.recv()

    warm = connect(loads.IDLE_WARM_UP)
    move(warm)
    before = resident_bytes()
    connections = connect(loads.IDLE_CONNECTIONS)
    fresh = resident_bytes() - before
    move(connections)
    control.tell(connections=len(connections), fresh_bytes=fresh, used_bytes=resident_bytes() - before)
    control.wait_stop()
    for sock in warm + connections:
        sock.close()


SERVERS = {
    "bulk": (zmq.PAIR, _serve_bulk),
    "msgs": (zmq.PAIR, _serve_messages),
    "msgs-single": (zmq.PAIR, _serve_messages),
    "ping": (zmq.PAIR, _serve_echo),
    "handshakes": (zmq.ROUTER, _serve_greeting),
    "handshakes-in-a-row": (zmq.ROUTER, _serve_greeting),
    "idle": (zmq.ROUTER, _serve_idle),
}
CLIENTS = {
    "bulk": _dial_bulk,
    "msgs": _dial_messages,
    "msgs-single": _dial_messages,
    "ping": _dial_ping,
    "handshakes": _dial_handshakes,
    "handshakes-in-a-row": _dial_handshakes_in_a_row,
    "idle": _dial_idle,
}
