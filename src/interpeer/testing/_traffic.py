"""Traffic that has nothing to do with interpeer, to share links with it: packets of UDP that nobody controls."""

from __future__ import annotations

import random
from typing import final

from interpeer.testing._machine import Host
from interpeer.testing._packet import IPV4_OVERHEAD_BYTES, IPV6_OVERHEAD_BYTES, Packet, is_ipv4
from interpeer.testing._port import Port, common_family

_PATTERNS = ("constant", "poisson")


@final
class Traffic:
    """Send UDP packets from one host to another, whatever becomes of them, from now on until `stop`.

    rate_bit_per_s: while it sends, headers of IP and UDP included. pattern: "constant", a packet at equal times, or
    "poisson", at random ones. on_s, off_s: how long it sends and is silent in turn, on average (each time is drawn from
    an exponential distribution); 0: it never is. packet_bytes: of a packet with its headers. Raises ValueError.

    >>> from interpeer.testing import Link, SimClock, SimNet
    >>> net = SimNet(Link(delay_s=0.01), seed=1, clock=SimClock())
    >>> traffic = Traffic(net.host("a"), net.host("b"), rate_bit_per_s=1e6, packet_bytes=1250)
    >>> net.clock.advance_s(1)
    >>> traffic.stop()
    >>> traffic.sent_packets, traffic.received_packets
    (101, 100)
    """

    def __init__(
        self,
        source: Host,
        target: Host,
        *,
        rate_bit_per_s: float,
        pattern: str = "constant",
        on_s: float = 0.0,
        off_s: float = 0.0,
        packet_bytes: int = 1200,
    ) -> None:
        if pattern not in _PATTERNS:
            raise ValueError(f"pattern is {' or '.join(map(repr, _PATTERNS))}, not {pattern!r}")
        if rate_bit_per_s <= 0:
            raise ValueError(f"rate_bit_per_s is more than 0, not {rate_bit_per_s}")
        if min(on_s, off_s) < 0 or (on_s > 0) != (off_s > 0):
            raise ValueError(f"on_s and off_s are both more than 0, or both 0, not {on_s} and {off_s}")
        family = common_family(source, target)
        overhead = IPV4_OVERHEAD_BYTES if is_ipv4(family) else IPV6_OVERHEAD_BYTES
        if packet_bytes <= overhead:
            raise ValueError(f"packet_bytes is more than the {overhead} bytes of the headers, not {packet_bytes}")
        self.sent_packets = 0
        """Given to the source's link."""
        self.received_packets = 0
        """Arrived at the target."""
        self._clock = source.net.clock
        self._source = Port(source, lambda packet: None, family_of=family)
        self._target = Port(target, self._arrived, family_of=family)
        self._random = random.Random(f"{source.net.seed} traffic {source.name} {target.name} {self._target.endpoint[1]}")
        self._gap_ns = packet_bytes * 8e9 / rate_bit_per_s
        self._is_poisson = pattern == "poisson"
        self._on_s, self._off_s = on_s, off_s
        self._payload = bytes(packet_bytes - overhead)
        self._is_on = False
        self._due_ns = float(self._clock.now_ns)
        self._phase_ends_ns: float | None = self._due_ns if on_s else None
        self._is_stopped = False
        self._clock.at(self._clock.now_ns, self._go)

    def stop(self) -> None:
        """Send no more, and give the ports back; what is on its way finds nobody."""
        self._is_stopped = True
        self._source.close()
        self._target.close()

    def _arrived(self, packet: Packet) -> None:
        self.received_packets += 1

    def _go(self) -> None:
        if self._is_stopped:
            return
        ends_ns = self._phase_ends_ns
        if ends_ns is not None and self._due_ns >= ends_ns:
            ends_ns = self._turn(ends_ns)
        if ends_ns is None or self._is_on:
            self.sent_packets += 1
            self._source.send(self._payload, self._target.endpoint)
            self._due_ns += self._gap_ns * (self._random.expovariate(1.0) if self._is_poisson else 1.0)
        else:
            self._due_ns = ends_ns
        self._clock.at(round(self._due_ns), self._go)

    def _turn(self, now_ns: float) -> float:
        """Begin to send, or to be silent, for a while; return until when."""
        self._is_on = not self._is_on
        mean_s = self._on_s if self._is_on else self._off_s
        self._phase_ends_ns = now_ns + self._random.expovariate(1.0) * mean_s * 1e9
        return self._phase_ends_ns
