"""Hosts on one switch, each a process in a network namespace of its own, with no way to anywhere else.

Run as a script with the name of a case, in a namespace of the calling user's own, it is the switch: it starts the hosts, moves
their cables, carries out the case and prints what it saw as JSON. Run with the name of a host's part it is that host, which
says what happens in lines of JSON and takes orders the same way."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import namespaces

PATIENCE_S = 40.0


def run_case(name: str) -> Any:
    """Carry out a function of this file as the switch, and return what it returned."""
    return namespaces.run_case(name, __file__)


class Host:
    """A process that plays a part behind its cable eth0."""

    def __init__(self, name: str, part: str, *addresses: str, **settings: str) -> None:
        self.name = name
        command = ["unshare", "--net", sys.executable, __file__, part]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hear("up")
        namespaces.ip(f"link add {name} type veth peer name eth0 netns {self._process.pid}")
        namespaces.ip(f"link set {name} master switch up")
        self.ip("link set lo up")
        self.sysctl("net.ipv6.conf.eth0.accept_dad=0")
        for address in addresses:
            self.ip(f"address add {address} dev eth0")
        self.ip("link set eth0 up")
        self.say(settings=settings)

    def enter(self, *words: str) -> None:
        subprocess.run(["nsenter", "--target", str(self._process.pid), "--net", *words], check=True, stdout=subprocess.DEVNULL)

    def ip(self, words: str) -> None:
        self.enter("ip", *words.split())

    def sysctl(self, setting: str) -> None:
        name, _, value = setting.partition("=")
        self.enter("sh", "-c", f"echo {value} > /proc/sys/{name.replace('.', '/')}")

    def nft(self, rules: str) -> None:
        self.enter("nft", rules)

    def say(self, **order: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def hear(self, event: str, when: Callable[[dict[str, Any]], object] = bool) -> dict[str, Any]:
        """Return the next event of this name for which `when` holds."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told: dict[str, Any] = json.loads(line)
            if told["event"] == event and when(told):
                return told
        raise AssertionError(f"{self.name} ended without {event!r}")

    def end(self) -> dict[str, Any]:
        """Tell it to end; return its last word."""
        self.say(end=True)
        last = self.hear("end")
        self._process.wait()
        return last


def make_switch() -> None:
    namespaces.ip("link set lo up")
    namespaces.ip("link add switch type bridge")
    namespaces.ip("link set switch up")


# --- cases ---


def _transfer(act: Callable[[Host, Host], None], *addresses: str) -> dict[str, Any]:
    """Send from one host to the other, act when it flows, and see that it flows on."""
    make_switch()
    there, here = Host("there", "receiver", *addresses[:1]), Host("here", "sender", *addresses[1:])
    here.say(target=there.hear("ready")["address"])
    flow(there, 1_000_000)
    act(here, there)
    flow(there, 3_000_000)
    return {"sent": here.end(), "received": there.end()}


def flow(host: Host, more: int) -> None:
    """Wait until a host has received so many bytes more."""
    host.say(more=more)
    host.hear("received")


def move_ipv4() -> dict[str, Any]:
    def act(here: Host, there: Host) -> None:
        here.ip("address del 10.7.0.2/24 dev eth0")
        here.ip("address add 10.7.0.77/24 dev eth0")
        there.hear("moved", lambda told: told["remote"].startswith("10.7.0.77:"))

    return _transfer(act, "10.7.0.1/24", "10.7.0.2/24")


def move_ipv6() -> dict[str, Any]:
    def act(here: Host, there: Host) -> None:
        here.ip("address del fd07::2/64 dev eth0")
        here.ip("address add fd07::77/64 dev eth0 nodad")
        there.hear("moved", lambda told: told["remote"].startswith("[fd07::77]:"))

    return _transfer(act, "fd07::1/64", "fd07::2/64")


def interface_down() -> dict[str, Any]:
    def act(here: Host, there: Host) -> None:
        here.ip("link set eth0 down")
        here.say(until="unreachable")
        here.hear("counted")
        here.hear("change", lambda told: told["gone"])
        here.ip("link set eth0 up")
        here.hear("change", lambda told: told["come"])

    return _transfer(act, "10.7.0.1/24", "10.7.0.2/24")


def watched() -> dict[str, Any]:
    """Everything that a watcher is to see, one after another."""
    make_switch()
    host = Host("host", "watcher", "10.7.0.1/24", "fd07::1/64")
    host.hear("ready")
    seen = {}
    for name, words in {
        "another address": "address add 10.7.0.2/24 dev eth0",
        "an address less": "address del 10.7.0.2/24 dev eth0",
        "a way out": "route add default via 10.7.0.254",
        "another router": "route replace default via 10.7.0.253",
        "no way out": "route del default",
        "a way out for IPv6": "-6 route add default via fd07::254",
        "down": "link set eth0 down",
    }.items():
        host.ip(words)
        seen[name] = host.hear("change")
    host.ip("link set eth0 up")
    seen["up"] = host.hear("change", lambda told: "10.7.0.1" in told["come"])
    host.enter("sh", "-c", "for i in $(seq 2 60); do ip address add 10.7.1.$i/24 dev eth0; done")
    burst = [host.hear("change")]
    while sum(len(told["come"]) for told in burst) < 59:
        burst.append(host.hear("change"))
    host.end()
    return {"seen": seen, "burst": len(burst)}


def candidates() -> dict[str, Any]:
    """What a node tells of its addresses, and what the kernel says of them."""
    make_switch()
    host = Host("host", "node", "10.7.0.1/24", "fd07::1/64")
    first = host.hear("endpoints")["hosts"]
    host.ip("address add 2001:db8:7::1/64 dev eth0 preferred_lft 0")
    host.ip("link add br-1 type bridge")
    host.ip("address add 172.20.0.1/16 dev br-1")
    host.ip("link add below type veth peer name beneath")
    host.ip("link set beneath up")
    host.ip("link set below master br-1 up")
    host.ip("link set br-1 up")
    second = host.hear("endpoints", lambda told: "172.20.0.1" in told["hosts"])["hosts"]
    host.ip("address del 10.7.0.1/24 dev eth0")
    third = host.hear("endpoints", lambda told: "10.7.0.1" not in told["hosts"])["hosts"]
    host.end()
    return {"first": first, "second": second, "third": third}


def _find(rules: str = "", *, families: str = "46", ways: str = "beacons") -> dict[str, Any]:
    """Let two hosts of one network, and one of another, look for each other while a filter drops what `rules` say."""
    make_switch()
    hosts = []
    for i, (name, network) in enumerate([("here", "ours"), ("there", "ours"), ("other", "theirs")], 1):
        ipv4 = [f"10.7.0.{i}/24"] if "4" in families else []
        hosts.append(host := Host(name, "finder", *ipv4, network=network, ways=ways, calls="first" if i == 1 else ""))
        if "6" not in families:
            host.sysctl("net.ipv6.conf.eth0.disable_ipv6=1")
        if rules:
            host.nft("add table inet filter")
            host.nft("add chain inet filter out { type filter hook output priority 0; }")
            host.nft(f"add rule inet filter out {rules} counter drop")
        host.say(go=True)
    here, there, _ = hosts
    there_id = there.hear("ready")["id"]
    found = here.hear("found", lambda told: told["id"] == there_id)
    reached = here.hear("reached")
    there.hear("found")
    ended = [host.end() for host in hosts]
    return {"found": found, "reached": reached, "counters": [told["counters"] for told in ended], "other": ended[2]["found"]}


def find_by_multicast() -> dict[str, Any]:
    return _find("fib daddr type broadcast udp dport 28457", families="4")


def find_by_broadcast() -> dict[str, Any]:
    return _find("ip daddr 224.0.0.0/4", families="4")


def find_by_ipv6() -> dict[str, Any]:
    return _find(families="6")


def find_without_hops() -> dict[str, Any]:
    os.environ["INTERPEER_DISABLE"] = "recvttl"  # of the hosts, too
    return _find()


def find_by_mdns() -> dict[str, Any]:
    return _find("udp dport 28457", families="4", ways="beacons mdns")


def find_after_plugging() -> dict[str, Any]:
    """One gets its address later: what is said then is heard at once, not a minute later."""
    make_switch()
    here = Host("here", "finder", network="ours", ways="beacons")
    there = Host("there", "finder", "10.7.0.2/24", network="ours", ways="beacons")
    for host in (here, there):
        host.sysctl("net.ipv6.conf.eth0.disable_ipv6=1")
        host.say(go=True)
        host.hear("ready")
    here.ip("address add 10.7.0.1/24 dev eth0")
    return {"found": here.hear("found"), "ended": [here.end(), there.end()]}


# --- parts ---


def tell(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


class Orders:
    """What the switch says, line by line."""

    def __init__(self) -> None:
        self._reader: asyncio.StreamReader

    async def open(self) -> dict[str, str]:
        """Say that the process runs, and wait until the cable is plugged in; return the settings."""
        self._reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self._reader), sys.stdin)
        tell("up")
        settings: dict[str, str] = (await self.next())["settings"]
        return settings

    async def next(self) -> dict[str, Any]:
        line = await self._reader.readline()
        order: dict[str, Any] = json.loads(line) if line else {"end": True}
        return order


async def receiver() -> None:
    import interpeer

    orders = Orders()
    await orders.open()
    digest, count = hashlib.blake2b(), 0
    has_come = asyncio.Event()

    async def obey() -> None:
        while "more" in (order := await orders.next()):
            wanted = count + order["more"]
            while count < wanted:
                has_come.clear()
                await has_come.wait()
            tell("received")

    async with interpeer.Node(listen="[::]:0") as node:
        tell("ready", address=str(node.address))
        events, obeying = asyncio.create_task(_tell_moves(node)), asyncio.create_task(obey())
        connection = await node.accept()
        stream = await connection.accept_stream()
        while data := await stream.read(1 << 16):
            digest.update(data)
            count += len(data)
            has_come.set()
        await obeying
        tell("end", digest=digest.hexdigest(), bytes=count, counters=node.counters())
        events.cancel()


async def _tell_moves(node: Any) -> None:
    async for event in node.events():
        if getattr(event, "what", "") == "moved":
            tell("moved", remote=event.remote)


async def sender() -> None:
    import interpeer
    from interpeer import _interfaces

    orders = Orders()
    await orders.open()
    loop = asyncio.get_running_loop()
    digest, count = hashlib.blake2b(), 0
    is_over = asyncio.Event()
    watcher = _interfaces.watch(loop, lambda change: tell("change", come=change.come, gone=change.gone))
    watcher.start()
    async with interpeer.Node(listen="[::]:0") as node:
        async with node.connect((await orders.next())["target"]) as connection:
            stream = await connection.open_stream()

            async def listen() -> None:
                while "until" in (order := await orders.next()):
                    while not node.counters()[order["until"]]:
                        await asyncio.sleep(0.01)
                    tell("counted")
                is_over.set()

            listening = asyncio.create_task(listen())
            piece = bytes(range(256)) * 64
            while not is_over.is_set():
                await stream.write(piece)
                digest.update(piece)
                count += len(piece)
            await stream.finish()
            await listening
            tell("end", digest=digest.hexdigest(), bytes=count, counters=node.counters(), hosts=_hosts(node))
    watcher.close()


async def watcher() -> None:
    from interpeer import _interfaces

    orders = Orders()
    await orders.open()

    def on_change(change: _interfaces.Change) -> None:
        ways = [i.name for i in change.interfaces if i.default_ipv4 or i.default_ipv6]
        gateways = [str(gateway) for i in change.interfaces for gateway in i.gateways]
        come, gone = ([host for host in hosts if not host.startswith("fe80")] for hosts in (change.come, change.gone))
        tell("change", come=come, gone=gone, rerouted=change.is_rerouted, ways=ways, gateways=gateways)

    watcher = _interfaces.watch(asyncio.get_running_loop(), on_change)
    watcher.start()
    tell("ready")
    await orders.next()
    watcher.close()
    tell("end")


async def node() -> None:
    import interpeer

    orders = Orders()
    await orders.open()
    async with interpeer.Node(listen="[::]:0") as node:
        tell("endpoints", hosts=_hosts(node))
        ordered = asyncio.create_task(orders.next())
        while not ordered.done():
            await asyncio.wait([ordered], timeout=0.02)
            tell("endpoints", hosts=_hosts(node))
    tell("end")


async def finder() -> None:
    import interpeer
    from interpeer import _interfaces
    from interpeer._lan import LanDiscovery

    orders = Orders()
    settings = await orders.open()
    await orders.next()
    found: dict[Any, Any] = {}
    has_found = asyncio.Event()

    def on_peer(peer_id: Any, endpoints: Any) -> None:
        found[peer_id] = endpoints
        tell("found", id=str(peer_id), endpoints=[str(endpoint) for endpoint in endpoints])
        has_found.set()

    async def reach() -> None:
        await has_found.wait()
        peer_id, endpoints = next(iter(found.items()))
        async with node.connect(interpeer.Address.of(peer_id, endpoints)) as connection:
            tell("reached", path=connection.path.kind, remote=str(connection.path.remote))

    async with interpeer.Node(listen="[::]:0", network=settings["network"]) as node:
        bound, ways = node._driver.bound, settings["ways"].split()
        finding = LanDiscovery(
            node.id, settings["network"], bound, on_peer, with_beacons="beacons" in ways, with_mdns="mdns" in ways
        )
        await finding.start()
        watcher = _interfaces.watch(asyncio.get_running_loop(), finding.on_change)
        watcher.start()
        tell("ready", id=str(node.id), notes=finding.notes)
        reaching = asyncio.create_task(reach()) if settings.get("calls") else None  # who also calls might be called meanwhile
        await orders.next()
        if reaching is not None:
            await reaching
        watcher.close()
        counters = finding.counters()
        await finding.close()
    tell("end", counters=counters, found=[str(peer_id) for peer_id in found])


def _hosts(node: Any) -> list[str]:
    return [endpoint.host for endpoint in node.address.endpoints]


if __name__ == "__main__":
    part = globals()[sys.argv[1]]
    if asyncio.iscoroutinefunction(part):
        asyncio.run(part())
    else:
        print(json.dumps(part()))
