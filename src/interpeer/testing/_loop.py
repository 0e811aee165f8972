"""An event loop in simulated time, and `run`, which runs a program on it.

It is asyncio's own loop over a selector that never sleeps: when no task is ready, it moves the clock to whatever is next,
a timer of the loop or a packet of the network. Nothing else may make a difference from one run to the next: chance comes
from one seed, tasks hash by number, so that sets of them have an order, and garbage is collected at fixed moments.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import linecache
import math
import random
import secrets
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, TypeVar, TypeVarTuple, Unpack, cast, final

from interpeer import _host
from interpeer._address import CoreEndpoint
from interpeer._config import Config
from interpeer._core import engine
from interpeer._driver import Driver, EventsCallback
from interpeer.testing._clock import SimClock
from interpeer.testing._errors import Deadlock, OutOfTime, SimulationError
from interpeer.testing._machine import Host
from interpeer.testing._streams import StreamTransport
from interpeer.testing._udp import DatagramTransport, open_endpoint, packed

MAX_TURNS_AT_ONCE = 200_000
"""Turns of the loop while the clock stands: more are a program that polls."""
TURNS_BETWEEN_COLLECTIONS = 50_000
MAX_WAITING_TOLD = 20

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


def run(main: Coroutine[Any, Any, _T], *, seed: int | None = None, until_s: float = 3600.0, debug: bool | None = None) -> _T:
    """Run a coroutine in simulated time, like `asyncio.run`: sleeping costs nothing, and every run is the same.

    - `seed`: where all chance comes from: identities, keys, what links lose, and Python's module `random`. None: another one
      each time; whatever fails carries the seed in a note, to be given here again.
    - `until_s`: simulated seconds after which the program has failed.

    Raises what the program raises; Deadlock, with the tasks that wait, when nothing can happen any more; OutOfTime;
    SimulationError for what cannot be simulated: sockets, other threads, other processes. `asyncio.to_thread` calls the
    function on the spot.

    >>> async def main():
    ...     await asyncio.sleep(3000)
    ...     return "fifty minutes later"
    >>> run(main())
    'fifty minutes later'
    """
    seed = secrets.randbits(64) if seed is None else seed
    loop = SimLoop(seed, until_s)
    context = contextvars.copy_context()
    context.run(_host.current.set, Nowhere(seed))
    try:
        with _seeded(seed), _collecting_at_fixed_moments():
            loop.set_debug(bool(debug))
            try:
                return loop.run_until_complete(loop.create_task(main, context=context))
            finally:
                _wind_up(loop)
    except BaseException as error:
        error.add_note(f"in a simulation with seed={seed:#x}, at {loop.clock.now_s:.9f} s")
        raise


def _wind_up(loop: SimLoop) -> None:
    """End what the program has left running, in the order in which it was started."""
    loop.has_ended = True
    try:
        left = sorted(asyncio.all_tasks(loop), key=hash)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        for transport in tuple(loop.transports):
            transport.abort()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


@contextmanager
def _seeded(seed: int) -> Generator[None]:
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


@contextmanager
def _collecting_at_fixed_moments() -> Generator[None]:
    """Leave the garbage to the loop: a stream that is dropped is ended when it is collected, which sends a packet."""
    was_enabled, freezes = gc.isenabled(), gc.get_freeze_count() == 0
    gc.disable()
    if freezes:
        gc.freeze()  # what there was before does not count, and costs nothing
    try:
        yield
    finally:
        if freezes:
            gc.unfreeze()
        if was_enabled:
            gc.enable()


@final
class Nowhere:
    """What a program in a simulation finds while it is on no host: seeded chance, and no network."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"{seed} nowhere")

    def random_bytes(self, n: int) -> bytes:
        return self._random.randbytes(n)

    def make_driver(
        self, core: engine.Engine, config: Config, on_events: EventsCallback, loop: asyncio.AbstractEventLoop
    ) -> Driver:
        raise SimulationError(
            "in a simulation a node is on a host: make it with host.node(...), or start the program that makes it with "
            "host.start(program())"
        )

    def interfaces(self) -> list[tuple[str, str, int, bool, bool]]:
        return []

    def watch_interfaces(self, callback: Callable[[], object]) -> Callable[[], None]:
        return _do_nothing


def _do_nothing() -> None:
    """End a watch of nothing."""


@final
class SimLoop(asyncio.BaseEventLoop):
    """asyncio's loop in simulated time. `run` makes it; `asyncio.get_running_loop()` gives it."""

    def __init__(self, seed: int, until_s: float) -> None:
        super().__init__()
        self.clock = SimClock()
        self.seed = seed
        self.until_s = until_s
        self.has_ended = False  # what is left is being cancelled: time does not matter any more
        self.transports: dict[DatagramTransport | StreamTransport, None] = {}
        """Those that are open, in the order in which they were."""
        self._selector = _Jump(self)  # where BaseEventLoop waits
        self.sharpen()
        self._owner = threading.get_ident()
        self._task_numbers = itertools.count()
        self.set_task_factory(_make_task)

    def time(self) -> float:
        return self.clock.now_ns / 1e9

    def sharpen(self) -> None:
        """Let timers fire that are due within what a float can tell of the time by now."""
        self._clock_resolution = max(1e-9, 2 * math.ulp(self.time()))

    def _process_events(self, event_list: list[Any]) -> None:
        """Do nothing: there are no files, so there is nothing to process."""

    def _write_to_self(self) -> None:
        """Do nothing: it never sleeps, so it need not be woken."""

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call a function in the next turn. Raises SimulationError on another thread."""
        if threading.get_ident() != self._owner:
            raise SimulationError("another thread calls into a simulation, which has only one: no two runs would be the same")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Executor | None, func: Callable[[Unpack[_Ts]], _T], *args: *_Ts) -> asyncio.Future[_T]:
        """Call a function on the spot, in no simulated time. Raises SimulationError for an executor of the program's own."""
        if executor is not None:
            raise SimulationError("a simulation has no other threads: use asyncio.to_thread, which calls a function on the spot")
        future: asyncio.Future[_T] = self.create_future()
        try:
            result = func(*args)
        except Exception as error:
            self.call_soon(_settle, future, None, error)
        else:
            self.call_soon(_settle, future, result, None)
        return future

    # --- the network of the host that the program is on ---

    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], Any],
        local_addr: Any = None,
        remote_addr: Any = None,
        *,
        family: int = 0,
        reuse_port: bool | None = None,
        allow_broadcast: bool | None = None,
        **options: Any,
    ) -> tuple[Any, Any]:
        """Open a UDP port on the host of this program; with `reuse_port` others may have it, too.

        Raises OSError, ValueError, and SimulationError on no host, and for a real socket."""
        self._refuse(options)
        return await open_endpoint(
            self._host("a UDP port"), self, protocol_factory, local_addr, remote_addr, transports=self.transports,
            family=family, shares_port=bool(reuse_port), may_broadcast=bool(allow_broadcast),
        )  # fmt: skip

    async def create_connection(
        self, protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, *, local_addr: Any = None, **options: Any
    ) -> tuple[Any, Any]:
        """Connect the host of this program to another by TCP; of TLS the bytes are plain.

        Raises OSError, and SimulationError for a host that is not an address."""
        self._refuse(options)
        here, remote = self._host("a connection by TCP"), self._resolve(host, port)
        return await here.tcp.connect(self, protocol_factory, remote, local_addr, self.transports)

    async def create_server(
        self,
        protocol_factory: Callable[[], Any],
        host: Any = None,
        port: Any = None,
        *,
        start_serving: bool = True,
        **options: Any,
    ) -> asyncio.Server:
        """Listen by TCP on the host of this program, at any address where none is given; of TLS the bytes are plain.

        Raises OSError, and SimulationError for a host that is not an address."""
        self._refuse(options)
        wanted = ["::", "0.0.0.0"] if not host else [host] if isinstance(host, str) else list(host)
        for address in wanted:
            self._resolve(address, 1)
        here = self._host("a TCP server")
        server = await here.tcp.listen(self, protocol_factory, wanted, port or 0, start_serving, self.transports)
        return cast("asyncio.Server", server)

    def _host(self, what: str) -> Host:
        host = _host.current.get()
        if not isinstance(host, Host):
            raise SimulationError(
                f"in a simulation {what} is on a host of a SimNet: start its program with host.start(program())"
            )
        return host

    def _refuse(self, options: dict[str, Any]) -> None:
        if options.get("sock") is not None:
            raise SimulationError(_SOCKETS)

    def _resolve(self, host: Any, port: Any) -> CoreEndpoint:
        try:
            return packed((host, int(port)))
        except (AttributeError, TypeError, ValueError):
            raise SimulationError(f"{_NAMES}, not {host!r}, {port!r}") from None


def _settle(future: asyncio.Future[_T], result: _T | None, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(cast("_T", result))


@final
class _Task(asyncio.Task[Any]):
    """A task that hashes by its number: asyncio keeps tasks in sets, whose order would depend on their addresses."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, loop: SimLoop, **kwargs: Any) -> None:
        self._number = next(loop._task_numbers)
        super().__init__(coro, loop=loop, **kwargs)

    def __hash__(self) -> int:
        return self._number


def _make_task(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> _Task:
    assert isinstance(loop, SimLoop)
    return _Task(coro, loop=loop, **kwargs)


# --- jumping ---


@final
class _Jump:
    """Stand in for a selector: no file ever becomes ready, and waiting moves the clock."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._until_ns = loop.clock.now_ns + round(loop.until_s * 1e9)
        self._turns = 0
        self._turns_at_once = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        """Wait for `timeout` seconds, or for the network if that is sooner; None: for the network alone."""
        clock = self._loop.clock
        self._turns += 1
        if self._turns % TURNS_BETWEEN_COLLECTIONS == 0:
            gc.collect()
        if timeout == 0:
            self._turns_at_once += 1
            if self._turns_at_once > MAX_TURNS_AT_ONCE:
                self._say_that_time_stands()
            clock.advance_to(clock.now_ns)
            return []
        when_ns = clock.next_ns
        if timeout is not None:
            timer_ns = clock.now_ns + round(timeout * 1e9)
            when_ns = timer_ns if when_ns is None else min(when_ns, timer_ns)
        if when_ns is None:
            raise Deadlock(f"nothing can happen any more at {clock.now_s:.9f} s. {_who_waits(self._loop)}")
        if when_ns > self._until_ns and not self._loop.has_ended:
            raise OutOfTime(f"the program is not done after {self._loop.until_s:g} simulated seconds. {_who_waits(self._loop)}")
        self._turns_at_once = 0
        clock.advance_to(when_ns)
        self._loop.sharpen()
        return []

    def _say_that_time_stands(self) -> NoReturn:
        self._turns_at_once = 0
        raise SimulationError(
            f"{MAX_TURNS_AT_ONCE} turns of the loop, and the clock stands at {self._loop.clock.now_s:.9f} s: something polls, "
            f"as with sleep(0), and simulated time moves only while everybody waits. {_who_waits(self._loop)}"
        )


def _who_waits(loop: SimLoop) -> str:
    """Name the tasks that are not done, and the line where each waits."""
    tasks = sorted(asyncio.all_tasks(loop), key=hash)
    if not tasks:
        return "No task is left."
    told = [f"{task.get_name()} {_where(task)}" for task in tasks[:MAX_WAITING_TOLD]]
    more = f"; and {len(tasks) - len(told)} more" if len(tasks) > len(told) else ""
    return f"Waiting: {'; '.join(told)}{more}"


def _where(task: asyncio.Task[Any]) -> str:
    """Return the line of the program itself where a task waits: the innermost that is not the library's or asyncio's."""
    frames: list[FrameType] = []
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        frame: FrameType | None = getattr(coroutine, "cr_frame", None)
        if frame is not None:
            frames.append(frame)
        coroutine = getattr(coroutine, "cr_await", None)
    if not frames:
        return "(not in Python code)"
    own = [frame for frame in frames if not frame.f_globals.get("__name__", "").startswith(("asyncio.", "interpeer."))]
    frame = (own or frames)[-1]
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return f"in {frame.f_code.co_qualname}, {frame.f_code.co_filename}:{frame.f_lineno}: {line}"


# --- what cannot be simulated ---

_SOCKETS = (
    "the network of a simulation is a SimNet, and it has no sockets: use a node of one of its hosts, or asyncio's streams and "
    "datagram endpoints on one"
)
_PROCESSES = "a simulation is one process: run what the program would start as another program on a host"
_NAMES = "a simulation has no names to look up: use the addresses of its hosts"
_SIGNALS = "a simulation gets no signals: cancel the task instead"
_FORBIDDEN = {
    **dict.fromkeys(
        (
            "add_reader", "add_writer", "connect_accepted_socket", "create_unix_connection", "create_unix_server", "sendfile",
            "sock_accept", "sock_connect", "sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall",
            "sock_sendfile", "sock_sendto", "start_tls",
        ),
        _SOCKETS,
    ),
    **dict.fromkeys(("connect_read_pipe", "connect_write_pipe", "subprocess_exec", "subprocess_shell"), _PROCESSES),
    **dict.fromkeys(("getaddrinfo", "getnameinfo"), _NAMES),
    **dict.fromkeys(("add_signal_handler",), _SIGNALS),
}  # fmt: skip


def _forbid(name: str, why: str) -> Callable[..., NoReturn]:
    def forbidden(self: SimLoop, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise SimulationError: this cannot be simulated."""
        raise SimulationError(f"loop.{name}: {why}")

    return forbidden


for _name, _why in _FORBIDDEN.items():
    setattr(SimLoop, _name, _forbid(_name, _why))
