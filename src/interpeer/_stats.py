"""What `Connection.stats` gives: figures of a connection, of each of its paths, and of each of its channels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, final

from interpeer._address import Endpoint
from interpeer._config import CONGESTION
from interpeer._core import path_handle
from interpeer._path import kind_of
from interpeer._priority import MOST_URGENT

_ECN = ("testing", "capable", "failed")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PathStats:
    """Hold figures of one path of a connection. Times are in seconds, sizes in bytes."""

    id: int
    """Its number; 0 is the path of the handshake."""
    kind: str
    """"direct", "lan" (this machine included) or "relayed"."""
    remote: Endpoint
    """The peer's address on it."""
    state: str
    """"validating", "active", "suspect" (probes go unanswered) or "abandoned"."""
    is_preferred: bool
    """Whether what is sent takes it."""
    rtt_s: float
    """Round trip, smoothed."""
    min_rtt_s: float
    latest_rtt_s: float
    rtt_variance_s: float
    pto_count: int
    """Probe time-outs in a row: more than a few, and nothing comes back."""
    congestion: str
    """The congestion controller."""
    window_bytes: int
    """What may be on its way."""
    bytes_in_flight: int
    """What is."""
    pacing_bytes_per_s: int
    """How fast packets are sent while the window has room; 0 before the first round trip."""
    congestion_events: int
    packets_sent: int
    packets_received: int
    packets_lost: int
    """Of those sent, as far as is known."""
    bytes_sent: int
    bytes_received: int
    packet_bytes: int
    """The largest packet sent."""
    ecn: str
    """Explicit congestion notification: "testing", "capable" or "failed" (the path clears or invents the marks)."""
    ecn_sent: int
    """Packets sent that say they can be marked."""
    ecn_ce: int
    """Of these, marked by the network, as the peer tells."""
    ecn_received_ect0: int
    """Packets that came unmarked, and could have been marked."""
    ecn_received_ect1: int
    ecn_received_ce: int
    """Packets that came marked by the network."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStats:
    """Hold figures of one channel, a stream included. Sizes are in bytes, and the numbers below are since it was opened."""

    id: int
    kind: str
    """"stream": bytes, all of them, in order; or "messages"."""
    is_ours: bool
    """Whether this end has opened it."""
    queued_bytes: int
    """Written here and never sent: held back by the peer's limits, the window, or more urgent channels."""
    unacked_bytes: int
    """Sent, and not acknowledged."""
    readable_bytes: int
    """Received, in order, and not read: a reader that is late."""
    bytes_sent: int
    bytes_received: int
    send_limit: int
    """How much the peer allows in all."""
    recv_limit: int
    """How much the peer is allowed."""
    priority: int = 0
    """Its class; the highest goes first."""
    dropped: int = 0
    """Messages given up here."""
    late: int = 0
    """Of these, for their deadlines."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Hold figures of a connection at one moment. Times are in seconds, sizes in bytes.

    Those of one path are of the one that is used now; `paths` has all. `to_dict` makes it JSON."""

    rtt_s: float
    min_rtt_s: float
    latest_rtt_s: float
    rtt_variance_s: float
    window_bytes: int
    bytes_in_flight: int
    congestion: str
    """The congestion controller, by name."""
    congestion_events: int
    pacing_bytes_per_s: int
    packets_sent: int
    packets_received: int
    packets_lost: int
    bytes_sent: int
    bytes_received: int
    packet_bytes: int
    ecn: str
    ecn_ce: int
    key_epoch: int
    peer_key_epoch: int
    rekeys: int
    """How often fresh keys were agreed on after the handshake."""
    key_age_s: float
    """Between the last agreement and the last packet."""
    data_sent: int
    data_limit: int
    data_received: int
    data_allowed: int
    streams: int
    open_channels: int
    datagrams_queued: int
    datagrams_waiting: int
    datagrams_dropped: int
    paths: tuple[PathStats, ...] = ()
    channels: tuple[ChannelStats, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, strings, lists and dictionaries."""
        plain = asdict(self)
        for path in plain["paths"]:
            path["remote"] = str(Endpoint(**path["remote"]))
        return {**plain, "paths": list(plain["paths"]), "channels": list(plain["channels"])}


def _seconds(raw: dict[str, Any]) -> dict[str, Any]:
    """Turn what ends in _ns into seconds."""
    return {name[:-2] + "s" if name.endswith("_ns") else name: n / 1e9 if name.endswith("_ns") else n for name, n in raw.items()}


def make_stats(raw: dict[str, Any], paths: list[dict[str, Any]], channels: list[dict[str, Any]]) -> Stats:
    """Name what the core has counted."""
    figures = _seconds(raw)
    congestion, ecn = CONGESTION[int(figures.pop("controller"))], _ECN[int(figures.pop("ecn"))]
    return Stats(
        **figures,
        congestion=congestion,
        ecn=ecn,
        paths=tuple(_path(path) for path in sorted(paths, key=lambda path: int(path["id"]))),
        channels=tuple(_channel(channel) for channel in sorted(channels, key=lambda channel: int(channel["id"]))),
    )


def _path(raw: dict[str, Any]) -> PathStats:
    figures = _seconds(raw)
    for name in ("local", "is_standby", "peer_standby", "is_opener"):  # connection.paths has them
        del figures[name]
    remote = Endpoint.from_core(figures.pop("remote"))
    state, is_preferred = path_handle.STATES[int(figures.pop("state"))], bool(figures.pop("is_preferred"))
    congestion, ecn = CONGESTION[int(figures.pop("controller"))], _ECN[int(figures.pop("ecn"))]
    return PathStats(
        **figures, kind=kind_of(remote), remote=remote, state=state, is_preferred=is_preferred, congestion=congestion, ecn=ecn
    )


def _channel(raw: dict[str, Any]) -> ChannelStats:
    figures = dict(raw)
    is_ours, kind = bool(figures.pop("is_ours")), "messages" if figures.pop("is_channel") else "stream"
    priority = MOST_URGENT - int(figures.pop("priority"))
    return ChannelStats(**figures, kind=kind, is_ours=is_ours, priority=priority)
