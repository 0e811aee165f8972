"""Settings of a node, each with its unit, its default and the reason for it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import final

from interpeer._address import check_path, split_host_port, split_transport

KIB, MIB = 1 << 10, 1 << 20
_NS = 1_000_000_000
_MOST_BYTES = 1 << 40
_LEAST_S, _MOST_S = 0.001, 1e9  # thirty years; the core counts nanoseconds
_SCHEDULERS = ("lowest-rtt", "aggregate", "redundant")  # the core's SCHEDULE_*
CONGESTION = ("cubic", "bbr", "bbr-lossy", "ledbat")  # in the order of the core's numbers
_CIPHERS = ("aegis-256", "aegis-128l", "aes-256-gcm", "chacha20-poly1305")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Give:
    """Cap what a node gives to others, when it has joined an overlay.

    Without `network=` a node gives nothing, whatever stands here.

    >>> Give(relay_bytes_per_s=1_000_000).metered
    False
    """

    relay_bytes_per_s: int = 125_000
    """Relayed for other peers (1 Mbit/s: enough for signalling and voice)."""
    upload_bytes_per_s: int | None = None
    """Content uploaded; None: as much as goes."""
    roles: bool = True
    """Whether peers may vote this node into a role."""
    metered: bool = False
    """Whether the link is paid by volume: then nothing is relayed but signalling."""

    def __post_init__(self) -> None:
        _check(self)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Tune a node. The defaults suit a desktop, a server and a benchmark alike.

    >>> Config(idle_timeout_s=60).idle_timeout_s
    60
    """

    idle_timeout_s: float = 30.0
    """A connection from which nothing comes for so long is over. Of both ends' values the smaller counts; 0: never."""
    keep_alive_s: float = 10.0
    """Something is sent after so much silence: less than the idle time-out, and than most NATs' 30 s. 0: never."""
    connect_timeout_s: float = 10.0
    """How long `connect` tries: twelve first messages, enough for 30 % loss and a satellite's round trip."""
    max_ack_delay_s: float = 0.005
    """The longest an acknowledgement waits for company; the peer's probe time-out counts with it."""
    stream_window_bytes: int = 512 * KIB
    """What a peer may send on a new stream before it is read; doubles while the reader keeps up."""
    max_stream_window_bytes: int | None = None
    """... up to this. None: 16 MiB (10 Gbit/s at 13 ms, 100 Mbit/s at 1.3 s), or 64 with `pump="thread"`: what comes while
    Python is busy elsewhere."""
    connection_window_bytes: int = 1 * MIB
    """The same for all streams of a connection together."""
    max_connection_window_bytes: int | None = None
    """... up to this: what one peer can make this node keep. None: 32 MiB, or 128 with `pump="thread"`."""
    send_buffer_bytes: int | None = None
    """Written to a stream and not yet acknowledged, on a path with a small window; `write` waits beyond it. None: 1 MiB,
    or 64 with `pump="thread"`, for what the thread sends while Python is busy elsewhere."""
    max_send_buffer_bytes: int = 32 * MIB
    """... and on any path: twice what is on its way, up to this."""
    max_memory_bytes: int = 1 << 30
    """What peers may make the whole node keep, and what it buffers for them: windows and buffers of connections grow beyond
    their first sizes only within it, so that all at their largest do not add up."""
    max_streams: int = 1024
    """Streams that a peer may have open at once."""
    max_channels: int = 4096
    """Channels that a peer may have open at once."""
    max_message_bytes: int = 16 * MIB
    """The largest message accepted on a channel: one that is not complete is kept until it is, so it fits twice in the
    largest window of a connection."""
    datagram_queue_bytes: int = 4 * MIB
    """Datagrams waiting to be sent, and as much received and not read; more are refused, or the oldest dropped."""
    max_datagram_bytes: int = 65_000
    """The largest datagram accepted; what can be sent is what fits in a packet."""
    packet_bytes: int = 1200
    """UDP payload of the largest packet sent on a path of which nothing is known: what every IPv6 path carries (RFC 9000, 14)."""
    max_packet_bytes: int | None = None
    """... and on a path that probes have shown to carry more. None: as much as it carries, 65,507 at the most;
    the value of `packet_bytes`: no probes."""
    bundle: bool = True
    """Whether several datagrams may share a packet."""
    backlog: int = 256
    """Incoming connections that wait for `accept`; more are refused as busy."""
    max_connections: int = 100_000
    """Connections at once; more are refused as busy."""
    max_half_open: int = 1024
    """Handshakes that wait for their last packet, 512 bytes each; the oldest gives way."""
    key_update_packets: int = 1 << 22
    """Packets sealed under one key: half of AES-256-GCM's limit (RFC 9001, 6.6), for all ciphers."""
    key_limit_packets: int = 1 << 23
    """Where the connection is closed, if the peer has never acknowledged the update."""
    rekey_s: float = 120.0
    """A connection that we have opened agrees on fresh keys after so much use, or 64 GiB (a second Noise handshake, inside it):
    whoever has stolen its keys loses it again. As often as WireGuard, for 0.2 ms of work at each end. 0: never."""
    forgery_limit: int = 1 << 36
    """Forged packets before a connection is given up: ChaCha20-Poly1305's limit (RFC 9001, 6.6)."""
    skip_every: int = 512
    """One packet number in about so many is left out, to catch peers that acknowledge what they have not received; 0: none."""
    ciphers: tuple[str, ...] = _CIPHERS
    """Offered and accepted, the preferred ones first; those that the machine cannot do are left out."""
    congestion: str = "cubic"
    """What controls congestion, where `connect` names nothing else, and on incoming connections: "cubic" (RFC 9438), "bbr"
    (version 3), "bbr-lossy" (the same for paths that lose packets without being full) or "ledbat" (LEDBAT++, which gives
    way to everything else)."""
    pump: str = "loop"
    """Where the protocol runs: "loop", on the event loop, or "thread", on a thread of its own beside busy Python threads."""
    max_paths: int = 4
    """Paths of a connection at once, to and from different addresses; 1: only that of the handshake."""
    scheduler: str = "lowest-rtt"
    """Which path a packet takes where there are several: "lowest-rtt", "aggregate" or "redundant"; see
    `Connection.scheduler`."""
    stun_server: bool = True
    """Whether anybody may ask the node, by STUN (RFC 8489), which address a packet came from: it is how peers learn theirs. An
    answer is never larger than what was asked."""
    shards: int = 1
    """On how many cores the protocol runs: so many engines, each on a thread and, on Linux, with a socket of its own at the
    same address; connections are spread over them. More than one implies `pump="thread"`. One is enough for one connection, which
    never uses more, and costs least; 0: one for each core that this process may use, up to 32."""
    spin_s: float = 0.0
    """How long to poll for the next packet before sleeping: lower latency for a busy core."""
    port_mapping: bool = True
    """Whether gateways are asked to let the node's port through (PCP, NAT-PMP, UPnP), once it belongs to a network."""
    tunnel_listen: tuple[str, ...] = ()
    """Where peers whose UDP is blocked can call as well: "tcp://0.0.0.0:443", "tls://[::]:443", "ws://0.0.0.0:80/path",
    "wss://..."; the last two need the package `websockets`. What is said is encrypted in any case."""
    tunnel_certificate: Path | str | None = None
    """A PEM file with the certificate and the key for "tls" and "wss". None: one that is made for the occasion, which no
    peer minds, since tunnels prove inside who is at their ends."""
    qlog_dir: Path | str | None = None
    """A folder for what happens on each connection, as qlog: numbers, no payload. None: that of the environment's
    INTERPEER_QLOG or QLOGDIR, or none."""
    qlog_max_bytes: int = 256 * MIB
    """How large the qlog file of a connection may grow: a million packets, about; the rest is left out."""
    key_log: Path | str | None = None
    """A file to which the keys of every connection are added, for Wireshark. Whoever has it reads everything. None: that of
    the environment's INTERPEER_KEYLOG, or none."""

    def __post_init__(self) -> None:
        _check(self)
        if self.pump not in ("loop", "thread"):
            raise ValueError(f'pump is "loop" or "thread", not {self.pump!r}')
        if self.scheduler not in _SCHEDULERS:
            raise ValueError(f"scheduler is one of {', '.join(_SCHEDULERS)}, not {self.scheduler!r}")
        congestion_number(self.congestion)
        if not 1200 <= self.packet_bytes <= 65_507:
            raise ValueError(f"packet_bytes is from 1200 to 65507, not {self.packet_bytes}")
        if self.max_packet_bytes is not None and not self.packet_bytes <= self.max_packet_bytes <= 65_507:
            raise ValueError(f"max_packet_bytes is from packet_bytes to 65507, not {self.max_packet_bytes}")
        if not self.ciphers or set(self.ciphers) - set(_CIPHERS) or len(set(self.ciphers)) < len(self.ciphers):
            raise ValueError(f"ciphers are some of {', '.join(_CIPHERS)}, each once; not {self.ciphers!r}")
        if isinstance(self.tunnel_listen, str):
            raise TypeError("tunnel_listen is several addresses, not one: put it in a tuple")
        for text in self.tunnel_listen:
            parse_tunnel(text)
        if self.key_limit_packets < self.key_update_packets:
            raise ValueError("key_limit_packets is not less than key_update_packets")
        if 0 < self.rekey_s < 2:
            raise ValueError(f"rekey_s is 0 or at least 2: peers refuse more than one a second; not {self.rekey_s}")

    def core_limits(self) -> dict[str, int]:
        """Return the core's Limits: sizes in bytes, times in nanoseconds."""
        on_thread = self.pump == "thread" or self.shards != 1
        send_buffer_bytes = self.send_buffer_bytes or (64 * MIB if on_thread else 1 * MIB)
        max_stream_window_bytes = self.max_stream_window_bytes or (64 * MIB if on_thread else 16 * MIB)
        max_connection_window_bytes = self.max_connection_window_bytes or (128 * MIB if on_thread else 32 * MIB)
        return {
            "idle_timeout_ns": int(self.idle_timeout_s * _NS),
            "keep_alive_ns": int(self.keep_alive_s * _NS),
            "connect_timeout_ns": int(self.connect_timeout_s * _NS),
            "max_ack_delay_ns": int(self.max_ack_delay_s * _NS),
            "stream_window": self.stream_window_bytes,
            "max_stream_window": max(self.stream_window_bytes, max_stream_window_bytes),
            "connection_window": self.connection_window_bytes,
            "max_connection_window": max(self.connection_window_bytes, max_connection_window_bytes),
            "send_buffer_bytes": send_buffer_bytes,
            "max_send_buffer_bytes": max(send_buffer_bytes, self.max_send_buffer_bytes),
            "max_memory": self.max_memory_bytes,
            "max_streams": self.max_streams,
            "max_channels": self.max_channels,
            "max_message": self.max_message_bytes,
            "datagram_queue_bytes": self.datagram_queue_bytes,
            "max_datagram": self.max_datagram_bytes,
            "key_update_packets": self.key_update_packets,
            "key_limit_packets": self.key_limit_packets,
            "rekey_ns": int(self.rekey_s * _NS),
            "forgery_limit": self.forgery_limit,
            "max_connections": self.max_connections,
            "max_half_open": self.max_half_open,
            "packet_bytes": self.packet_bytes,
            "max_packet_bytes": self.max_packet_bytes or 65_507,
            "receive_buffer": 0,  # the driver says, once it has sockets
            "skip_every": self.skip_every,
            "max_paths": self.max_paths,
            "controller": congestion_number(self.congestion),
            "scheduler": _SCHEDULERS.index(self.scheduler),
            "answers_stun": int(self.stun_server),
            "bundle": int(self.bundle),
            "observe": 0,  # the node says, if it belongs to a network
        }


def parse_tunnel(text: str) -> tuple[str, str, int, str]:
    """Return transport, host, port (perhaps 0) and path of where tunnels are listened for. Raises ValueError."""
    transport, place, path = split_transport(text)
    if transport == "udp":
        raise ValueError(f"{text!r}: a tunnel begins with tcp://, tls://, ws:// or wss://")
    host, port = split_host_port(place)
    check_path(transport, path)
    if not port < 65536:
        raise ValueError(f"a port is a number from 0 to 65535, not {port}")
    return transport, str(ipaddress.ip_address(host)), port, path


def congestion_number(name: str) -> int:
    """Return the core's number of a congestion controller; ValueError for a name that there is not."""
    if name not in CONGESTION:
        *names, last = CONGESTION
        raise ValueError(f"congestion is {', '.join(names)} or {last}, not {name!r}")
    return CONGESTION.index(name)


_MAY_BE_ZERO = {
    "idle_timeout_s",
    "keep_alive_s",
    "max_ack_delay_s",
    "max_datagram_bytes",
    "datagram_queue_bytes",
    "shards",
    "skip_every",
    "rekey_s",
    "spin_s",
    "relay_bytes_per_s",
    "upload_bytes_per_s",
}
_MOST = {
    "max_ack_delay_s": 16.384,  # what peers accept
    "spin_s": 1.0,  # in which the loop does nothing else
    "max_streams": 1 << 20,
    "shards": 32,
    "max_channels": 1 << 20,
    "max_message_bytes": 1 << 28,  # what the header of a message holds, with room for marks of our own
    "backlog": 1 << 31,
    "max_connections": 1 << 24,
    "max_half_open": 1 << 20,
    "max_paths": 4,
    "key_update_packets": 1 << 62,
    "key_limit_packets": 1 << 62,
    "forgery_limit": 1 << 62,
    "skip_every": 1 << 31,
    "relay_bytes_per_s": _MOST_BYTES,
    "upload_bytes_per_s": _MOST_BYTES,
}


def _check(settings: Config | Give) -> None:
    """Raise TypeError for a setting of another type than its annotation says, ValueError for a number that it cannot be."""
    for setting in fields(settings):
        name, annotation = setting.name, str(setting.type)
        value = getattr(settings, name)
        kind, _, is_optional = annotation.partition(" | ")
        if is_optional and value is None:
            continue
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        is_right = {
            "int": is_number and isinstance(value, int),
            "float": is_number,
            "bool": isinstance(value, bool),
            "str": isinstance(value, str),
            "Path": isinstance(value, str | Path) and bool(str(value)),
        }
        if not is_right.get(kind, isinstance(value, Iterable)):
            raise TypeError(f"{name} is {annotation}, not {value!r}")
        _check_range(name, value)


def _check_range(name: str, value: object) -> None:
    """Raise ValueError for a number that its setting cannot be."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    most = _MOST.get(name, _MOST_BYTES if name.endswith("_bytes") else _MOST_S)
    least = 0 if name in _MAY_BE_ZERO else 1 if isinstance(value, int) else _LEAST_S
    if not least <= value <= most:  # not a number is neither
        raise ValueError(f"{name} is from {least} to {most}, not {value}")
