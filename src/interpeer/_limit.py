"""Run both ends of `interpeer._core.limit` in processes of their own and put together what they saw.

The yardstick of `interpeer bench` and of benchmarks/: this machine's limit, to compare a connection with. Neither end is
pinned to a processor: beside other load that makes both wait for it, and beside none it changes nothing."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from interpeer._core.limit import Limit

JsonObject: TypeAlias = dict[str, Any]  # what the ends and this process tell each other

NICENESS = -12  # where permitted: other load then disturbs less
MESSAGE_BYTES = 64
HEADER_BYTES = 8
TAG_BYTES = {"none": 0, "chacha20-poly1305": 16, "aes-256-gcm": 16, "aegis-128l": 32, "aegis-256": 32}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulk:
    """Text moved one way through packets of one size."""

    aead: str
    packet_bytes: int  # header, text and tag
    offload: bool  # by GSO and GRO
    gbit_per_s: float  # of text
    packets_per_s: float
    lost: float  # share of the packets sent that did not arrive
    cpu_s_per_gb: float  # of both ends
    sender_cpu_s_per_gb: float
    receiver_cpu_s_per_gb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """One packet to and fro, many times."""

    aead: str
    packet_bytes: int
    wait: str  # "poll": sleeping in the kernel, "spin": asking it over and over
    p50_us: float
    p99_us: float
    cpu_us: float  # of both ends, for each round trip


def bulk(aead: str, text_bytes: int, *, seconds: float = 2.0, disable: str = "") -> Bulk:
    """Measure how fast text can be moved. Raises RuntimeError with what an end printed if it fails."""
    sent, received = run_pair(
        {"do": "send", "aead": aead, "text_bytes": text_bytes, "seconds": seconds, "disable": disable},
        {"do": "receive", "aead": aead, "text_bytes": text_bytes, "disable": disable},
    )
    gigabytes = received["text_bytes"] / 1e9
    return Bulk(
        aead=aead,
        packet_bytes=received["packet_bytes"],
        offload=received["offload"],
        gbit_per_s=8 * gigabytes / sent["seconds"],
        packets_per_s=received["packets"] / sent["seconds"],
        lost=1 - received["packets"] / sent["packets"],
        cpu_s_per_gb=(sent["cpu_s"] + received["cpu_s"]) / gigabytes,
        sender_cpu_s_per_gb=sent["cpu_s"] / gigabytes,
        receiver_cpu_s_per_gb=received["cpu_s"] / gigabytes,
    )


def ping(aead: str, text_bytes: int = MESSAGE_BYTES, *, count: int = 5000, spin: bool = False) -> Ping:
    """Measure the time of a packet to the other process and back. Raises RuntimeError with what an end printed if it fails."""
    sent, echoed = run_pair(
        {"do": "ping", "aead": aead, "text_bytes": text_bytes, "count": count, "spin": spin},
        {"do": "echo", "aead": aead, "text_bytes": text_bytes, "spin": spin},
    )
    return Ping(
        aead=aead,
        packet_bytes=sent["packet_bytes"],
        wait="spin" if spin else "poll",
        p50_us=sent["p50_us"],
        p99_us=sent["p99_us"],
        cpu_us=1e6 * (sent["cpu_s"] + echoed["cpu_s"]) / count,
    )


def run_pair(active: JsonObject, passive: JsonObject) -> tuple[JsonObject, JsonObject]:
    """Start the passive end, then the active one with its port; return what each printed."""
    with start(passive) as second:
        announced = second.stdout.readline() if second.stdout else ""
        if not announced:
            raise failure(passive, second)
        with start(active | {"port": json.loads(announced)["port"]}) as first:
            printed = [one.communicate()[0] for one in (first, second)]
            for asked, process in ((active, first), (passive, second)):
                if process.returncode:
                    raise failure(asked, process)
    return json.loads(printed[0]), json.loads(printed[1])


def start(asked: JsonObject) -> subprocess.Popen[str]:
    """Start one end; it finds the package where this process did."""
    path = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-m", "interpeer._limit", json.dumps(asked)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path})


def failure(asked: JsonObject, process: subprocess.Popen[str]) -> RuntimeError:
    return RuntimeError(f"the end of the measurement that should {asked['do']} failed with exit code {process.wait()}")


def main(asked: JsonObject) -> None:
    """Be one end: print the port if the other needs it, do what is asked, print what was seen."""
    if hasattr(os, "setpriority"):
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    end = Limit(asked["aead"], asked["text_bytes"], disable=asked.get("disable", ""))
    if "port" not in asked:
        print(json.dumps({"port": end.port}), flush=True)
    before = time.process_time()
    seen = ROLES[asked["do"]](end, asked)
    cpu_s = time.process_time() - before
    print(json.dumps(seen | {"cpu_s": cpu_s, "packet_bytes": end.packet_size, "offload": end.has_offload}))


def do_ping(end: Limit, asked: JsonObject) -> JsonObject:
    times = sorted(end.ping(asked["port"], asked["count"], is_spinning=asked["spin"]))
    return {"p50_us": times[len(times) // 2] / 1e3, "p99_us": times[len(times) * 99 // 100] / 1e3}


def do_echo(end: Limit, asked: JsonObject) -> JsonObject:
    end.echo(is_spinning=asked["spin"])
    return {}


ROLES: dict[str, Callable[[Limit, JsonObject], JsonObject]] = {
    "send": lambda end, asked: end.send(asked["port"], asked["seconds"]),
    "receive": lambda end, asked: end.receive(),
    "ping": do_ping,
    "echo": do_echo,
}

if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
