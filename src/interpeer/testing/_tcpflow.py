"""A TCP transfer between two simulated hosts, to compete with."""

from __future__ import annotations

import asyncio
import math
from typing import final

from interpeer.testing._machine import Host
from interpeer.testing._packet import Packet
from interpeer.testing._port import Port, common_family
from interpeer.testing._tcp import MSS_BYTES, TcpReceiver, TcpSender


@final
class TcpFlow:
    """Send data from one host to another by TCP with CUBIC, from now on: a competitor to share a link with fairly.

    size_bytes: how much; None: until `stop`. It has slow start, the window of RFC 9438, selective acknowledgements with the
    recovery of RFC 6675, and a retransmission time-out of at least 200 ms. It has neither HyStart nor pacing, ECN, RACK,
    tail loss probes, proportional rate reduction or a receive window, and no handshake: like an older Linux, a little
    rougher than a new one. Its segments are of 1500 bytes with headers, and their content is zeros.

    >>> from interpeer.testing import Link, SimClock, SimNet
    >>> net = SimNet(Link(delay_s=0.02, rate_bit_per_s=10e6, queue_packets=50), seed=1, clock=SimClock())
    >>> flow = TcpFlow(net.host("a"), net.host("b"))
    >>> net.clock.advance_s(10)
    >>> flow.stop()
    >>> 0.9 < flow.received_bytes * 8 / 10 / 10e6 < 0.97  # the rest are headers
    True
    """

    def __init__(self, source: Host, target: Host, size_bytes: int | None = None) -> None:
        if size_bytes is not None and size_bytes < 1:
            raise ValueError(f"size_bytes is at least 1, or None, not {size_bytes}")
        self._clock = source.net.clock
        self._sender = TcpSender(None if size_bytes is None else math.ceil(size_bytes / MSS_BYTES))
        self._receiver = TcpReceiver()
        family = common_family(source, target)
        self._near = Port(source, self._on_ack, family_of=family)
        self._far = Port(target, self._on_segment, family_of=family)
        self._alarms_ns: dict[str, int] = {}
        self._is_stopped = False
        self._waiters: list[asyncio.Future[None]] = []
        self._clock.at(self._clock.now_ns, self._transmit)

    @property
    def received_bytes(self) -> int:
        """What has arrived without a gap."""
        return self._receiver.received_segments * MSS_BYTES

    @property
    def window_bytes(self) -> int:
        """The congestion window."""
        return int(self._sender.window * MSS_BYTES)

    @property
    def retransmissions(self) -> int:
        """Segments sent again, and again."""
        return self._sender.retransmissions

    @property
    def timeouts(self) -> int:
        """Retransmission time-outs."""
        return self._sender.timeouts

    @property
    def is_done(self) -> bool:
        """Whether everything is acknowledged, or `stop` was called."""
        return self._is_stopped

    async def wait(self) -> None:
        """Wait until it is done."""
        if not self._is_stopped:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def stop(self) -> None:
        """Send no more, and give the ports back."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self._near.close()
        self._far.close()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _on_segment(self, packet: Packet) -> None:
        answer = self._receiver.handle_segment(packet.data, self._clock.now_ns)
        if answer is not None:
            self._far.send(answer, self._near.endpoint)
        self._set_alarm("receiver", self._receiver.poll_timeout())

    def _on_ack(self, packet: Packet) -> None:
        self._sender.handle_ack(packet.data, self._clock.now_ns)
        self._transmit()

    def _transmit(self) -> None:
        if self._is_stopped:
            return
        if self._sender.is_done:
            self.stop()
            return
        for segment in self._sender.poll_transmit(self._clock.now_ns):
            self._near.send(segment, self._far.endpoint)
        self._set_alarm("sender", self._sender.poll_timeout())

    def _set_alarm(self, whose: str, when_ns: int | None) -> None:
        """See that there is a call at that time; an earlier one that is set already sets the next."""
        set_ns = self._alarms_ns.get(whose)
        if when_ns is not None and (set_ns is None or when_ns < set_ns):
            self._alarms_ns[whose] = when_ns
            self._clock.at(when_ns, self._ring, whose, when_ns)

    def _ring(self, whose: str, alarm_ns: int) -> None:
        if self._is_stopped or self._alarms_ns.get(whose) != alarm_ns:
            return
        del self._alarms_ns[whose]
        if whose == "sender":
            self._sender.handle_timeout(self._clock.now_ns)
            self._transmit()
            return
        answer = self._receiver.handle_timeout(self._clock.now_ns)
        if answer is not None:
            self._far.send(answer, self._near.endpoint)
        self._set_alarm(whose, self._receiver.poll_timeout())
