"""Turns of the pump while a socket is full."""

import os
import select
import socket
import sys
import threading

import pytest

from interpeer import Config
from interpeer._core import control, pump
from interpeer._core.connection_handle import EVENT_CLOSED
from interpeer._core.engine import Engine
from interpeer._core.pump import Pump

LOCALHOST = bytes(10) + b"\xff\xff\x7f\0\0\1"
PROTOCOL = b"pump/1"
FEW = 20  # turns; one that asks for itself comes to hundreds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a full socket is made of one with SOCK_SEQPACKET")


def put_full_socket_at(descriptor):
    """Put a socket that takes nothing in the place of a descriptor; return the other end, which keeps it full."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left:
        left.setblocking(False)
        try:
            while True:
                left.send(bytes(1000))
        except BlockingIOError:
            os.dup2(left.fileno(), descriptor)
    return right


class Calling:
    """A pump whose engine calls somebody, for 50 ms, through a socket that is full; beside it is one that is not."""

    def __init__(self, with_timer):
        self.engine = Engine()
        limits = Config(connect_timeout_s=0.05).core_limits()
        control.configure(self.engine, bytes(32), b"", False, [PROTOCOL], ["chacha20-poly1305"], 8, limits)
        self.pump = Pump(self.engine, with_timer=with_timer)
        for _ in range(2):
            self.pump.open((LOCALHOST, 0, 0), 0)
        self.other_end = put_full_socket_at(self.pump.descriptors()[0])
        self.handle = control.connect(self.engine, control.identity_of(bytes([1]) * 32), [(LOCALHOST, 9, 0)], PROTOCOL)

    def is_over(self):
        return [event[2] for event in control.events(self.engine)] == [EVENT_CLOSED] and self.handle.state == 4

    def close(self):
        self.pump.close()
        self.other_end.close()
        self.__dict__.clear()  # pytest keeps the fixture itself a little longer


@pytest.fixture
def calling(request):
    calling = Calling(request.param)
    yield calling
    calling.close()


def is_readable(descriptor, timeout_s):
    return bool(select.select([descriptor], [], [], timeout_s)[0])


@pytest.mark.parametrize("calling", [True], indirect=True)
def test_timers_run_while_a_socket_is_full_and_ask_for_no_turn_in_vain(calling):
    driven = calling.pump
    result = driven.turn(0)
    assert result & pump.BLOCKED and driven.blocked_descriptor == driven.descriptors()[0]
    while not result & pump.EVENTS:
        assert is_readable(driven.timer_descriptor, 10) and driven.counters()["turns"] < FEW
        result = driven.turn(pump.TIMER)
    assert calling.is_over()
    assert driven.turn(0) == pump.BLOCKED and not is_readable(driven.timer_descriptor, 0)
    while len(calling.other_end.recv(2000)) == 1000 and is_readable(calling.other_end, 0):
        pass
    assert driven.turn(0) & pump.BLOCKED == 0
    assert len(calling.other_end.recv(2000)) == 1200, "what waited goes out"


@pytest.mark.parametrize("calling", [False], indirect=True)
def test_thread_of_a_pump_sleeps_while_a_socket_is_full(calling):
    wake, waken = socket.socketpair()
    notify, notified = socket.socketpair()
    thread = threading.Thread(target=calling.pump.run, args=(waken.fileno(), notify.fileno()))
    notified.settimeout(10)
    with wake, waken, notify, notified:
        thread.start()
        wake.send(b"k")
        try:
            assert notified.recv(1) and calling.pump.counters()["turns"] < FEW
            with pytest.raises(RuntimeError, match="one at a time"):
                calling.pump.turn(0)
        finally:
            calling.pump.stop()
            wake.send(b"k")
            thread.join()
    assert calling.is_over()
