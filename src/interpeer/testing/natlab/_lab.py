"""The laboratory: makes hosts behind NATs, and removes all of it at the end."""

from __future__ import annotations

import dataclasses
import os
import random
import re
import secrets
import subprocess
from pathlib import Path
from typing import Any, Final, Self, final

from interpeer.testing._link import Link
from interpeer.testing._natkind import Dependence, NatBehaviour, NatKind
from interpeer.testing.natlab._machine import Host, Options, Router, behaviour_of
from interpeer.testing.natlab._namespace import LabError, names, remove, require
from interpeer.testing.natlab._network import Internet, Lan, Network, Shared
from interpeer.testing.natlab._rules import Ipv6
from interpeer.testing.natlab._upnp import PortMapping, remove_leftovers
from interpeer.testing.natlab._wire import Wires

HOME: Final = "192.168.1.0/24"  # of every home: that two have the same is what happens outside, too
_BEHIND: Final = "192.168.0.0/24"  # between two routers of one home
_CARRIER: Final = "100.64.0.0/24"  # of the addresses that RFC 6598 sets aside for carriers
_NAME: Final = re.compile(r"[a-z][a-z0-9]{0,11}")
_RUN: Final = Path("/run")
_GRACE_S: Final = 2.0


@final
class Lab:
    """Hosts behind NATs of named kinds, around a public network, in network namespaces of this machine.

    name: tells laboratories apart that run at the same time. What a crash has left of one of this name is removed first.
    seed: of the ports that NATs draw and of losses on links; None: another one each time.

    Needs Linux, root, iproute2, nftables and conntrack. Raises LabError if one is missing, or one of this name runs already.

    >>> from interpeer.testing import NatKind
    >>> with Lab("doc") as lab:                                         # doctest: +SKIP
    ...     server = lab.host("server")
    ...     laptop = lab.host("laptop", NatKind.PORT)
    ...     laptop.run(["ping", "-c1", server.address]).returncode
    0
    """

    def __init__(self, name: str, *, seed: int | None = None) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"a laboratory's name is of small letters and digits, begins with a letter and is short: not {name!r}"
            )
        require()
        self.name = name
        self.seed = secrets.randbits(32) if seed is None else seed
        self.hosts: dict[str, Host] = {}
        """Its hosts by their names."""
        self.routers: dict[str, Router] = {}
        """Its routers by their names; a home's is called like the first host in it, with "-gw"."""
        self._carriers: dict[NatKind | None, Router] = {}
        self._lock = _lock(name)
        self._shared = Shared(f"nat-{name}-", random.Random(self.seed), Wires(self.seed))
        try:
            remove(names(self._shared.prefix))
            remove_leftovers(self._shared.prefix)
            self.internet = Internet(self._shared)
            """The public network."""
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what runs in the laboratory, and remove all of it."""
        try:
            _end(self._shared.processes)
            for router in self.routers.values():
                router.close()
            remove(names(self._shared.prefix))
            self._shared.wires.close()
        finally:
            os.close(self._lock)

    def host(
        self,
        name: str,
        nat: NatKind | NatBehaviour = NatKind.PUBLIC,
        *,
        behind: Router | Lan | None = None,
        link: Link | None = None,
        link_down: Link | None = None,
        ipv4: bool = True,
        ipv6: Ipv6 | None = None,
        mtu_bytes: int | None = None,
        port_mapping: PortMapping | None = None,
    ) -> Host:
        """Make a host behind a NAT of a kind or behaviour: with a router and a home network of its own, if it translates.

        behind: the router or switch that it, or its own router, is connected to; None: the public network. With NatKind.PUBLIC
        it is one more host of that network. Of the kinds CGN and CGN_HAIRPIN all hosts share one carrier each.
        link: what the link to the outside does to packets, each way; None: an ideal one. link_down: the way to the host.
        ipv4: False for a host with IPv6 alone. ipv6: by default a public host has it, behind FIREWALL filtered, and a home none.
        mtu_bytes: of the link, and told by routers (the `mtu_bytes` of a Link drops what is larger and says nothing).
        port_mapping: what the router's miniupnpd offers.

        Raises ValueError for what does not fit together, LabError if the system refuses.

        >>> with Lab("doc") as lab:                                     # doctest: +SKIP
        ...     a = lab.host("a", NatKind.SYMMETRIC, link=Link(delay_s=0.015), ipv6=Ipv6.FIREWALL)
        ...     a.address, a.router.address
        ('192.168.1.10', '20.1.0.2')
        """
        behaviour = behaviour_of(nat)
        edge = Options(nat=behaviour, ipv4=True, ipv6=Ipv6.OFF, link=link, link_down=link_down, mtu_bytes=mtu_bytes)
        plain = behaviour_of(NatKind.PUBLIC)
        if not behaviour.translates:
            if port_mapping:
                raise ValueError("port mapping is what a router offers: this kind has none")
            outside = _network(behind) or self.internet
            edge = dataclasses.replace(edge, ipv4=ipv4, ipv6=_ipv6_of_host(ipv6, behaviour, outside))
            return self._add(Host(self._shared, name, outside, edge))
        edge = dataclasses.replace(edge, ipv6=ipv6 or Ipv6.OFF)
        if behaviour.carrier is not None:
            behind = self._carrier(name, nat, behaviour, behind)
            edge = dataclasses.replace(edge, nat=behaviour.replace(carrier=None, hairpin=False))
        router = self._route(f"{name}-gw", _network(behind) or self.internet, edge, HOME, port_mapping)
        inner = Options(nat=plain, ipv4=ipv4, ipv6=Ipv6.OFF if edge.ipv6 is Ipv6.OFF else Ipv6.OPEN)
        return self._add(Host(self._shared, name, router.lan, inner))

    def router(
        self,
        name: str,
        nat: NatKind | NatBehaviour = NatKind.PORT,
        *,
        behind: Router | None = None,
        inside: str = _CARRIER,
        link: Link | None = None,
        link_down: Link | None = None,
        ipv6: Ipv6 = Ipv6.OFF,
        mtu_bytes: int | None = None,
        port_mapping: PortMapping | None = None,
    ) -> Router:
        """Make a router by itself, for hosts and other routers to be put behind it: a carrier's NAT, say.

        inside: the IPv4 addresses of the network behind it. All else is as with `host`.

        >>> with Lab("doc") as lab:                                     # doctest: +SKIP
        ...     carrier = lab.router("carrier", NatKind.SYMMETRIC_BLOCK)
        ...     home, phone = lab.host("home", NatKind.PORT, behind=carrier), lab.host("phone", behind=carrier)
        ...     home.router.address, phone.address
        ('100.64.0.10', '100.64.0.11')
        """
        behaviour = behaviour_of(nat)
        if not behaviour.translates or behaviour.carrier:
            raise ValueError(f"a router has a NAT, and one alone: not {nat}")
        options = Options(nat=behaviour, ipv6=ipv6, link=link, link_down=link_down, mtu_bytes=mtu_bytes)
        return self._route(name, _network(behind) or self.internet, options, inside, port_mapping)

    def switch(self, name: str, inside: str = HOME) -> Lan:
        """Make a network with no way out, for hosts to be put on it: they have addresses and no default route.

        >>> with Lab("doc") as lab:                                     # doctest: +SKIP
        ...     office = lab.switch("office")
        ...     lab.host("a", behind=office).address, lab.host("b", behind=office).address
        ('192.168.1.10', '192.168.1.11')
        """
        return Lan(name, self._shared.space(name), inside)

    def _add(self, host: Host) -> Host:
        self.hosts[host.name] = host
        return host

    def _route(self, name: str, outside: Network, options: Options, inside: str, offers: PortMapping | None) -> Router:
        router = self.routers[name] = Router(self._shared, name, outside, options, inside, offers)
        return router

    def _carrier(self, name: str, nat: NatKind | NatBehaviour, behaviour: NatBehaviour, behind: Router | Lan | None) -> Router:
        """Return the outer one of two routers: that of all hosts of a carrier's kind, or else one for this host alone."""
        assert behaviour.carrier is not None
        shared = nat if isinstance(nat, NatKind) and nat is not NatKind.DOUBLE and behind is None else None
        if shared in self._carriers:
            return self._carriers[shared]
        outer = behaviour.carrier.behaviour.replace(hairpin=behaviour.hairpin)
        options = Options(nat=outer, ipv6=Ipv6.OPEN)
        if shared is None:
            return self._route(f"{name}-gw2", _network(behind) or self.internet, options, _BEHIND, None)
        router = self._carriers[shared] = self._route(shared.value, self.internet, options, _CARRIER, None)
        return router


def _network(behind: Router | Lan | None) -> Network | None:
    return behind.lan if isinstance(behind, Router) else behind


def _ipv6_of_host(wanted: Ipv6 | None, nat: NatBehaviour, outside: Network) -> Ipv6:
    if wanted is not None:
        return wanted
    if not outside.has_ipv6:
        return Ipv6.OFF
    return Ipv6.OPEN if isinstance(outside, Lan) or nat.filtering is Dependence.NONE else Ipv6.FIREWALL


def _lock(name: str) -> int:
    """Take the laboratory's name for this process, until it ends at the latest."""
    import fcntl  # not everywhere; `require` has said what is missing where it is not

    path = _RUN / f"natlab-{name}.lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise LabError(f"a laboratory called {name!r} runs already: give this one another name, or end that one") from None
    return lock


def _end(processes: list[subprocess.Popen[Any]]) -> None:
    """End what was started by `popen` and still runs."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    processes.clear()
