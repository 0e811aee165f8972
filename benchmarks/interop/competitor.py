"""The TCP of interpeer.testing between two real sockets: a competitor for the link between processes.

The sender sends to whoever says hello first; the receiver says so, through the link."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable

from interpeer._bench.end import Control, Facts
from interpeer.testing._tcp import MSS_BYTES, TcpReceiver, TcpSender

_HELLO = b"\x80"  # as a packet under keys begins: whoever has sent one has proved its address


def send(control: Control) -> Facts:
    """Send by TCP until told to stop."""
    sender = TcpSender()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        control.tell(port=sock.getsockname()[1])
        _data, receiver_at = sock.recvfrom(2048)

        def turn(arrived: list[bytes]) -> int | None:
            for data in arrived:
                sender.handle_ack(data, time.monotonic_ns())
            sender.handle_timeout(time.monotonic_ns())
            for segment in sender.poll_transmit(time.monotonic_ns()):
                sock.sendto(segment, receiver_at)
            return sender.poll_timeout()

        _run(control, sock, turn)
    return {"retransmissions": sender.retransmissions, "timeouts": sender.timeouts}


def receive(control: Control, *, port: int) -> Facts:
    """Receive by TCP what comes for a hello to a port, until told to stop."""
    receiver, start_s = TcpReceiver(), time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        sock.send(_HELLO)

        def turn(arrived: list[bytes]) -> int | None:
            answers = [receiver.handle_segment(data, time.monotonic_ns()) for data in arrived]
            for answer in (*answers, receiver.handle_timeout(time.monotonic_ns())):
                if answer is not None:
                    sock.send(answer)
            return receiver.poll_timeout()

        _run(control, sock, turn)
    return {"bytes": receiver.received_segments * MSS_BYTES, "seconds": time.monotonic() - start_s}


def _run(control: Control, sock: socket.socket, turn: Callable[[list[bytes]], int | None]) -> None:
    """Give turns when something has arrived, and at the deadline that the last one returned, until told to stop."""
    sock.setblocking(False)
    with selectors.DefaultSelector() as poller:
        poller.register(sock, selectors.EVENT_READ)
        poller.register(control, selectors.EVENT_READ)
        deadline_ns = turn([])
        while True:
            wait_s = None if deadline_ns is None else max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9)
            ready = poller.select(wait_s)
            if any(key.fileobj is control for key, _events in ready):
                return
            deadline_ns = turn(_drain(sock))


def _drain(sock: socket.socket) -> list[bytes]:
    found: list[bytes] = []
    try:
        while len(found) < 64:
            found.append(sock.recv(65536))
    except BlockingIOError:
        pass
    return found
