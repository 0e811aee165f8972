"""Say what this machine can do for interpeer, what NATs and gateways are in front of it, and what to do about the rest.

Nothing is changed: no key is made, no directory. Nobody is asked but the local gateway, which maps a port for a moment. With
--bootstrap (or INTERPEER_BOOTSTRAP, or bootstrap in config.toml) or --stun the peers and servers named there are asked, too: what
NAT there is, how long its mappings live, whether UDP gets through. Two or three at different addresses tell most.

    interpeer doctor --bootstrap ADDRESS --bootstrap ADDRESS
    interpeer doctor --stun stun.example.org --stun 192.0.2.1:3478 --lifetime 300

Exit code 1 if something does not work; a warning means that it works, but not as well as it could.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from interpeer import _sodium
from interpeer._cli import machine, outside, run_async, settings
from interpeer._cli.errors import DONE, FAILED, CommandError, Misuse, explain
from interpeer._cli.finding import BROKEN, OK, WARNING, Finding
from interpeer._cli.output import JsonObject, Output, printable, size
from interpeer._core import control
from interpeer._core.udpsocket import UdpSocket
from interpeer._driver import disabled_words
from interpeer._identity import Identity
from interpeer._interfaces import interfaces, ways_out
from interpeer._lan.links import PORT, links_of, try_port
from interpeer._state import StateDirectory, StateLockedError
from interpeer._version import __version__
from interpeer.errors import IdentityFileError

HELP = "say what this machine can do, with advice"
REACHES_PEERS = True
DATA_ON_STDOUT = False

ABILITIES = {
    "gso": "many packets are sent in one call",
    "gro": "many packets are received as one",
    "mmsg": "several messages take one call",
    "ecn": "congestion is seen before packets are lost",
    "pktinfo": "answers leave from the address that was called",
    "bigbuf": "the socket's buffers are large",
}
MIN_BUFFER_BYTES = 1 << 20
EARLIEST_S = 1_735_689_600
"""2025-01-01: a clock before it is not set."""
ECHO_S = 1.0
MAX_LIFETIME_S = 3600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stun", metavar="SERVER", action="append", default=[], help="a STUN server to ask, besides peers")
    parser.add_argument(
        "--lifetime", metavar="S", default=str(outside.LIFETIME_S),
        help=f"search for the lifetime of mappings for so long at most; 0: do not (default: {outside.LIFETIME_S:.0f})",
    )  # fmt: skip


def run(options: argparse.Namespace, output: Output) -> int:
    servers = [outside.parse_server(text) for text in options.stun]
    lifetime_s = _seconds(options.lifetime)
    findings: list[Finding] = []

    def tell(*found: Finding) -> None:
        findings.extend(found)
        if not output.is_json:
            for one in found:
                output.answer(_line(one))

    for check in _checks(options):
        tell(_examine(check))
    if all(one.status != BROKEN for one in findings if one.name in ("libsodium", "config")):
        resolved = settings.resolve(options)

        async def look() -> int:
            seen = await outside.look(resolved, servers, lifetime_s, output)
            tell(_ipv6(seen), *outside.findings(seen))
            return DONE

        code = run_async(look())
        if code != DONE:
            return code
    broken = [f"{one.name}: {one.text}" for one in findings if one.status == BROKEN]
    advice = [f"{one.name}: {one.advice}" for one in findings if one.advice]
    facts: JsonObject = {"ok": not broken, "version": __version__}
    facts |= {one.name: {"status": one.status, "text": one.text, "advice": one.advice, **one.facts} for one in findings}
    if broken:
        facts |= {"error": "; ".join(broken), "reasons": broken}
    output.json_result({**facts, "advice": advice})
    return FAILED if broken else DONE


def _examine(check: Callable[[], Finding]) -> Finding:
    """Look at one thing; that it cannot even be looked at is a finding too."""
    try:
        return check()
    except (CommandError, OSError, ImportError) as error:
        return Finding(check.__name__.removeprefix("_"), BROKEN, explain(error)[0])


def _line(one: Finding) -> str:
    sign = {OK: "ok     ", WARNING: "warning", BROKEN: "broken "}[one.status]
    return f"{sign}  {one.name:<12} {printable(one.text)}" + (f"\n{'':<22} {printable(one.advice)}" if one.advice else "")


def _checks(options: argparse.Namespace) -> Iterator[Callable[[], Finding]]:
    yield from (_python, _loop, _libsodium, _pysodium)

    def config() -> Finding:
        path = settings.config_path()
        settings.resolve(options)
        text = "no home directory, so none is read" if path is None else f"{path}{'' if path.exists() else ' (there is none)'}"
        return Finding("config", OK, text, facts={"path": None if path is None else str(path)})

    def ipv4() -> Finding:
        return _udp("ipv4", "127.0.0.1", "0.0.0.0")

    def state() -> Finding:
        return _state(settings.resolve(options))

    def key() -> Finding:
        return _key(settings.resolve(options))

    def lan() -> Finding:
        return _lan(is_on=settings.resolve(options).lan)

    yield from (ipv4, _buffers, _clock, config, state, key, lan)


# --- what is looked at ---


def _python() -> Finding:
    return Finding("python", OK, f"{machine.python()}, {sys.executable}", facts={"version": machine.python()})


def _loop() -> Finding:
    name = machine.loop()
    if name == "asyncio" and sys.platform != "win32":
        return Finding("loop", WARNING, name, "uvloop makes wake-ups cheaper: pip install uvloop", {"name": name})
    return Finding("loop", OK, name, facts={"name": name})


def _libsodium() -> Finding:
    found = _sodium.sodium()
    ciphers = control.available_suites()
    facts: JsonObject = {"path": found.path, "version": found.version, "origin": found.origin}
    facts |= {"ciphers": ciphers, "aegis": "aegis-256" in ciphers}
    text = f"{found.version}, {found.origin}, {found.path}: {', '.join(ciphers)}"
    if "aegis-256" in ciphers:
        return Finding("libsodium", OK, text, facts=facts)
    advice = "no AEGIS, the fastest cipher: it needs libsodium 1.0.19 or newer, and a processor with AES instructions"
    return Finding("libsodium", WARNING, text, advice, facts)


def _pysodium() -> Finding:
    path = _sodium.pysodium_path()
    facts: JsonObject = {"path": path}
    if os.path.realpath(path) == os.path.realpath(_sodium.path()):
        return Finding("pysodium", OK, "uses the same libsodium", facts=facts)
    advice = "two copies are loaded: import interpeer before pysodium, or leave it to interpeer"
    return Finding("pysodium", WARNING, f"uses another libsodium, {path}", advice, facts)


def _udp(name: str, loopback: str, anywhere: str) -> Finding:
    """Send a packet to ourselves, and see what the sockets can do."""
    try:
        near, far = _socket(loopback), _socket(loopback)
    except OSError as error:
        advice = "without it peers are reached by the other family alone"
        return Finding(name, WARNING, f"no socket: {error.strerror}", advice, {"has_socket": False})
    try:
        can = [word for word in ABILITIES if word in near.can]
        near.send([(b"doctor", far.address)])
        answered = far.wait(timeout=ECHO_S) and [message[0] for message in far.receive()] == [b"doctor"]
    finally:
        near.close()
        far.close()
    facts: JsonObject = {"has_socket": True, "can": can, "echo": answered, "address": _own_address(anywhere)}
    if not answered:
        return Finding(name, BROKEN, "a packet to ourselves did not come back", "is a firewall in the way of UDP?", facts)
    address = facts["address"]
    where = f"leaves from {address}" if address else "no way out of this machine"
    missing = [word for word in ABILITIES if word not in can]
    text = f"UDP works, {where}; {', '.join(can)}"
    if not missing:
        return Finding(name, OK, text, facts=facts)
    lost = "; ".join(f"no {word}, by which {ABILITIES[word]}" for word in missing)
    advice = f"{lost} ({'INTERPEER_DISABLE says so' if disabled_words() else 'this system lacks it'})"
    return Finding(name, WARNING if {"gso", "gro", "bigbuf"} & set(missing) else OK, text, advice, facts)


def _ipv6(seen: outside.Outside) -> Finding:
    """Say what IPv6 does here, and, if anybody was asked by it, outside."""
    here = _udp("ipv6", "::1", "::")
    works = None if seen.ipv6 is None else seen.ipv6.udp
    seen_at = [str(endpoint) for endpoint in seen.ipv6.reflexive] if seen.ipv6 is not None else []
    facts = {**here.facts, "works_outside": works, "reflexive": seen_at}
    text = (
        here.text + {None: "", True: f"; seen outside at {', '.join(seen_at)}", False: "; nothing comes back from outside"}[works]
    )
    if works is False and here.status == OK:
        return Finding("ipv6", WARNING, text, "peers are reached by IPv4: does the router let IPv6 through?", facts)
    return Finding("ipv6", here.status, text, here.advice, facts)


def _seconds(text: str) -> float:
    """Parse --lifetime. Raises Misuse."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_LIFETIME_S:
        raise Misuse(f"--lifetime takes seconds, from 0 to {MAX_LIFETIME_S}, not {text!r}")
    return seconds


def _socket(host: str) -> UdpSocket:
    """Open a socket as a node would, INTERPEER_DISABLE included."""
    words = disabled_words().split(",")
    if ":" in host and "ipv6" in words:
        raise OSError(errno.EAFNOSUPPORT, "INTERPEER_DISABLE says so")
    return UdpSocket(host, disable=",".join(word for word in words if word in ABILITIES or word == "recvmsg"))


def _own_address(anywhere: str) -> str | None:
    """Return the address that this machine sends from, None if it leads nowhere."""
    version = 6 if ":" in anywhere else 4
    return next((str(ip) for ip in ways_out() if ip.version == version and not ip.is_loopback), None)


def _buffers() -> Finding:
    probe = _socket("127.0.0.1")
    receive, send = probe.buffer_bytes
    probe.close()
    facts: JsonObject = {"receive_bytes": receive, "send_bytes": send}
    text = f"{size(receive)} to receive, {size(send)} to send"
    if min(receive, send) >= MIN_BUFFER_BYTES:
        return Finding("buffers", OK, text, facts=facts)
    advice = "packets are lost when a program is busy"
    if sys.platform == "linux":
        advice += "; as root: sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304"
    return Finding("buffers", WARNING, text, advice, facts)


def _clock() -> Finding:
    now_s = time.time()
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    facts: JsonObject = {"time": text, "resolution_s": time.get_clock_info("monotonic").resolution}
    if now_s < EARLIEST_S:
        return Finding("clock", WARNING, text, "the clock is not set: records that expire will not be believed", facts)
    return Finding("clock", OK, text, facts=facts)


def _state(resolved: settings.Settings) -> Finding:
    path = resolved.state or settings.default_state()
    if path is None:
        return Finding("state", WARNING, "no home directory", "name a state directory with --state, or each run has a fresh key")
    facts: JsonObject = {"path": str(path), "exists": path.exists()}
    fresh = "each run has a fresh key, unless --state names another"
    if not path.exists():
        nearest = next((above for above in path.parents if above.exists()), Path("/"))
        if os.access(nearest, os.W_OK):
            return Finding("state", OK, f"{path} (made at first use)", facts=facts)
        return Finding("state", WARNING, f"{path} cannot be made", fresh, facts)
    if not path.is_dir() or not os.access(path, os.W_OK):
        return Finding("state", WARNING, f"{path} cannot be written to", fresh, facts)
    if (path / "lock").exists():
        try:
            with StateDirectory(path):
                pass
        except StateLockedError:
            return Finding("state", OK, f"{path}, in use by another process", facts={**facts, "in_use": True})
    return Finding("state", OK, str(path), facts={**facts, "in_use": False})


def _lan(*, is_on: bool) -> Finding:
    """Say what there is to find neighbours with; nothing is said to them."""
    names = [one.name for one in links_of(interfaces())]
    refused: list[str] = []
    for version in (4, 6):
        try:
            try_port(version)
        except OSError as error:
            refused.append(error.strerror or str(error))
    has_mdns = find_spec("zeroconf") is not None
    has_port = len(refused) < 2
    facts: JsonObject = {"is_on": is_on, "interfaces": names, "port": PORT, "has_port": has_port, "has_mdns": has_mdns}
    if not is_on:
        return Finding("lan", OK, "neighbours are not looked for (--no-lan)", facts=facts)
    if not names:
        return Finding("lan", OK, "no interface leads to neighbours", facts=facts)
    if not has_port:
        advice = "end the program that has it for itself alone"
        return Finding("lan", WARNING, f"UDP port {PORT} cannot be used: {refused[0]}", advice, facts)
    text = f"neighbours are looked for on {', '.join(names)}, by UDP port {PORT}{' and mDNS' if has_mdns else ''}"
    if not has_mdns:
        return Finding("lan", OK, text, "many networks carry mDNS where they block the rest: pip install 'interpeer[lan]'", facts)
    return Finding("lan", OK, text, facts=facts)


def _key(resolved: settings.Settings) -> Finding:
    if resolved.seed is not None:
        identity = Identity.from_seed(resolved.seed)
        return Finding("key", OK, f"INTERPEER_KEY: {identity.id}", facts={"id": str(identity.id)})
    state = resolved.state or settings.default_state()
    path = resolved.key or (state / "identity" if state is not None else None)
    if path is None or not os.path.lexists(path):
        return Finding("key", OK, "none yet: it is made at first use (interpeer id)", facts={"id": None})
    try:
        identity = Identity.load(path)
    except IdentityFileError as error:
        return Finding("key", BROKEN, str(error), "it is never replaced by itself: repair it, or move it away for a new one")
    return Finding("key", OK, f"{path}: {identity.id}", facts={"id": str(identity.id), "path": str(path)})
