"""What a NatBehaviour is in nftables: a pure function from the one to the text of the other.

Conntrack translates each flow. Which outside port a new flow gets, and who may come in, is decided by sets with time-outs that
the packets themselves fill. Only packets on their way out refresh them (RFC 4787, REQ-6). They outlive a single flow, so that a
mapping is the same towards every remote endpoint, and an outside port belongs to one inside endpoint (REQ-3): masquerade promises
neither. What the filter refuses is dropped before conntrack has confirmed it, so that it leaves no trace.

    outside     inside endpoint [. remote address] -> outside port
    inside      outside port -> inside endpoint
    taken       outside ports in use
    permitted   outside port . remote address [. remote port]
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from enum import StrEnum, unique
from typing import Final, final

from interpeer.testing._natkind import FIRST_PORT, LAST_PORT, Allocation, Dependence, NatBehaviour

OUT: Final = "out"  # the interface towards the public network, of a router and of a public host
IN: Final = "in"  # a router's interface towards its own network
_POOL_PORTS: Final = 4096  # outside ports that a NAT walks through before it gives the first one out again
_BLOCK_EDGE: Final = 512  # blocks begin where carriers let them begin, RFC 7422's example: at multiples
_PERMITTED: Final = "meta mark 0x1"
_OURS: Final = "ct mark 0x1"  # let in by the filter; what miniupnpd has forwarded has none


@final
@unique
class Ipv6(StrEnum):
    """Name how a site stands to IPv6."""

    OFF = "off"
    """It has none."""
    FIREWALL = "firewall"
    """Public addresses behind a filter that remembers whom a host has sent to."""
    OPEN = "open"
    """Public addresses, and no filter."""


def ruleset(nat: NatBehaviour, address: str | None, ipv6: Ipv6, chance: random.Random) -> str:
    """Return the rules for a router or a host; address: its IPv4 address outside; chance: draws the ports.

    >>> print(ruleset(NatBehaviour(mapping=Dependence.NONE, filtering=Dependence.NONE), "20.1.0.2", Ipv6.OPEN, random.Random(1)))
    <BLANKLINE>
    """
    if nat.tracks_strangers:
        plain = nat.replace(lifetime_s=1, reply_lifetime_s=None, carrier=None, udp=True, tcp_ports=None)
        if plain != NatBehaviour(tracks_strangers=True, lifetime_s=1):
            raise ValueError("tracks_strangers is plain masquerade: of the rest only lifetimes, udp and tcp_ports can be changed")
    tables: list[str] = []
    if address is not None and (nat.translates or nat.filtering is not Dependence.NONE):
        body = _masquerade() if nat.tracks_strangers else _ipv4(nat, address, chance)
        tables.append(_table("ip natlab4", body))
    if ipv6 is Ipv6.FIREWALL:
        tables.append(_table("ip6 natlab6", _ipv6_firewall()))
    if not nat.udp or nat.tcp_ports is not None:
        tables.append(_table("inet natlab", _forbid(nat)))
    return "".join(tables)


def _table(name: str, lines: Iterable[str]) -> str:
    body = "".join(f"  {line}\n" for line in lines)
    return f"table {name} {{\n{body}}}\n"


def _chain(name: str, hook: str, rules: Iterable[str]) -> list[str]:
    head = [f"  type {hook};"] if hook else []
    return [f"chain {name} {{", *head, *(f"  {rule}" for rule in rules), "}"]


def _masquerade() -> list[str]:
    return _chain("leave", "nat hook postrouting priority srcnat", [f'oifname "{OUT}" masquerade'])


def _ipv6_firewall() -> list[str]:
    neighbours = "{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert }"
    return _chain(
        "refuse",
        "filter hook prerouting priority mangle",
        [
            f'iifname != "{OUT}" accept',
            f"icmpv6 type {neighbours} accept",
            "ct state established,related accept",
            "drop",
        ],
    )


def _forbid(nat: NatBehaviour) -> list[str]:
    out, back = f'oifname "{OUT}"', f'iifname "{OUT}"'
    if nat.tcp_ports is not None:
        ports = ", ".join(map(str, nat.tcp_ports))
        neighbours = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
        lines = [
            f"{out} {neighbours}",
            f"{out} tcp dport {{ {ports} }} accept",
            f"{out} ct direction reply accept",
            f"{out} drop",
        ]
        return _chain("forbid", "filter hook postrouting priority mangle", lines)
    return [
        *_chain("forbid", "filter hook postrouting priority mangle", [f"{out} meta l4proto udp drop"]),
        *_chain("refuse", "filter hook prerouting priority mangle", [f"{back} meta l4proto udp drop"]),
    ]


# --- IPv4 ---


def _ipv4(nat: NatBehaviour, address: str, chance: random.Random) -> list[str]:
    lines = [*_sets(nat), *_arrive(nat), *_refuse(nat, address), *_remember(nat, address)]
    if nat.translates:
        lines += [*_enter(nat, address), *_leave(nat, address), *_allocate(nat, address, chance)]
    return lines


def _sets(nat: NatBehaviour) -> list[str]:
    options = f"flags dynamic,timeout; timeout {_milliseconds(nat.lifetime_s)}; size 65536;"
    inside = "ipv4_addr . inet_service"
    remote = {Dependence.ADDRESS_DEPENDENT: " . ipv4_addr", Dependence.ADDRESS_AND_PORT_DEPENDENT: " . ipv4_addr . inet_service"}
    lines = [f"set taken {{ type inet_service; {options} }}"]
    if nat.filtering in remote:
        lines.append(f"set permitted {{ type inet_service{remote[nat.filtering]}; {options} }}")
    if nat.translates:
        lines.append(f"map inside {{ type inet_service : {inside}; {options} }}")
    if nat.mapping is Dependence.ENDPOINT_INDEPENDENT:
        lines.append(f"map outside {{ type {inside} : inet_service; {options} }}")
    if nat.mapping is Dependence.ADDRESS_DEPENDENT:
        lines.append(f"map outside {{ type {inside} . ipv4_addr : inet_service; {options} }}")
    return lines


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _may_enter(nat: NatBehaviour, port: str) -> str:
    """Return the filter: a match of a packet from outside to an outside port."""
    if nat.filtering is Dependence.ADDRESS_DEPENDENT:
        return f"{port} . ip saddr @permitted"
    if nat.filtering is Dependence.ADDRESS_AND_PORT_DEPENDENT:
        return f"{port} . ip saddr . udp sport @permitted"
    return f"{port} @taken"


def _arrive(nat: NatBehaviour) -> list[str]:
    """Mark what the filter lets in, as it comes from the wire."""
    rule = f'iifname "{OUT}" meta l4proto udp {_may_enter(nat, "udp dport")} meta mark set 0x1'
    return _chain("arrive", "filter hook prerouting priority raw", [rule])


def _enter(nat: NatBehaviour, address: str) -> list[str]:
    """Find whom a new flow from outside is for."""
    rules = [
        f'iifname "{OUT}" meta l4proto udp ip daddr {address} {_PERMITTED} {_OURS.replace("mark", "mark set")} dnat ip to {_WHOM}'
    ]
    if nat.hairpin:
        rules.append(f'iifname "{IN}" meta l4proto udp ip daddr {address} dnat ip to {_WHOM}')
    return _chain("enter", "nat hook prerouting priority dstnat", rules)


_WHOM: Final = "udp dport map @inside"


def _refuse(nat: NatBehaviour, address: str) -> list[str]:
    """Drop what nobody has asked for, before conntrack confirms it."""
    turned_back = f'iifname "{IN}" ip daddr {address} meta l4proto udp ct status & dnat == 0 drop'
    rules = [
        *([turned_back] if nat.translates else []),
        f'iifname != "{OUT}" accept',
        f"meta l4proto udp {_PERMITTED} accept",
        "meta l4proto udp ct direction original ct mark 0x0 ct status dnat accept",  # a port that miniupnpd forwards ...
        "meta l4proto udp drop",
        "ct state established,related accept",
        "ct status dnat accept",  # ... for TCP
        "drop",
    ]
    return _chain("refuse", "filter hook prerouting priority dstnat + 10", rules)


def _leave(nat: NatBehaviour, address: str) -> list[str]:
    """Translate new flows on their way out, and those that are turned back."""
    range_ = "" if nat.preserves_port else f":{FIRST_PORT}-{LAST_PORT} fully-random"
    rules = [f'oifname "{OUT}" meta l4proto udp goto allocate']
    if nat.hairpin:
        rules.append(f'oifname "{IN}" meta l4proto udp ct status dnat ct original ip daddr {address} goto allocate')
    rules += [f'oifname "{OUT}" meta l4proto tcp snat to {address}{range_}', f'oifname "{OUT}" snat to {address}']
    return _chain("leave", "nat hook postrouting priority srcnat", rules)


def _allocate(nat: NatBehaviour, address: str, chance: random.Random) -> list[str]:
    """Choose the outside port of a new flow."""
    known = {Dependence.ENDPOINT_INDEPENDENT: "", Dependence.ADDRESS_DEPENDENT: " . ct original ip daddr"}
    udp = f"meta l4proto udp snat to {address}"
    rules: list[str] = []
    if nat.mapping in known:
        rules.append(f"{udp}:ip saddr . udp sport{known[nat.mapping]} map @outside")
    if nat.preserves_port:
        rules.append(f"udp sport != @taken snat to {address}")
    first, last = _range(nat, chance)
    is_for_one = nat.mapping is nat.filtering is Dependence.ADDRESS_AND_PORT_DEPENDENT
    if nat.allocation is Allocation.RANDOM and is_for_one:
        rules.append(
            f"{udp}:{first}-{last} fully-random"
        )  # may serve several remote endpoints, as real ones do when they run out
    else:
        rules.append(f"{udp}:{_walk(_pool(nat, first, last, chance))}")
    return _chain("allocate", "", rules)


def _range(nat: NatBehaviour, chance: random.Random) -> tuple[int, int]:
    if nat.block_ports is None:
        return FIRST_PORT, LAST_PORT
    first = chance.randrange(FIRST_PORT, LAST_PORT + 2 - nat.block_ports)
    first = max(FIRST_PORT, first - first % _BLOCK_EDGE)
    return first, first + nat.block_ports - 1


def _pool(nat: NatBehaviour, first: int, last: int, chance: random.Random) -> list[int]:
    """Draw the ports to give out one after the other, so that no two mappings get the same one soon."""
    if nat.allocation is not Allocation.SEQUENTIAL:
        return chance.sample(range(first, last + 1), min(_POOL_PORTS, last - first + 1))
    count = min(_POOL_PORTS, (last - first) // abs(nat.step) + 1)
    begin = chance.randint(first, last - (count - 1) * abs(nat.step))
    ports = list(range(begin, begin + count * abs(nat.step), abs(nat.step)))
    return ports if nat.step > 0 else ports[::-1]


def _walk(ports: list[int]) -> str:
    numbered = ", ".join(f"{i} : {port}" for i, port in enumerate(ports))
    return f"numgen inc mod {len(ports)} map {{ {numbered} }}"  # a bare numgen comes out with its bytes swapped


def _remember(nat: NatBehaviour, address: str) -> list[str]:
    """Note what has left, with its source as it is now: translated."""
    out = f'oifname "{OUT}" meta l4proto udp'
    by_us, by_them = "ct original ip saddr . ct original proto-src", "ct reply ip saddr . ct reply proto-src"
    rules: list[str] = []
    for way, inside in (("original", by_us), ("reply", by_them)):
        rules += [f"{out} ct direction {way} {note}" for note in _notes(nat, inside, "udp sport", "ip daddr", "udp dport")]
    if nat.hairpin:
        back = f'oifname "{IN}" meta l4proto udp ct original ip daddr {address} ct direction'
        there, here = "ct original proto-dst", "ct reply proto-dst"
        rules += [f"{back} original {note}" for note in _notes(nat, by_us, "udp sport", "ct original ip daddr", there)]
        rules += [f"{back} reply {note}" for note in _notes(nat, by_them, there, "ct original ip daddr", here)]
        rules.append(f"{back} original {_may_enter(nat, there)} accept")
        rules.append(f"{back} original drop")
    return _chain("remember", "filter hook postrouting priority srcnat + 10", rules)


def _notes(nat: NatBehaviour, inside: str, port: str, remote: str, remote_port: str) -> list[str]:
    """Return the statements that note one packet, the one about an answered flow after the others: it lives longer."""
    updates = [f"taken {{ {port}%s }}"]
    if nat.filtering is Dependence.ADDRESS_DEPENDENT:
        updates.append(f"permitted {{ {port} . {remote}%s }}")
    if nat.filtering is Dependence.ADDRESS_AND_PORT_DEPENDENT:
        updates.append(f"permitted {{ {port} . {remote} . {remote_port}%s }}")
    if nat.translates:
        updates.append(f"inside {{ {port}%s : {inside} }}")
    if nat.mapping is Dependence.ENDPOINT_INDEPENDENT:
        updates.append(f"outside {{ {inside}%s : {port} }}")
    if nat.mapping is Dependence.ADDRESS_DEPENDENT:
        updates.append(f"outside {{ {inside} . {remote}%s : {port} }}")
    notes = [f"update @{update % ''}" for update in updates]
    if nat.reply_lifetime_s is not None:
        longer = f" timeout {_milliseconds(nat.reply_lifetime_s)}"
        notes += [f"ct status seen-reply update @{update % longer}" for update in updates]
    return notes
