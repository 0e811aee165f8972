"""Routers and hosts: a namespace each, with one link to the network that it is in."""

from __future__ import annotations

import dataclasses
import math
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar, final

from interpeer.testing._link import Link
from interpeer.testing._natkind import NatBehaviour, NatKind
from interpeer.testing.natlab._network import FORWARDS, MAX_SITES, Internet, Lan, Network, Shared
from interpeer.testing.natlab._rules import IN, OUT, Ipv6, ruleset
from interpeer.testing.natlab._upnp import Miniupnpd, PortMapping

_P = ParamSpec("_P")
_T = TypeVar("_T")

MAX_RENUMBERED: Final = 250
_TABLES: Final = ("ip natlab4", "ip6 natlab6", "inet natlab")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a machine is connected."""

    nat: NatBehaviour
    ipv4: bool = True
    ipv6: Ipv6 = Ipv6.OFF
    link: Link | None = None
    link_down: Link | None = None
    mtu_bytes: int | None = None


class Machine:
    """What routers and hosts have in common: an interface "out", a link, addresses, and rules for what passes."""

    def __init__(self, shared: Shared, name: str, outside: Network, options: Options, **parameters: int) -> None:
        if options.ipv6 is not Ipv6.OFF and not outside.has_ipv6:
            raise ValueError(f"{name} cannot have IPv6 behind {outside.name}, which has none")
        self._shared = shared
        self._options = options
        self._wire: int | None = None
        self._has_rules = False
        self.name = name
        self.outside = outside
        """The network that it is in."""
        self.site = next(shared.sites)
        if self.site > MAX_SITES:
            raise ValueError(f"a laboratory has at most {MAX_SITES} routers and hosts")
        self.renumbered = 0
        self.port = ""
        self.address: str | None = None
        """Its IPv4 address in the network that it is in; None without IPv4."""
        self.address6: str | None = None
        """Its IPv6 address there, apart from the link-local one."""
        off = int(options.ipv6 is Ipv6.OFF)
        ipv6 = {"ipv6__conf__all__disable_ipv6": off, "ipv6__conf__default__disable_ipv6": off}
        self.space = shared.space(name, **parameters, **ipv6)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.address or self.address6}>"

    @property
    def has_ipv4(self) -> bool:
        """Whether it has IPv4."""
        return self._options.ipv4

    @property
    def ipv6(self) -> Ipv6:
        """How it stands to IPv6."""
        return self._options.ipv6

    @property
    def nat(self) -> NatBehaviour:
        """What it does to packets between the network outside and itself, or what is behind it."""
        return self._options.nat

    @property
    def mtu(self) -> str:
        """The MTU of its link, in the words of `ip link set`."""
        return f" mtu {self._options.mtu_bytes}" if self._options.mtu_bytes else ""

    # --- its link ---

    def _plug(self) -> None:
        """Make the link, and take the addresses that the network gives."""
        self.port = f"p{next(self._shared.ports)}"
        link = self._options.link
        if link is not None:
            near, far = (self.space, OUT), (self.outside.space, self.port)
            self._wire = self._shared.wires.add(near, far, link, self._options.link_down or link)
        else:
            self.space.ip(f"link add {OUT} type veth peer name {self.port} netns {self.outside.space.name}")
        self._configure()

    def _unplug(self) -> None:
        """Remove the link."""
        self.outside._forget(self)
        if self._wire is None:
            self.space.ip(f"link delete {OUT}")
        else:
            self._shared.wires.remove(self._wire)
            self._wire = None

    def _configure(self) -> None:
        """Take addresses, routes and rules anew."""
        lease = self.outside._admit(self)
        lines = [f"link set {OUT} up{self.mtu}", f"address flush dev {OUT} scope global"]
        if lease.address is not None:
            lines.append(f"address add {lease.address}/{lease.length} dev {OUT}")
        if lease.gateway is not None:
            lines.append(f"route replace default via {lease.gateway} dev {OUT} onlink")
        if lease.address6 is not None:
            lines.append(f"address add {lease.address6}/{lease.length6} dev {OUT} nodad")
            lines.append(f"route replace default via {lease.gateway6} dev {OUT} onlink")
        self.space.ip(*lines)
        if isinstance(self.outside, Lan):
            self.outside._await_forwarding(self)
        self.address, self.address6 = lease.address, lease.address6
        self._load_rules()

    def _move(self, outside: Network) -> None:
        """Leave the network for another."""
        self._unplug()
        self.outside = outside
        self._plug()

    def down(self) -> None:
        """Take its interface down, as when a cable is pulled: the system notices. (With Link(is_up=False) nobody does.)"""
        self.space.ip(f"link set {OUT} down")

    def up(self) -> None:
        """Take its interface up again, with the same addresses."""
        self._configure()

    def _change_link(self, link: Link | None, link_down: Link | None = None) -> None:
        """Change what its link does to packets; see `Host.set_link`."""
        self._options = dataclasses.replace(self._options, link=link, link_down=link_down)
        if link is not None and self._wire is not None:
            self._shared.wires.set(self._wire, link, link_down or link)
        else:  # it is another kind of interface
            self._unplug()
            self._plug()

    def link_stats(self) -> Mapping[str, Mapping[str, int]]:
        """Return what its link has counted, "up" and "down": packets, lost, queue_full and so on.

        Raises ValueError for an ideal link, which does not count."""
        if self._wire is None:
            raise ValueError(f"{self.name} has no link that counts: give it one, be it Link()")
        return self._shared.wires.stats(self._wire)

    # --- its rules ---

    def _change_nat(self, nat: NatBehaviour) -> None:
        """Behave otherwise, and forget what was before."""
        self._options = dataclasses.replace(self._options, nat=nat)
        self.flush()

    def flush(self) -> None:
        """Forget all mappings and flows, as after a reboot."""
        self._load_rules()
        self.space.tell("conntrack", "--flush")

    def renumber(self) -> None:
        """Take another address outside, on the public network one of another prefix, and forget all mappings and flows."""
        if self.renumbered == MAX_RENUMBERED:
            raise ValueError(f"{self.name} has been renumbered {MAX_RENUMBERED} times: there are no more addresses")
        self.renumbered += 1
        self._configure()
        self.flush()

    def _load_rules(self) -> None:
        """Replace all rules, and with them what they have noted."""
        nat = self.nat
        self.space.sysctl(
            netfilter__nf_conntrack_udp_timeout=math.ceil(nat.lifetime_s),
            netfilter__nf_conntrack_udp_timeout_stream=math.ceil(nat.reply_lifetime_s or nat.lifetime_s),
        )
        rules = ruleset(nat, self.address, self._filter6(), self._shared.chance)
        if rules or self._has_rules:
            clean = "".join(f"table {table}\ndelete table {table}\n" for table in _TABLES)
            self.space.tell("nft", "-f", "-", text=clean + rules)
            self._has_rules = bool(rules)

    def _filter6(self) -> Ipv6:
        return self.ipv6


@final
class Router(Machine):
    """A router with a network behind it, and a NAT between the two. Made by `Lab.router`, and by `Lab.host` for most kinds."""

    def __init__(
        self, shared: Shared, name: str, outside: Network, options: Options, inside: str, offers: PortMapping | None
    ) -> None:
        super().__init__(shared, name, outside, options, **FORWARDS)
        self.lan = Lan(name, self.space, inside, self)
        """The network behind it."""
        self._offers = offers
        self._upnp: Miniupnpd | None = None
        self._plug()
        self._restart_upnp()

    @property
    def prefix6(self) -> str | None:
        """The IPv6 prefix of the network behind it, without its length of 64."""
        return None if self.ipv6 is Ipv6.OFF else f"2a00:{self.site:x}:{self.renumbered:x}:1::"

    def _configure(self) -> None:
        super()._configure()
        if self.prefix6 is not None:
            self.space.ip(f"address flush dev {IN} to 2a00::/16", f"address add {self.prefix6}1/64 dev {IN} nodad")
            self.outside._route6(f"{self.prefix6}/64", self)
            for member in self.lan.members:
                member._configure()

    def set_nat(self, nat: NatKind | NatBehaviour) -> None:
        """Behave otherwise from now on; what was before is forgotten. See `Host.set_nat`."""
        self._change_nat(behaviour_of(nat))

    def set_link(self, link: Link | None, link_down: Link | None = None) -> None:
        """Change what its link to the outside does to packets. See `Host.set_link`."""
        self._change_link(link, link_down)

    def flush(self) -> None:
        super().flush()
        self._restart_upnp()

    def close(self) -> None:
        """End what runs on it."""
        if self._upnp is not None:
            self._upnp.close()
            self._upnp = None

    def _restart_upnp(self) -> None:
        self.close()
        if self._offers is not None:
            self._upnp = Miniupnpd(self.space, self._offers)


@final
class Host(Machine):
    """A host, in which programs run. Made by `Lab.host`."""

    def __init__(self, shared: Shared, name: str, outside: Network, options: Options) -> None:
        super().__init__(shared, name, outside, options)
        self._plug()

    @property
    def router(self) -> Router | None:
        """The router that it is behind now; None on the public network and on a switch without one."""
        return self.outside.router if isinstance(self.outside, Lan) else None

    @property
    def routers(self) -> tuple[Router, ...]:
        """The routers between it and the public network, from the inside: a TTL of one more is used up on that network."""
        found: list[Router] = []
        while isinstance(outside := (found[-1] if found else self).outside, Lan) and outside.router:
            found.append(outside.router)
        return tuple(found)

    @property
    def public_address(self) -> str | None:
        """The IPv4 address that it is seen with on the public network; on a switch its own, which nobody there sees."""
        return (self.routers or (self,))[-1].address

    @property
    def namespace(self) -> str:
        """The name of its network namespace, for `ip netns exec`."""
        return self.space.name

    # --- what runs on it ---

    def run(
        self,
        command: Sequence[str],
        *,
        input: str | None = None,  # noqa: A002 - as in subprocess.run
        timeout_s: float = 60.0,
        check: bool = True,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command and wait for it; return what it wrote, as text.

        options: of `subprocess.run`. Raises CalledProcessError if it fails (unless `check` is false), and TimeoutExpired.

        >>> from interpeer.testing.natlab import Lab
        >>> with Lab("doc") as lab:                                     # doctest: +SKIP
        ...     lab.host("a").run(["ip", "route"]).stdout
        'default via 20.0.0.1 dev out onlink \\n'
        """
        command = self.space.command(command)
        return subprocess.run(command, input=input, timeout=timeout_s, check=check, capture_output=True, text=True, **options)

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command; return the process. What still runs when the laboratory closes is ended then.

        options: of `subprocess.Popen`.
        """
        process = subprocess.Popen(self.space.command(command), **options)
        self._shared.processes.append(process)
        return process

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM) -> socket.socket:
        """Open a socket on this host, for use in this process: one test can have sockets on all hosts."""
        return self.space.call(socket.socket, family, kind)

    def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a function in a thread that is on this host; return what it returns, raise what it raises."""
        return self.space.call(function, *args, **kwargs)

    # --- what happens to it ---

    def roam(self, to: Router | Host | Network) -> None:
        """Move to the network behind a router, to where another host is, to a switch, or to the public network (`Lab.internet`).

        Sockets stay open, as when a laptop changes from one Wi-Fi to another; addresses change. `router` is the new one then.
        """
        self._move(to.outside if isinstance(to, Host) else to.lan if isinstance(to, Router) else to)

    def set_nat(self, nat: NatKind | NatBehaviour) -> None:
        """Let what is between this host and the outside behave otherwise from now on; what was before is forgotten.

        This is its router, if it is behind one. A kind with a carrier (DOUBLE, CGN) changes the home router alone.
        Raises ValueError for a kind that needs a router where there is none.
        """
        edge, nat = self._edge(), behaviour_of(nat)
        if nat.translates and edge is self:
            raise ValueError(f"{self.name} is not behind a router, which {nat.mapping} mapping needs")
        edge._change_nat(nat)

    def set_link(self, link: Link | None, link_down: Link | None = None) -> None:
        """Change what the link to the outside does to packets, that of its router if it is behind one.

        link_down: the direction towards the host, None for the same. From a link to None (an ideal one) or back the interface is
        replaced, and is gone for a moment; from one Link to another it is not.
        """
        self._edge()._change_link(link, link_down)

    def flush(self) -> None:
        """Forget all mappings and flows between this host and the outside, as when the router reboots."""
        self._edge().flush() if self.router else super().flush()

    def renumber(self) -> None:
        """Let the host, or the router that it is behind, have another address outside; all mappings are forgotten."""
        self._edge().renumber() if self.router else super().renumber()

    def _edge(self) -> Machine:
        return self.router or self

    def _filter6(self) -> Ipv6:
        return self.ipv6 if isinstance(self.outside, Internet) else Ipv6.OPEN  # or else the router filters


def behaviour_of(nat: NatKind | NatBehaviour) -> NatBehaviour:
    """Return the behaviour, be it given or named."""
    return nat.behaviour if isinstance(nat, NatKind) else nat
