"""From what the two ends of a load told to figures in common units, and from several runs to their median.

One GB is 10^9 bytes and one KB 1000. Rates are taken over the client's clock, from its first byte to the server's
confirmation that everything has come; processor seconds are those of all threads of both ends in that time.
"""

from collections.abc import Sequence
from statistics import median

from interpeer._bench.end import Facts


class LoadBroken(RuntimeError):
    """The ends disagree about what was done; the run counts for nothing."""


def figures(part: str, client: Facts, server: Facts) -> Facts:
    """Return what one part of a load (`interpeer._bench.loads.PARTS`) measured."""
    return FIGURES[part](client, server)


def _bulk(client: Facts, server: Facts) -> Facts:
    if client["bytes"] != server["bytes"]:
        raise LoadBroken(f"the client sent {client['bytes']} bytes and the server received {server['bytes']}")
    gigabytes = server["bytes"] / 1e9
    return {
        "gbit": 8 * gigabytes / client["seconds"],
        "cpu_s_per_gb": (client["cpu_s"] + server["cpu_s"]) / gigabytes,
        "cpu_s_per_gb_ends": [client["cpu_s"] / gigabytes, server["cpu_s"] / gigabytes],
    }


def _messages(client: Facts, server: Facts) -> Facts:
    return {
        "messages_per_s": server["received"] / client["seconds"],
        "delivered": server["received"] / client["sent"],
    }


def _single_messages(client: Facts, server: Facts) -> Facts:
    batched = _messages(client, server)
    return {"messages_single_per_s": batched["messages_per_s"], "delivered_single": batched["delivered"]}


def _ping(client: Facts, _server: Facts) -> Facts:
    return {"p50_us": client["p50_us"], "p99_us": client["p99_us"]}


def _handshakes(client: Facts, server: Facts) -> Facts:
    if client["handshakes"] > server["handshakes"]:
        raise LoadBroken(f"the client counts {client['handshakes']} handshakes, its server {server['handshakes']}")
    return {"handshakes_per_s": client["handshakes"] / client["seconds"]}


def _handshakes_in_a_row(client: Facts, server: Facts) -> Facts:
    return {"handshakes_in_a_row_per_s": _handshakes(client, server)["handshakes_per_s"]}


def _idle(client: Facts, server: Facts) -> Facts:
    if client["connections"] != server["connections"]:
        raise LoadBroken(f"the client holds {client['connections']} connections, its server {server['connections']}")
    ends = (client, server)
    return {
        "kb_per_connection": [end["used_bytes"] / end["connections"] / 1e3 for end in ends],
        "kb_per_fresh_connection": [end["fresh_bytes"] / end["connections"] / 1e3 for end in ends],
        "connections": client["connections"],
    }


def _many(client: Facts, server: Facts) -> Facts:
    if client["bytes"] != server["bytes"]:
        raise LoadBroken(f"the client sent {client['bytes']} bytes and the server received {server['bytes']}")
    gigabytes = server["bytes"] / 1e9
    return {
        "gbit": 8 * gigabytes / client["seconds"],
        "cpu_s_per_gb": (client["cpu_s"] + server["cpu_s"]) / gigabytes,
        "jain": server["jain"],
        "ping_p50_ms": client["p50_us"] / 1e3,
        "ping_p99_ms": client["p99_us"] / 1e3,
        "resident_mb": [end["resident_bytes"] / 1e6 for end in (client, server)],
        "connections": client["connections"],
    }


def _channels(client: Facts, server: Facts) -> Facts:
    return {**_bulk(client, server), "jain": server["jain"], "channels": client["channels"]}


def jain(shares: Sequence[float]) -> float:
    """Return Jain's index of fairness: 1 where all have the same, 1/n where one has everything."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0


def _soak(client: Facts, server: Facts) -> Facts:
    if client["bytes"] != server["bytes"]:
        raise LoadBroken(f"the client sent {client['bytes']} bytes and the server received {server['bytes']}")
    ends = (client, server)
    return {
        "resident_mb": [end["late_bytes"] / 1e6 for end in ends],
        "resident_growth": max(end["late_bytes"] / end["early_bytes"] for end in ends) - 1,
    }


FIGURES = {
    "bulk": _bulk,
    "msgs": _messages,
    "msgs-single": _single_messages,
    "ping": _ping,
    "handshakes": _handshakes,
    "handshakes-in-a-row": _handshakes_in_a_row,
    "idle": _idle,
    "many": _many,
    "channels": _channels,
    "soak": _soak,
}


def median_of(runs: list[Facts]) -> Facts:
    """Return the median of every figure over the runs (of pairs: of each half), and how far the runs lie apart."""
    medians: Facts = {}
    spread: Facts = {}
    for key, first in runs[0].items():
        values = [run[key] for run in runs]
        if isinstance(first, list):
            medians[key] = [median(half) for half in zip(*values, strict=True)]
        else:
            medians[key] = median(values)
            spread[key] = [min(values), max(values)]
    return {**medians, "spread": spread, "runs": len(runs)}
