"""The ports of a node, mapped by whatever the gateways speak: the glue between machines, protocols and the event loop.

For each of IPv4 and IPv6 there is one `_Family`: it looks for the gateway, asks who answers to which protocol (all at once, the
best that does within a moment wins), and runs one machine. When the gateway or the own address changes, it starts anew.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, final

from interpeer import _host
from interpeer._address import Endpoint
from interpeer._portmap import gateway as gateways
from interpeer._portmap.announcements import Announcements
from interpeer._portmap.answers import Answer, Wish, is_public
from interpeer._portmap.datagrams import Absent, Datagrams
from interpeer._portmap.dialects import NatPmp, Pcp
from interpeer._portmap.epoch import Epoch
from interpeer._portmap.gateway import Gateway
from interpeer._portmap.igd import Igd, plain
from interpeer._portmap.machine import FIRST_PAUSE_S, MAX_PAUSE_S, REBOOT_GAP_S, Grant, Machine, State

logger = logging.getLogger("interpeer")

HEAD_START_S = 0.25
"""Whoever answers first waits so long for a better protocol."""
LAST_FAILURES = 3
"""When the last protocol has granted nothing so often, all are asked again who is there."""
LEAST_PAUSE_S = 1.0
"""Between two rounds of questions, even for a gateway that announces itself without end."""
LOOK_S = 15.0
"""Between looks at the routing table, for hosts that nobody tells of changes."""
VERIFY_S = 20.0
"""After so long, nobody could be asked."""

METHODS = {4: ("pcp", "nat-pmp", "upnp"), 6: ("pcp",)}
"""Protocols, the best first."""

Verify = Callable[[Endpoint], Awaitable[bool | None]]


@final
@dataclass(frozen=True, slots=True)
class Mapping:
    """One port that a gateway has opened, as it stands."""

    protocol: str
    """"pcp", "nat-pmp" or "upnp"."""
    external: Endpoint
    internal_port: int
    lifetime_s: int
    gateway: str
    state: str
    """"mapped" or "renewing"."""
    is_verified: bool | None
    """Whether somebody outside came through; None: nobody could be asked yet."""
    is_public: bool
    """Whether the external address can be reached from outside: no second NAT is in front of the gateway, as far as is known."""
    note: str


class Method(Protocol):
    """A protocol at one gateway."""

    ignored: int
    on_answer: Callable[[Answer], None] | None

    @property
    def name(self) -> str: ...
    @property
    def epoch(self) -> Epoch | None: ...
    @property
    def retries_s(self) -> tuple[float, ...]: ...

    async def probe(self) -> None: ...
    def send(self, wish: Wish) -> None: ...
    def handle_announcement(self, data: bytes) -> None: ...
    def leave(self) -> None: ...
    def close(self) -> None: ...


@final
class PortMapper:
    """Keep a UDP port of this host open at its gateways, from `start` to `close`.

    - `on_change`: called when `mappings` has changed.
    - `verify`: asks somebody outside to come in by an endpoint: True it worked, False it did not, None nobody could be asked.
    - `versions`, `methods`: what to try, of IPv4 and IPv6, and of the three protocols.
    - `find_gateway`: says who the gateway is; by default the routing table and INTERPEER_GATEWAY do.
    """

    def __init__(
        self,
        port: int,
        *,
        on_change: Callable[[], None] | None = None,
        verify: Verify | None = None,
        versions: Iterable[int] = (4, 6),
        methods: Iterable[str] = ("pcp", "nat-pmp", "upnp"),
        find_gateway: Callable[[int], Gateway | None] = gateways.find,
        random_bytes: Callable[[int], bytes] = _host.random_bytes,
    ) -> None:
        self.port = port
        self.reflexive: frozenset[str] = frozenset()
        self.verify = verify
        self.find_gateway = find_gateway
        self.random_bytes = random_bytes
        self._on_change = on_change
        self._told: tuple[Mapping, ...] = ()
        self._families = [_Family(self, version, [name for name in METHODS[version] if name in methods]) for version in versions]

    async def start(self) -> None:
        """Begin; what is found shows in `mappings` as it comes."""
        for family in self._families:
            family.start()

    async def close(self) -> None:
        """Give all mappings back; that is over after a second (RELEASE_RETRIES_S), whoever answers."""
        await asyncio.gather(*(family.close() for family in self._families))

    @property
    def mappings(self) -> tuple[Mapping, ...]:
        """What is open now."""
        return tuple(mapping for family in self._families if (mapping := family.mapping()) is not None)

    def set_reflexive(self, hosts: Iterable[str]) -> None:
        """Take this host's addresses as others see them: a gateway whose external address is another is not the last NAT."""
        self.reflexive = frozenset(str(ipaddress.ip_address(host)) for host in hosts)
        self.tell()

    def handle_network_change(self) -> None:
        """Look at once whether the gateway is another."""
        for family in self._families:
            family.look()

    def handle_doubt(self) -> None:
        """Have all mappings checked from outside: somebody did not come through."""
        for family in self._families:
            family.doubt()

    def report(self) -> dict[str, Any]:
        """Say what was found, for people. `is_verified` tells of each of `mappings` whether somebody outside came through."""
        mappings = self.mappings
        hosts = [mapping.external.host for mapping in mappings]
        reasons = [reason for family in self._families for reason in family.reasons()]
        doubled = [family.double_nat() for family in self._families if family.version == 4]
        return {
            "protocols": sorted({name for family in self._families for name in family.found}),
            "gateways": [family.gateway.host for family in self._families if family.gateway],
            "external": hosts[0] if hosts else None,
            "double_nat": doubled[0] if doubled else None,
            "mappings": [f"{mapping.protocol} {mapping.external} -> {mapping.internal_port}" for mapping in mappings],
            "is_verified": [mapping.is_verified for mapping in mappings],
            "ignored": sum(family.ignored for family in self._families),
            "reasons": reasons,
        }

    def tell(self) -> None:
        """Call `on_change`, if there is anything to tell."""
        mappings = self.mappings
        if mappings != self._told:
            self._told = mappings
            if self._on_change is not None:
                self._on_change()


@final
class _Family:
    """The mapping of one IP version."""

    def __init__(self, mapper: PortMapper, version: int, names: list[str]) -> None:
        self.version = version
        self.gateway: Gateway | None = None
        self.found: set[str] = set()
        self.ignored = 0
        self._mapper = mapper
        self._names = names
        self._absent: dict[str, str] = {}
        self._failures: dict[str, int] = {}
        """Of each protocol that was given up: how often it had failed."""
        self._rests_s: dict[str, float] = {}
        """... and until when it is not asked for a mapping (PM-13)."""
        self._note = ""
        self._task: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()
        self._methods: list[Method] = []
        self._left: list[Method] = []
        """Of the gateway before, which one of them may still be telling that the mapping is not wanted any more."""
        self._machine: Machine | None = None
        self._method: Method | None = None
        self._moved = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._verification: asyncio.Task[None] | None = None

    # --- from outside ---

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._serve())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        machine = self._machine
        if machine is not None:
            now_s = self._now_s()
            machine.close(now_s)
            self._turn(now_s)
            while machine.state is not State.CLOSED:
                self._moved.clear()
                await self._moved.wait()
        self._drop()

    def look(self) -> None:
        self._looked.set()

    def doubt(self) -> None:
        if self._machine is not None:
            now_s = self._now_s()
            self._machine.handle_doubt(now_s)
            self._turn(now_s)

    def mapping(self) -> Mapping | None:
        machine, method, gateway = self._machine, self._method, self.gateway
        if machine is None or method is None or gateway is None or machine.grant is None:
            return None
        grant = machine.grant
        return Mapping(
            protocol=method.name,
            external=Endpoint(grant.host, grant.port),
            internal_port=self._mapper.port,
            lifetime_s=grant.lifetime_s,
            gateway=gateway.host,
            state=machine.state.name.lower(),
            is_verified=machine.is_verified,
            is_public=machine.is_verified is True or not self._is_nested(grant.host),
            note="; ".join(filter(None, (machine.reason, self._nesting(grant.host)))),
        )

    def double_nat(self) -> bool | None:
        """Tell whether another NAT is in front of the gateway; None: that is not known."""
        machine = self._machine
        if machine is None or machine.grant is None:
            return None
        if machine.is_verified:
            return False
        return self._is_nested(machine.grant.host) or (False if self._seen() else None)

    def reasons(self) -> list[str]:
        """Say why there is nothing better."""
        where = f"IPv{self.version}"
        if self.gateway is None:
            return [f"{where}: no gateway: there is no default route"] if self._note else []
        said = [f"{where}: {name} at {self.gateway.host}: {why}" for name, why in self._absent.items()]
        if self._machine is not None and self._method is not None:
            mapping = self.mapping()
            note = mapping.note if mapping else self._machine.reason
            said += [f"{where}: {self._method.name} at {self.gateway.host}: {note}"] if note else []
        return said + ([f"{where}: {self._note}"] if self._note else [])

    # --- double NAT ---

    def _seen(self) -> set[str]:
        """Return how others see us, in this IP version."""
        return {host for host in self._mapper.reflexive if ipaddress.ip_address(host).version == self.version}

    def _is_nested(self, host: str) -> bool:
        seen = self._seen()
        return not is_public(host) or bool(seen and host not in seen)

    def _nesting(self, host: str) -> str:
        seen = self._seen()
        if not is_public(host):
            return f"double NAT: the gateway's external address {host} is not public"
        if seen and host not in seen:
            return f"double NAT: the gateway says {host}, others see {', '.join(sorted(seen))}"
        return ""

    # --- the task ---

    async def _serve(self) -> None:
        """Serve one gateway after the other, until cancelled."""
        while True:
            gateway = await self._find_gateway()
            if gateway is None:
                self._note = "no gateway"
                await self._wait_for_look(LOOK_S)
                continue
            self.gateway, self._note = gateway, ""
            serving = asyncio.get_running_loop().create_task(self._serve_gateway(gateway))
            try:
                while gateway == await self._find_gateway():
                    await self._wait_for_look(LOOK_S)
                    if serving.done():  # it has failed: begin anew, after that pause
                        logger.warning("port mapping at %s failed: %r", gateway.host, serving.exception())
                        break
            finally:
                serving.cancel()
                await asyncio.wait([serving])
            self._leave()

    async def _find_gateway(self) -> Gateway | None:
        """Ask who the gateway is. A system that fails to tell has none, for now."""
        try:
            return await asyncio.to_thread(self._mapper.find_gateway, self.version)
        except Exception as error:
            logger.warning("who the gateway of IPv%d is cannot be told: %r", self.version, error)
            return None

    async def _wait_for_look(self, timeout_s: float) -> None:
        self._looked.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._looked.wait()

    async def _serve_gateway(self, gateway: Gateway) -> None:
        announced = asyncio.Event()

        def on_announcement(data: bytes) -> None:
            announced.set()
            for method in self._methods:
                method.handle_announcement(data)

        announcements = Announcements(gateway, on_announcement)
        self._note = await announcements.open() if _host.current.get() is None else ""
        pause_s, present = FIRST_PAUSE_S, list[Method]()
        try:
            while True:
                present = await self._contest(gateway, is_patient=bool(present))
                ready = [method for method in present if self._rests_s.get(method.name, 0.0) <= self._now_s()]
                for i, method in enumerate(ready):
                    await self._run(method, is_last=i + 1 == len(ready))
                self._stop()
                await asyncio.sleep(REBOOT_GAP_S if present else LEAST_PAUSE_S)
                announced.clear()
                if present:
                    pause_s = FIRST_PAUSE_S
                    wait_s = min(self._rests_s[method.name] for method in present) - self._now_s()
                else:
                    wait_s, pause_s = pause_s, min(pause_s * 2, MAX_PAUSE_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await announced.wait()
                        self._rests_s.clear()
        finally:
            self.ignored += announcements.ignored
            announcements.close()

    async def _contest(self, gateway: Gateway, *, is_patient: bool) -> list[Method]:
        """Ask who is there, all at once. Return those that are, the best first: a moment after the first has answered, or, if it
        is patient, when all have had their time."""
        self._close_methods()
        made = [self._make(name, gateway) for name in self._names]
        self._methods = made
        loop = asyncio.get_running_loop()
        probes = {loop.create_task(method.probe()): method for method in made}
        present: list[Method] = []
        end_s = math.inf
        waiting = set(probes)
        try:
            while waiting:
                timeout = None if end_s == math.inf else max(0.0, end_s - loop.time())
                done, waiting = await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                for probe in done:
                    self._note_probe(probes[probe], probe, present)
                present.sort(key=made.index)
                if present and end_s == math.inf and not is_patient:
                    end_s = loop.time() + HEAD_START_S
        finally:
            for probe in waiting:
                probe.cancel()
            if waiting:
                await asyncio.wait(waiting)
        for method in made:
            if method not in present:
                method.close()
        return present

    def _note_probe(self, method: Method, probe: asyncio.Task[None], present: list[Method]) -> None:
        self.ignored += method.ignored
        try:
            probe.result()
        except Absent as error:
            self._absent[method.name] = str(error)
        except Exception as error:  # the own address may go at any moment, and what libraries make of that is not known
            self._absent[method.name] = plain(str(error) or type(error).__name__)
        else:
            self.found.add(method.name)
            if method.name not in self._rests_s:
                self._absent.pop(method.name, None)
            present.append(method)

    def _make(self, name: str, gateway: Gateway) -> Method:
        if name == "pcp":
            return Datagrams(Pcp(gateway.own_host), gateway)
        if name == "nat-pmp":
            return Datagrams(NatPmp(), gateway)
        return Igd(gateway, self._mapper.random_bytes)

    async def _run(self, method: Method, *, is_last: bool) -> None:
        """Run a machine on a protocol, for as long as it is of use: the last one waits and tries again by itself, a few times."""
        self._absent.pop(method.name, None)
        now_s = self._now_s()
        machine = Machine(
            self._mapper.port,
            now_s,
            random_bytes=self._mapper.random_bytes,
            epoch=method.epoch,
            retries_s=method.retries_s,
            failures=self._failures.get(method.name, 0),
        )
        self._machine, self._method = machine, method
        method.on_answer = self._handle_answer
        self._turn(now_s)
        while machine.state is not State.WAITING or (is_last and machine.failures < LAST_FAILURES):
            self._moved.clear()
            await self._moved.wait()
        self._absent[method.name] = machine.reason
        self._failures[method.name] = machine.failures
        self._rests_s[method.name] = machine.poll_timeout()
        method.close()

    # --- the machine ---

    def _handle_answer(self, answer: Answer) -> None:
        if self._machine is not None:
            now_s = self._now_s()
            self._machine.handle_answer(answer, now_s)
            self._turn(now_s)

    def _handle_timer(self, when_s: float) -> None:
        """Do what is due. Loops call a little too early, by what their clocks can tell: it is at least that time."""
        self._timer = None
        if self._machine is not None:
            now_s = max(self._now_s(), when_s)
            self._machine.handle_timeout(now_s)
            self._turn(now_s)

    def _turn(self, now_s: float) -> None:
        """Do what the machine wants done, and set the timer."""
        machine, method = self._machine, self._method
        if machine is None or method is None:
            return
        while (wish := machine.poll_request(now_s)) is not None:
            method.send(wish)
        grant = machine.poll_verification(now_s)
        if grant is not None and self._mapper.verify is not None:
            self._verify(machine, grant)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        when_s = machine.poll_timeout()
        if when_s < math.inf:
            self._timer = asyncio.get_running_loop().call_at(when_s, self._handle_timer, when_s)
        self._moved.set()
        self._mapper.tell()

    def _verify(self, machine: Machine, grant: Grant) -> None:
        if self._verification is not None:
            self._verification.cancel()
        self._verification = asyncio.get_running_loop().create_task(self._ask_outside(machine, grant))

    async def _ask_outside(self, machine: Machine, grant: Grant) -> None:
        verify = self._mapper.verify
        assert verify is not None
        verdict = None
        try:
            async with asyncio.timeout(VERIFY_S):
                verdict = await verify(Endpoint(grant.host, grant.port))
        except TimeoutError:
            pass
        except Exception as error:  # whatever it is, nobody has been asked, and somebody will be later
            logger.warning("nobody could be asked to try %s port %d: %r", grant.host, grant.port, error)
        now_s = self._now_s()
        machine.handle_verdict(grant, verdict, now_s)
        if machine is self._machine:
            self._turn(now_s)

    def _leave(self) -> None:
        """Let go of a gateway that is not ours any more: it is told, and its answer is not waited for."""
        if self._machine is not None:
            now_s = self._now_s()
            self._machine.close(now_s)
            self._turn(now_s)
        self._stop()
        for method in self._left:
            method.close()
        self._left, self._methods = self._methods, []
        for method in self._left:
            method.leave()
        self.gateway = None
        self.found.clear()
        self._absent.clear()
        self._failures.clear()
        self._rests_s.clear()
        self._mapper.tell()

    def _drop(self) -> None:
        self._stop()
        self._methods += self._left
        self._left = []
        self._close_methods()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._verification is not None:
            self._verification.cancel()
            self._verification = None
        self._machine = self._method = None

    def _close_methods(self) -> None:
        for method in self._methods:
            method.close()
        self._methods = []

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
