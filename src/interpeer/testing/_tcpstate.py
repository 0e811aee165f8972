"""One end of a TCP connection without sockets and clock: bytes in order, over the sender and receiver of `_tcp`.

Segments carry a head of flags and a receive window before what `_tcp` makes of them; both count segments instead of bytes.
There are: the three messages of the set-up, with repetition; a receive window, with probes of one that is closed (RFC 9293,
3.8.6.1); the end of each direction, as a segment like others; reset, refusal, and giving up. There are not: sequence numbers
that could be guessed, simultaneous open, Nagle, keep-alive, urgent data.
"""

from __future__ import annotations

import errno
import math
import os
import struct
from enum import Enum, auto
from typing import Final, final

from interpeer.testing._tcp import ACK, DATA, INITIAL_RTO_NS, MAX_RTO_NS, MSS_BYTES, RANGE_BYTES, TcpReceiver, TcpSender

RECEIVE_SEGMENTS: Final = 256
"""How many may wait for the application: the receive window."""
SYN_TRIES: Final = 6
"""Linux' tcp_syn_retries: after 63 s nobody has answered."""
MAX_TIMEOUTS: Final = 9
"""In a row: then the other end is gone, after one to five minutes."""
_SYN, _ACK, _FIN, _RST, _DATA, _PROBE = 1, 2, 4, 8, 16, 32
_HEAD = struct.Struct("!B3xI4x")  # flags, the first segment beyond the window; with _tcp's head as long as TCP's with timestamps


class State(Enum):
    """Where a connection is."""

    SYN_SENT = auto()
    SYN_RECEIVED = auto()
    ESTABLISHED = auto()
    CLOSED = auto()


@final
class TcpEnd:
    """Be one end. After each call that takes `now_ns`, ask `poll_transmit` and `poll_timeout` again."""

    def __init__(self, *, is_caller: bool) -> None:
        self.state = State.SYN_SENT if is_caller else State.SYN_RECEIVED
        self.error: OSError | None = None
        """Why it was closed, unless both sides have ended it."""
        self.has_peer_finished = False
        """Whether all that the peer will ever send is there."""
        self.unacknowledged_bytes = 0
        """What was written and is not known to have arrived."""
        self._sender = TcpSender(0)
        self._receiver = TcpReceiver()
        self._unsent = bytearray()
        self._chunks: dict[int, bytes] = {}  # sent and not acknowledged, by the segment's number
        self._formed = 0  # segments that there are of what has been sent
        self._has_finished = self._has_formed_end = False
        self._window_end = RECEIVE_SEGMENTS  # the peer's
        self._told_window_end = RECEIVE_SEGMENTS  # ours, as told last
        self._early: dict[int, tuple[bytes, bool]] = {}  # what came behind a gap
        self._next = 0  # the segment that continues what can be read
        self._ready: list[bytes] = []
        self._taken = 0  # segments that the application has
        self._answers: list[bytes] = []
        self._handshake_at_ns: int | None = 0
        self._handshakes = 0
        self._probe_at_ns: int | None = None
        self._probe_ns = INITIAL_RTO_NS
        self._timeouts_before = 0  # of the sender, when something was acknowledged last

    # --- what the application does ---

    def write(self, data: bytes) -> None:
        self._unsent += data
        self.unacknowledged_bytes += len(data)

    def finish(self) -> None:
        """Send no more than what was written."""
        self._has_finished = True

    def abort(self) -> None:
        """Be closed at once."""
        self._close(None)

    def read(self) -> bytes:
        """Return what has come in order; the window opens by as much."""
        data, self._ready = b"".join(self._ready), []
        self._taken = self._next
        if self.state is State.ESTABLISHED and self._told_window_end - self._next < RECEIVE_SEGMENTS // 2:
            self._answer(self._receiver.acknowledge())
        return data

    @property
    def has_data(self) -> bool:
        return bool(self._ready)

    # --- what happens ---

    def handle_segment(self, data: bytes, now_ns: int) -> None:
        """Take a segment of the peer's."""
        if len(data) < _HEAD.size:
            return
        flags, window_end = _HEAD.unpack_from(data)
        if self.state is State.CLOSED:
            if flags & _DATA and self.error is None:
                self._answer(self._receiver.acknowledge())  # the acknowledgement of the end was lost
        elif flags & _RST:
            refused = self.state is State.SYN_SENT
            self._close(_error(errno.ECONNREFUSED if refused else errno.ECONNRESET))
        elif flags & _SYN:
            self._handle_syn(bool(flags & _ACK), now_ns)
        elif self.state is not State.SYN_SENT:
            self._become_established()
            self._window_end = max(self._window_end, window_end)
            if flags & _ACK:
                self._handle_ack(data[_HEAD.size :], now_ns)
            if flags & _DATA:
                self._handle_data(data, bool(flags & _FIN), now_ns)
            if flags & _PROBE:
                self._answer(self._receiver.acknowledge())
            self._look_whether_it_is_over()

    def _handle_syn(self, is_answer: bool, now_ns: int) -> None:
        if not is_answer:
            if self.state is State.SYN_RECEIVED:
                self._handshake_at_ns = now_ns
            return
        self._become_established()
        self._answer(self._receiver.acknowledge())

    def _become_established(self) -> None:
        if self.state is not State.ESTABLISHED:
            self.state = State.ESTABLISHED
            self._handshake_at_ns = None

    def _handle_ack(self, ack: bytes, now_ns: int) -> None:
        if len(ack) < ACK.size or len(ack) < ACK.size + RANGE_BYTES * ack[ACK.size - 1]:
            return
        before = self._sender.acked_segments
        self._sender.handle_ack(ack, now_ns)
        for number in range(before, self._sender.acked_segments):
            self.unacknowledged_bytes -= len(self._chunks.pop(number))
        if self._sender.acked_segments > before:
            self._timeouts_before = self._sender.timeouts

    def _handle_data(self, data: bytes, is_end: bool, now_ns: int) -> None:
        if len(data) < _HEAD.size + DATA.size:
            return
        number, _ = DATA.unpack_from(data, _HEAD.size)
        if number >= self._told_window_end:
            return
        if number >= self._next:
            self._early[number] = data[_HEAD.size + DATA.size :], is_end
        answer = self._receiver.handle_segment(data[_HEAD.size : _HEAD.size + DATA.size], now_ns)
        while self._next in self._early:
            payload, is_end = self._early.pop(self._next)
            self._next += 1
            self.has_peer_finished = self.has_peer_finished or is_end
            if payload:
                self._ready.append(payload)
        if answer is not None or self.has_peer_finished:
            self._answer(answer or self._receiver.acknowledge())

    def _look_whether_it_is_over(self) -> None:
        if self.has_peer_finished and self._has_formed_end and not self._chunks:
            self._close(None)

    def handle_timeout(self, now_ns: int) -> None:
        """Do what is due."""
        self._sender.handle_timeout(now_ns)
        if self._sender.timeouts - self._timeouts_before > MAX_TIMEOUTS:
            self._close(_error(errno.ETIMEDOUT))
            return
        answer = self._receiver.handle_timeout(now_ns)
        if answer is not None:
            self._answer(answer)
        if self._probe_at_ns is not None and now_ns >= self._probe_at_ns:
            self._answers.append(_HEAD.pack(_PROBE, self._tell_window()))
            self._probe_ns = min(self._probe_ns * 2, MAX_RTO_NS)
            self._probe_at_ns = now_ns + self._probe_ns

    # --- what is to be done ---

    def poll_timeout(self) -> int | None:
        """Return when `handle_timeout` and then `poll_transmit` want to be called."""
        if self.state is State.CLOSED:
            return None
        times = (self._sender.poll_timeout(), self._receiver.poll_timeout(), self._handshake_at_ns, self._probe_at_ns)
        return min((time for time in times if time is not None), default=None)

    def poll_transmit(self, now_ns: int) -> list[bytes]:
        """Return the segments that go out now."""
        if self._handshake_at_ns is not None and now_ns >= self._handshake_at_ns:
            self._shake_hands(now_ns)
        if self.state is State.ESTABLISHED:
            self._send(now_ns)
        out, self._answers = self._answers, []
        return out

    def _shake_hands(self, now_ns: int) -> None:
        if self._handshakes > SYN_TRIES - 1:
            self._close(_error(errno.ETIMEDOUT))
            return
        flags = _SYN if self.state is State.SYN_SENT else _SYN | _ACK
        self._answers.append(_HEAD.pack(flags, self._tell_window()) + bytes(DATA.size))
        self._handshake_at_ns = now_ns + (INITIAL_RTO_NS << self._handshakes)
        self._handshakes += 1

    def _send(self, now_ns: int) -> None:
        wanted = self._formed + math.ceil(len(self._unsent) / MSS_BYTES)
        wanted += self._has_finished and not self._has_formed_end
        allowed = min(wanted, self._window_end)
        self._sender.allow(allowed)
        for segment in self._sender.poll_transmit(now_ns):
            number, _ = DATA.unpack_from(segment)
            if number == self._formed:
                self._form()
            is_end = self._has_formed_end and number == self._formed - 1
            head = _HEAD.pack(_DATA | (_FIN if is_end else 0), self._tell_window())
            self._answers.append(head + segment[: DATA.size] + self._chunks.get(number, b""))
        is_shut = allowed < wanted and not self._chunks
        if is_shut and self._probe_at_ns is None:
            self._probe_ns = INITIAL_RTO_NS
            self._probe_at_ns = now_ns + self._probe_ns
        elif not is_shut:
            self._probe_at_ns = None

    def _form(self) -> None:
        """Make the next segment of what was written; behind the last of it comes an empty one, which is the end."""
        self._has_formed_end = not self._unsent
        self._chunks[self._formed] = bytes(self._unsent[:MSS_BYTES])
        del self._unsent[:MSS_BYTES]
        self._formed += 1

    def _answer(self, ack: bytes) -> None:
        size = ACK.size + RANGE_BYTES * ack[ACK.size - 1]
        self._answers.append(_HEAD.pack(_ACK, self._tell_window()) + ack[:size])

    def _tell_window(self) -> int:
        self._told_window_end = self._taken + RECEIVE_SEGMENTS
        return self._told_window_end

    def _close(self, error: OSError | None) -> None:
        if self.state is not State.CLOSED:
            self.state, self.error = State.CLOSED, error
            self._handshake_at_ns = None


def is_call(data: bytes) -> bool:
    """Tell whether a segment asks for a new connection."""
    return len(data) >= _HEAD.size and data[0] & (_SYN | _ACK) == _SYN


def is_reset(data: bytes) -> bool:
    """Tell whether a segment ends a connection at once."""
    return not data or bool(data[0] & _RST)


RESET: Final = _HEAD.pack(_RST, 0) + bytes(DATA.size)
"""What answers a segment of a connection that there is not."""


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
