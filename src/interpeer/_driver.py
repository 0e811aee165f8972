"""Who drives the engine: the event loop, a thread beside it, or a loop that cannot watch sockets.

A driver owns the sockets, gives the engine turns, and hands the core's events to the node. `kick` asks for a turn after a
verb; many verbs in one iteration of the loop share a turn.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

from interpeer import _host, errors
from interpeer._address import IPV4_MAPPED, CoreEndpoint, Endpoint, split_host_port
from interpeer._config import Config
from interpeer._core import control, engine, pump, udp
from interpeer._interfaces import host_candidates
from interpeer._sockets import ExtraSocket, ExtraSockets, LoopSocket, OnDatagram, number_of

EventsCallback = Callable[[list[tuple[Any, ...]]], None]
CoreEventsCallback = Callable[[engine.Engine, list[tuple[Any, ...]]], None]
_NO_SOCKETS = "this driver has no extra sockets"
OTHER_WORDS = ("reader", "timer", "ipv6", "netlink", "getifaddrs", "recvttl")
"""What INTERPEER_DISABLE may name besides what sockets can do."""
PORT_TRIES = 16
"""How often another port is tried when the one that the first family got is taken in the second."""


def disabled_words() -> str:
    """Return what the environment switches off: words of `INTERPEER_DISABLE`."""
    return os.environ.get("INTERPEER_DISABLE", "")


class Driver(ABC):
    """Give an engine turns, sockets and a way to tell what happened."""

    endpoints: tuple[Endpoint, ...]
    """Addresses at which the sockets can be reached, as far as this machine knows."""
    bound: tuple[tuple[str, int], ...]
    """Host and port of each socket, wildcards as such."""

    @abstractmethod
    async def open(self, listen: Iterable[str]) -> None:
        """Bind the sockets. Raises OSError or ValueError."""

    def learn_addresses(self) -> None:
        """Tell from now on where the sockets can be reached as things are now: the machine's addresses have changed."""
        self.endpoints = tuple(host_candidates(self.bound))

    @abstractmethod
    def kick(self) -> None:
        """Ask for a turn soon; from any thread."""

    @abstractmethod
    def flush(self) -> None:
        """Send now what can be sent."""

    @abstractmethod
    def close(self) -> None:
        """Close the sockets. Harmless when closed."""

    @abstractmethod
    def can_reach(self, endpoint: Endpoint) -> bool:
        """Tell whether there is a socket of the endpoint's family."""

    @abstractmethod
    def counters(self) -> dict[str, int]:
        """Return what the sockets count."""

    def open_sockets(self, count: int, is_ipv6: bool, on_datagram: OnDatagram) -> list[ExtraSocket]:
        """Open sockets of a family at ports of their own; what comes goes to `on_datagram`, with the socket and the source.

        Raises OSError, ValueError where the node has no socket of that family, LocalError for more than there may be."""
        raise errors.LocalError(_NO_SOCKETS)

    @property
    def can_adopt(self) -> bool:
        """Whether an extra socket may be adopted now."""
        return False

    def release_socket(self, local: bytes) -> None:
        """Close an adopted socket, by its virtual local address. Harmless when closed."""
        raise errors.LocalError(_NO_SOCKETS)


def make_driver(
    cores: Sequence[engine.Engine], config: Config, on_core_events: CoreEventsCallback, loop: asyncio.AbstractEventLoop
) -> Driver:
    """Choose the driver for a configuration, a loop, and as many engines as `shard_count` says.

    On a simulated host it is the host's choice."""
    on_events = functools.partial(on_core_events, cores[0])
    host = _host.current.get()
    if host is not None:
        return host.make_driver(cores[0], config, on_events, loop)
    if not _can_watch_sockets(loop):
        from interpeer._portable import PortableDriver

        return PortableDriver(cores[0], on_events, loop)
    if len(cores) > 1:
        from interpeer._shards import ShardsDriver

        return ShardsDriver(cores, config, on_core_events, loop)
    if config.pump == "thread" or os.environ.get("INTERPEER_PUMP") == "thread":
        return ThreadDriver(cores[0], config, on_events, loop)
    return LoopDriver(cores[0], config, on_events, loop)


def shard_count(config: Config, loop: asyncio.AbstractEventLoop) -> int:
    """Return how many engines a node has: one where no threads drive them, on simulated hosts and portable loops."""
    count = int(os.environ.get("INTERPEER_SHARDS", config.shards))
    if count == 1 or _host.current.get() is not None or not _can_watch_sockets(loop):
        return 1
    return min(count or _usable_processors(), control.MOST_SHARDS)


def _usable_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _can_watch_sockets(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether the loop has add_reader: Windows' Proactor loop raises instead. `reader` in INTERPEER_DISABLE denies it."""
    if "reader" in {word.strip() for word in disabled_words().split(",")}:
        return False
    left, right = socket.socketpair()
    try:
        loop.add_reader(left.fileno(), bool)
        loop.remove_reader(left.fileno())
    except NotImplementedError:
        return False
    finally:
        left.close()
        right.close()
    return True


# --- listening ---


def parse_listen(listen: str) -> list[tuple[str, int]]:
    """Return the addresses to bind for one `listen`: "[::]:0" means both families, and the first port serves both."""
    host, port = split_host_port(listen)
    if not 0 <= port < 65536:
        raise ValueError(f"a port is a number from 0 to 65535, not {port}")
    if host == "::":
        return [("::", port), ("0.0.0.0", port)]
    return [(host, port)]


def to_core(host: str, port: int) -> CoreEndpoint:
    """Return the core's form of an address whose port may be 0. Raises ValueError."""
    packed, _, scope = Endpoint(host, port or 1).to_core()
    return packed, port, scope


def bind_all(listen: Iterable[str], bind: Callable[[CoreEndpoint], int], unbind: Callable[[], None]) -> list[tuple[str, int]]:
    """Bind every address; return (host, port) of each. A machine without IPv6 does without the IPv6 half of "[::]:0"."""
    wanted = [parse_listen(text) for text in listen]
    if not wanted:
        raise ValueError("listen names no address")
    for attempt in range(PORT_TRIES):
        bound: list[tuple[str, int]] = []
        try:
            for group in wanted:
                bound += _bind_group(group, bind)
        except OSError as error:
            unbind()
            is_clash = error.errno == errno.EADDRINUSE and any(port == 0 for group in wanted for _, port in group)
            if is_clash and attempt < PORT_TRIES - 1:
                continue
            places = ", ".join(listen)
            raise OSError(error.errno, f"cannot listen at {places}: {os.strerror(error.errno or 0)}") from None
        return bound
    raise AssertionError("unreachable")


def _bind_group(group: list[tuple[str, int]], bind: Callable[[CoreEndpoint], int]) -> list[tuple[str, int]]:
    bound: list[tuple[str, int]] = []
    port = group[0][1]
    for i, (host, _) in enumerate(group):
        try:
            port = bind(to_core(host, port))
        except OSError as error:
            no_such_family = error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)
            if no_such_family and len(group) > 1 and i == 0:
                continue
            raise
        bound.append((host, port))
    return bound


# --- drivers over the pump ---


def socket_words() -> int:
    """Return what the environment switches off, of what sockets can do. Raises ValueError for a word that names nothing."""
    words = (word.strip() for word in disabled_words().split(","))
    return udp.parse_disabled(",".join(word for word in words if word not in OTHER_WORDS))


class PumpDriver(Driver):
    """What the loop's and the thread's driver share: the pump and its sockets."""

    _families: set[bool]
    """Whether IPv6, of the sockets that there are."""

    def __init__(
        self, core: engine.Engine, config: Config, on_events: EventsCallback, loop: asyncio.AbstractEventLoop, with_timer: bool
    ) -> None:
        self._core = core
        self._on_events = on_events
        self._loop = loop
        self._pump = pump.Pump(core, spin_ns=int(config.spin_s * 1e9), with_timer=with_timer)
        self._thread_id = threading.get_ident()
        self._is_open = False
        self.hosts: list[str] = []  # of the listening sockets
        self._extra = ExtraSockets(loop, is_watched=True)
        self._adopted: dict[int, int] = {}  # descriptors of adopted sockets, by number
        self.endpoints = ()
        self.bound = ()

    async def open(self, listen: Iterable[str]) -> None:
        self.bind(listen)
        self.start()

    def bind(self, listen: Iterable[str]) -> None:
        """Open the sockets. Raises OSError or ValueError."""
        disabled = socket_words()
        without_ipv6 = "ipv6" in disabled_words().split(",")

        def bind(endpoint: CoreEndpoint) -> int:
            if without_ipv6 and not endpoint[0].startswith(IPV4_MAPPED):
                raise OSError(errno.EAFNOSUPPORT, "IPv6 is disabled")
            return self._pump.open(endpoint, disabled)

        self.bound = tuple(bind_all(tuple(listen), bind, self._pump.close_sockets))
        self.learn_addresses()
        self._families = {":" in host for host, _ in self.bound}
        self.hosts = [host for host, _ in self.bound]

    def start(self) -> None:
        """Begin to take turns."""
        # the kernel counts its own overhead, too: what is told to peers is half
        control.set_receive_buffer(self._core, min(s["receive_buffer_bytes"] for s in self._pump.capabilities()) // 2)
        self._is_open = True
        self._core.on_kick = self.kick
        self._start()

    @abstractmethod
    def _start(self) -> None: ...

    def can_reach(self, endpoint: Endpoint) -> bool:
        return (":" in endpoint.host) in self._families

    def counters(self) -> dict[str, int]:
        return self._pump.counters()

    def capabilities(self) -> list[dict[str, Any]]:
        """Return what each socket can do, for doctor."""
        return self._pump.capabilities()

    def _tell(self) -> None:
        self._on_events(control.events(self._core))

    # --- extra sockets ---

    def open_sockets(self, count: int, is_ipv6: bool, on_datagram: OnDatagram) -> list[ExtraSocket]:
        return self._extra.open(count, self.hosts, is_ipv6, on_datagram, self._adopt)

    @property
    def can_adopt(self) -> bool:
        return self._is_open and len(self._adopted) < pump.MOST_ADOPTED

    def _adopt(self, extra: LoopSocket) -> bytes:
        if not self.can_adopt:
            raise errors.LocalError(f"{pump.MOST_ADOPTED} sockets are adopted already, or the node is closed")
        local = self._extra.next_local()
        with extra.detach() as sock:
            self.take_in(sock, number_of(local))
        return local

    def take_in(self, sock: socket.socket, number: int, is_read: bool = True) -> None:
        """Let the pump have a socket, which it closes. Raises OSError, and leaves the socket to the caller."""
        bit = self._pump.adopt(sock.fileno(), number, is_read, socket_words())
        self._adopted[number] = descriptor = sock.detach()
        if is_read:
            self._watch(descriptor, bit)
        self.kick()

    def release_socket(self, local: bytes) -> None:
        self.let_out(number_of(local))

    def let_out(self, number: int) -> None:
        """Let the pump close a socket. Harmless when it has."""
        descriptor = self._adopted.pop(number, None)
        if descriptor is not None:
            self._unwatch(descriptor)
            self._pump.release(number)
            self.kick()

    def _watch(self, descriptor: int, bit: int) -> None:
        """Take a turn when something has come to an adopted socket."""

    def _unwatch(self, descriptor: int) -> None:
        """Take no more."""


@final
class LoopDriver(PumpDriver):
    """Turn on the event loop, whenever a socket or the timer becomes readable, or a verb asks for it."""

    def __init__(self, core: engine.Engine, config: Config, on_events: EventsCallback, loop: asyncio.AbstractEventLoop) -> None:
        with_timer = "timer" not in disabled_words().split(",")
        super().__init__(core, config, on_events, loop, with_timer)
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._full: int | None = None
        self.timer_fallbacks = 0

    def _start(self) -> None:
        for i, descriptor in enumerate(self._pump.descriptors()):
            self._loop.add_reader(descriptor, self._turn, 1 << i)
        if self._pump.timer_descriptor >= 0:
            self._loop.add_reader(self._pump.timer_descriptor, self._turn, pump.TIMER)

    def kick(self) -> None:
        if threading.get_ident() != self._thread_id:
            self._loop.call_soon_threadsafe(self.flush)
        elif self._soon is None and self._is_open:
            self._soon = self._loop.call_soon(self._turn_soon)

    def flush(self) -> None:
        if self._is_open:
            self._turn(0)

    def _turn_soon(self) -> None:
        self._soon = None
        self.flush()

    def _turn(self, readable: int) -> None:
        result = self._pump.turn(readable)
        if result & pump.EVENTS:
            self._tell()
        if result & ~pump.EVENTS and self._is_open:
            self._see_to(result)

    def _see_to(self, result: int) -> None:
        """Do what is rare: come back at once, wait for a full socket, or set the loop's timer for want of a better one."""
        if result & pump.MORE and self._soon is None:
            self._soon = self._loop.call_soon(self._come_back)
        if result & pump.BLOCKED and self._full is None:
            self._full = self._pump.blocked_descriptor
            self._loop.add_writer(self._full, self._writable)
        if result & pump.DEADLINE:
            self._set_timer()

    def _come_back(self) -> None:
        self._soon = None
        if self._is_open:
            self._turn(pump.ALL_SOCKETS)

    def _writable(self) -> None:
        self._forget_full()
        self._turn(0)

    def _forget_full(self) -> None:
        if self._full is not None:
            self._loop.remove_writer(self._full)
            self._full = None

    def _watch(self, descriptor: int, bit: int) -> None:
        self._loop.add_reader(descriptor, self._turn, bit)

    def _unwatch(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        if self._full == descriptor:
            self._forget_full()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline_ns = self._pump.deadline_ns
        if deadline_ns:
            delay_s = max(0.0, (deadline_ns - pump.now_ns()) / 1e9)
            self._timer = self._loop.call_later(delay_s, self._timer_is_due)

    def _timer_is_due(self) -> None:
        self._timer = None
        self.timer_fallbacks += 1
        self.flush()

    def counters(self) -> dict[str, int]:
        return {**super().counters(), "without_timer": self.timer_fallbacks}

    def close(self) -> None:
        self._extra.close()
        if not self._is_open:
            self._pump.close()
            return
        self._is_open = False
        self._core.on_kick = None
        for handle in (self._soon, self._timer):
            if handle is not None:
                handle.cancel()
        if not self._loop.is_closed():
            for descriptor in self._adopted.values():
                self._unwatch(descriptor)
            self._forget_full()
            for descriptor in self._pump.descriptors():
                self._loop.remove_reader(descriptor)
            if self._pump.timer_descriptor >= 0:
                self._loop.remove_reader(self._pump.timer_descriptor)
        self._pump.close()


@final
class ThreadDriver(PumpDriver):
    """Turn on a thread of its own: busy Python threads then delay the application, but not the protocol."""

    def __init__(self, core: engine.Engine, config: Config, on_events: EventsCallback, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(core, config, on_events, loop, with_timer=False)
        self._wake, self._waken = socket.socketpair()
        self._notify, self._notified = socket.socketpair()
        for end in (self._wake, self._waken, self._notify, self._notified):
            end.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="interpeer", daemon=True)

    def _start(self) -> None:
        self._loop.add_reader(self._notified.fileno(), self._on_notified)
        self._thread.start()

    def _run(self) -> None:
        self._pump.run(self._waken.fileno(), self._notify.fileno())

    def _on_notified(self) -> None:
        try:
            self._notified.recv(4096)
        except BlockingIOError:
            return
        self._tell()

    def kick(self) -> None:
        if self._is_open:
            self._wake_thread()

    def _wake_thread(self) -> None:
        try:
            self._wake.send(b"k")
        except BlockingIOError:
            pass  # it has been told often enough

    def flush(self) -> None:
        self.kick()

    def close(self) -> None:
        self._extra.close()
        self.stop()
        self._pump.close()
        for end in (self._wake, self._waken, self._notify, self._notified):
            end.close()

    def stop(self) -> None:
        """End the thread. Harmless on one that has ended."""
        if not self._is_open:
            return
        self._is_open = False
        self._core.on_kick = None
        self._pump.stop()
        self._wake_thread()
        self._thread.join()
        self._pump.turn(0)  # what was said last still goes out
        if not self._loop.is_closed():
            self._loop.remove_reader(self._notified.fileno())

    # --- as one of a node's shards ---

    @property
    def wake_descriptor(self) -> int:
        """What another shard's thread writes a byte to when it has passed something on."""
        return self._wake.fileno()

    def join(self, first: ThreadDriver, disabled: int) -> None:
        """Bind where another shard has, or send by its sockets. Raises OSError."""
        self._families = first._families
        self._pump.join(first._pump, disabled)

    def know_shards(self, shards: Sequence[ThreadDriver], disabled: int) -> None:
        """Learn how to wake the others, and see that the system steers to each what is its own. Before `start`."""
        self._pump.know_shards([shard.wake_descriptor for shard in shards])
        self._pump.steer(len(shards), disabled)
