"""What doctor finds beyond this machine: what the gateway does, and with the help of others, what NATs are in front of it.

Nobody but the gateway is asked unless somebody was named: peers by --bootstrap (or where else `bootstrap` is set), STUN servers
by --stun.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import final

from interpeer._address import Address, CoreEndpoint, Endpoint, split_host_port
from interpeer._cli.errors import Misuse, explain
from interpeer._cli.finding import OK, WARNING, Finding
from interpeer._cli.output import JsonObject, Output, duration
from interpeer._cli.settings import Settings
from interpeer._config import Config
from interpeer._nat import NatReport, NodeHooks, Server, discover
from interpeer._node import Node
from interpeer._portmap import PortMapper
from interpeer._sockets import plain

STUN_PORT = 3478
LIFETIME_S = 30.0
"""What the search for the lifetime of mappings may take: it tells whether the usual keep-alives are frequent enough."""
GATEWAY_S = 3.0
"""How long gateways may take to answer, and to map a port."""
GATEWAY_LOOK_S = 0.05
VERIFY_S = 12.0
"""How long peers may take to try a mapping from outside: a gateway that lies is asked anew, and tried a second time."""
DOUBT_LOOKS = 10
"""When nobody could be asked yet, that is repeated after so many looks."""
LEAST_MTU = 1280
"""What every IPv6 path carries (RFC 8200)."""
_ID_CHARACTERS = 52
_IP_MTU, _IPV6_MTU = 14, 24  # Linux; the module socket does not name them
_ASK = "name a peer with --bootstrap, or a STUN server with --stun"
_ANY_IPV4, _ANY_IPV6 = "0.0.0.0:0", "[::]:0"
_ANYWHERE = ("192.0.2.1", "2001:db8::1")  # nothing is sent there: the routing table is asked about it


@final
@dataclass(frozen=True, slots=True)
class Outside:
    """What was found out; None where nobody was asked."""

    ipv4: NatReport | None
    ipv6: NatReport | None
    port_mapping: JsonObject
    mtu: int | None
    problems: tuple[str, ...]
    """Why somebody who was named could not be asked."""

    @property
    def report(self) -> NatReport:
        """What there is to say about NATs: of IPv4, if anybody was asked by it."""
        for report in (self.ipv4, self.ipv6):
            if report is not None and report.udp is not None:
                return report
        return NatReport()


def parse_server(text: str) -> tuple[str, int]:
    """Parse what --stun was given: a host, perhaps with a port. Raises Misuse."""
    host, port = text.strip("[]"), STUN_PORT
    try:
        if not _is_ipv6(host):
            host, port = split_host_port(text) if ":" in text else (host, port)
    except ValueError:
        host = ""
    if not host or not 0 < port < 65536 or set(host) & set(" @/"):
        raise Misuse(f"--stun takes a server such as stun.example.org:{STUN_PORT} or [2001:db8::1]:{STUN_PORT}, not {text!r}")
    return host, port


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


async def look(resolved: Settings, servers: Sequence[tuple[str, int]], lifetime_s: float, output: Output) -> Outside:
    """Ask the gateway, and whoever was named."""
    peers = resolved.bootstrap
    if not peers and not servers:
        mapping = await _ask_gateway()
        return Outside(None, None, mapping, _mtu_towards(_ANYWHERE), ())
    problems: list[str] = []
    known = [Server(one) for one in (*await _look_up(servers, problems), *_places(peers))]
    is_ipv4 = any(_is_ipv4(one.endpoint) for one in known)
    listen = resolved.listen if resolved.listen != Settings().listen else _ANY_IPV4 if is_ipv4 else _ANY_IPV6
    async with _node(resolved, peers, listen) as node:
        if peers:
            output.say("reaching the peers of --bootstrap")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(resolved.timeout):
                    await node.joined()
        asked = [*_helpers(node, problems), *known]
        if lifetime_s:
            output.say(f"to see how long mappings live takes up to {duration(lifetime_s)} (--lifetime)")
        mapping, report, ipv6 = await asyncio.gather(
            _ask_gateway(node),
            _discover(node, [one for one in asked if _is_ipv4(one.endpoint) == is_ipv4], lifetime_s),
            _ask_by_ipv6([one for one in known if is_ipv4 and not _is_ipv4(one.endpoint)]),
        )
    hosts = [Endpoint.from_core(one.endpoint).host for one in asked]
    ipv4, ipv6 = (report, ipv6) if is_ipv4 else (None, report)
    return Outside(ipv4, ipv6, mapping, _mtu_towards(hosts), tuple(problems))


@contextlib.asynccontextmanager
async def _node(resolved: Settings, peers: Sequence[str], listen: str) -> AsyncGenerator[Node]:
    """Open a node with a key for this run alone; in the network only if there are peers to ask."""
    config = Config(connect_timeout_s=resolved.timeout)
    give = resolved.as_give()
    if not peers:
        async with Node(listen=listen, lan=False, config=config) as node:
            yield node
        return
    try:
        node = Node(listen=listen, network=resolved.network, bootstrap=peers, lan=False, give=give, config=config)
    except ValueError as error:
        raise Misuse(str(error)) from None
    async with node:
        yield node


def _places(peers: Sequence[str]) -> list[CoreEndpoint]:
    """Return where the peers of --bootstrap are said to be: they answer STUN there, whatever way they are reached.

    What has a meaning only in some local network is left out, unless there is nothing else."""
    addresses = [Address(peer) for peer in peers if len(peer) != _ID_CHARACTERS]
    every = [endpoint for address in addresses for endpoint in address.endpoints if endpoint.transport == "udp"]
    near = [endpoint for endpoint in every if not endpoint.is_loopback]
    return [endpoint.to_core() for endpoint in [one for one in near if not one.is_private] or near]


async def _ask_by_ipv6(servers: Sequence[Server]) -> NatReport | None:
    """Ask by IPv6 as well, from sockets of its own: the node is kept to IPv4, where the NATs are."""
    if not servers:
        return None
    try:
        async with Node(listen=_ANY_IPV6, lan=False) as node:
            return await _discover(node, servers, 0.0)
    except OSError:
        return None  # there is no IPv6 here, and another finding says so


def _helpers(node: Node, problems: list[str]) -> list[Server]:
    """Return the peers that have been reached, and note why others have not."""
    reach = node._reach
    if reach is None:
        return []
    found = reach.surveyor.servers()
    problems += [f"{peer_id}: {why}" for peer_id, why in reach.peers.failures.items()]
    if not found and not reach.peers.failures:
        problems.append("no peer of --bootstrap has an address of its own by which it could be asked")
    return found


async def _discover(node: Node, servers: Sequence[Server], lifetime_s: float) -> NatReport | None:
    if not servers:
        return None
    if node._reach is not None:
        return await node._reach.surveyor.look(servers, lifetime_s)
    own = [endpoint.to_core() for endpoint in node._driver.endpoints]
    return await discover(NodeHooks(node), servers, own=own, lifetime_budget_s=lifetime_s)


async def _look_up(servers: Sequence[tuple[str, int]], problems: list[str]) -> list[CoreEndpoint]:
    """Return the addresses of servers, one of each family at the most."""
    loop = asyncio.get_running_loop()
    found: list[CoreEndpoint] = []
    for host, port in servers:
        try:
            results = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            problems.append(f"{host}: {explain(error)[0]}")
            continue
        by_family = {result[0]: result[4] for result in reversed(results) if result[0] in (socket.AF_INET, socket.AF_INET6)}
        found += [Endpoint(str(address[0]), port).to_core() for address in by_family.values()]
    return found


def _is_ipv4(endpoint: CoreEndpoint) -> bool:
    return ":" not in Endpoint.from_core(endpoint).host


# --- the gateway ---


async def _ask_gateway(node: Node | None = None) -> JsonObject:
    """Have a port mapped, and give it back: the node's own, or for want of a node one of this moment. Return the report."""
    if node is not None and node._reach is not None:
        surroundings = node._reach.surroundings

        def report() -> JsonObject | None:
            found: JsonObject | None = surroundings.report()["port_mapping"]
            return found

        return await _verify(await _settle(report), report, surroundings.handle_doubt)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("", 0))
        mapper = PortMapper(held.getsockname()[1])
        await mapper.start()
        try:
            return await _settle(mapper.report)
        finally:
            await mapper.close()


async def _settle(report: Callable[[], JsonObject | None]) -> JsonObject:
    """Return what a mapper has found, when it has found something or has had its time."""
    found: JsonObject = {}
    for _ in range(round(GATEWAY_S / GATEWAY_LOOK_S)):
        found = report() or {}
        if found and _is_settled(found):
            break
        await asyncio.sleep(GATEWAY_LOOK_S)
    return found


async def _verify(found: JsonObject, report: Callable[[], JsonObject | None], doubt: Callable[[], None]) -> JsonObject:
    """Have mappings tried from outside; return what is known then, at the latest when that has had its time.

    The mapper has asked before anybody was there to be asked, and would do so again in a minute only."""
    if not found.get("mappings"):
        return found
    for number in range(round(VERIFY_S / GATEWAY_LOOK_S)):
        if found["double_nat"] or (found["mappings"] and None not in found["is_verified"]):
            break
        if number % DOUBT_LOOKS == 0:
            doubt()
        await asyncio.sleep(GATEWAY_LOOK_S)
        found = report() or found
    return found


def _is_settled(report: JsonObject) -> bool:
    """Tell whether there is a mapping, or no gateway to ask for one."""
    return bool(report["mappings"]) or (not report["gateways"] and bool(report["reasons"]))


def _mtu_towards(hosts: Sequence[str]) -> int | None:
    """Return the least MTU of the ways to some hosts, as far as this machine knows; nothing is sent."""
    if sys.platform != "linux":
        return None
    found: list[int] = []
    for host in hosts:
        is_ipv6 = ":" in host
        with socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(plain(Endpoint(host, 9).to_core()))
                level, option = (socket.IPPROTO_IPV6, _IPV6_MTU) if is_ipv6 else (socket.IPPROTO_IP, _IP_MTU)
                found.append(probe.getsockopt(level, option))
            except OSError:
                continue  # no way there
    return min(found, default=None)


# --- what it means ---


def findings(outside: Outside) -> list[Finding]:
    """Return what doctor says of it, with advice; of IPv6 it says more elsewhere."""
    return [_nat(outside), _udp(outside), _port_mapping(outside), _mtu(outside.mtu)]


def _nat(outside: Outside) -> Finding:
    report = outside.report
    facts = report.to_dict()
    if report.udp is None:
        return Finding("nat", OK, _unknown(outside), _advice(outside), facts)
    if not report.udp:
        return Finding("nat", WARNING, "unknown: nothing came back", "see udp", facts)
    text = _describe_nat(report)
    doubts = "; ".join(report.notes)
    return Finding("nat", *_judge_nat(report, text + (f" ({doubts})" if doubts else "")), facts)


def _describe_nat(report: NatReport) -> str:
    if report.mapping == "none":
        text = "no NAT" if report.filtering == "none" else f"no NAT, but a firewall (filtering: {report.filtering})"
    else:
        text = f"mapping: {report.mapping}, filtering: {report.filtering}"
    if report.hairpin is not None and report.mapping != "none":
        text += f", {'hairpins' if report.hairpin else 'does not hairpin'}"
    if report.lifetime_s is not None:
        text += f", silent mappings live at least {duration(report.lifetime_s)}"
    where = ", ".join(map(str, report.reflexive))
    return f"{text}; seen at {where}" if where else text


def _judge_nat(report: NatReport, text: str) -> tuple[str, str, str]:
    """Return status, text and advice."""
    status, advice = _judge_kind(report)
    if report.lifetime_s is None or report.lifetime_s >= Config().keep_alive_s:
        return status, text, advice
    soon = "mappings are forgotten soon: nodes of a network adapt to it; without network= set keep_alive_s in Config below that"
    return WARNING, text, "; ".join(filter(None, (advice, soon)))


def _judge_kind(report: NatReport) -> tuple[str, str]:
    """Return status and advice, but for the lifetime."""
    if report.mapping in ("address-dependent", "address-and-port-dependent"):
        advice = (
            "every peer sees another port: peers behind the like are reached through others. Better: port mapping (UPnP, PCP)"
            " in the router, a forwarded port, or IPv6"
        )
        return WARNING, advice
    if report.mapping == "unknown":
        return OK, "two observers at different addresses can tell: name more with --bootstrap or --stun"
    if report.filtering in ("address-dependent", "address-and-port-dependent"):
        return OK, "peers reach this machine with the help of one that both know; a forwarded port would do without"
    return OK, ""


def _unknown(outside: Outside) -> str:
    return _because("unknown: nobody could be asked", outside) if outside.problems else "unknown: nobody was asked"


def _because(text: str, outside: Outside) -> str:
    return f"{text} ({'; '.join(outside.problems)})" if outside.problems else text


def _udp(outside: Outside) -> Finding:
    reports = [report for report in (outside.ipv4, outside.ipv6) if report is not None and report.udp is not None]
    works = None if not reports else any(report.udp for report in reports)
    facts: JsonObject = {"works": works}
    if works is None:
        return Finding("udp", WARNING if outside.problems else OK, _unknown(outside), _advice(outside), facts)
    if works:
        return Finding("udp", OK, "gets out, and answers come back", facts=facts)
    advice = "is a firewall in the way? Peers that offer it are reached by TCP or TLS (tcp://, tls://, port 443)"
    return Finding("udp", WARNING, _because("none of those asked has answered", outside), advice, facts)


def _advice(outside: Outside) -> str:
    return "are the addresses right, and are those peers running?" if outside.problems else _ASK


def _port_mapping(outside: Outside) -> Finding:
    report = outside.port_mapping
    facts: JsonObject = {name: value for name, value in report.items() if name != "ignored"}
    gateways = [str(gateway) for gateway in report.get("gateways", ())]
    if report.get("mappings"):
        status, text, advice = _judge_mappings(report)
    elif not gateways:
        status, text, advice = OK, "no gateway: there is no default route", ""
    elif _is_open(outside, gateways):
        return Finding("port_mapping", OK, "none needed: there is no NAT", facts=facts)
    else:
        status, text = WARNING, f"the gateway {', '.join(gateways)} maps no ports"
        advice = "switch on UPnP, NAT-PMP or PCP in the router, and peers reach this machine without help"
    reasons = "; ".join(report["reasons"]) if gateways else ""
    return Finding("port_mapping", status, f"{text} ({reasons})" if reasons else text, advice, facts)


def _is_open(outside: Outside, gateways: Sequence[str]) -> bool:
    """Tell whether everything comes in without any mapping, as far as was seen: by IPv4, if there is a gateway for it."""
    report = outside.ipv6 if all(":" in gateway for gateway in gateways) else outside.ipv4
    return report is not None and (report.mapping, report.filtering) == ("none", "none")


def _judge_mappings(report: JsonObject) -> tuple[str, str, str]:
    """Return status, text and advice, where the gateway has mapped something."""
    if report["double_nat"]:
        advice = (
            "another NAT is in front of this gateway (a carrier's?): what it maps is not reached from outside. IPv6 or a public"
            " address from the provider helps; peers are punched to, or relayed"
        )
        return WARNING, f"works, but leads nowhere: {report['mappings'][0]}", advice
    said: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for mapping, is_verified in zip(report["mappings"], report["is_verified"], strict=True):
        said[is_verified].append(mapping)
    words = {
        False: "granted, but nothing comes through: ",
        True: "works, tried from outside: ",
        None: "granted, not tried from outside: ",
    }
    text = "; ".join(what + ", ".join(said[verdict]) for verdict, what in words.items() if said[verdict])
    if said[False]:
        return WARNING, text, "allow UDP for this program in the host's firewall"
    return OK, text, "name a peer outside with --bootstrap: it tries whether anything comes through" if said[None] else ""


def _mtu(mtu: int | None) -> Finding:
    facts: JsonObject = {"bytes": mtu}
    if mtu is None:
        return Finding("mtu", OK, "not known: this system does not tell, or no way leads out", facts=facts)
    if mtu >= LEAST_MTU:
        return Finding("mtu", OK, f"{mtu} bytes, as far as this machine knows", facts=facts)
    advice = f"packets of {LEAST_MTU} bytes do not fit: is there a tunnel whose interface could be larger?"
    return Finding("mtu", WARNING, f"{mtu} bytes", advice, facts)
