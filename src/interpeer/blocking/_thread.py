"""What the blocking faces stand on: a thread with an event loop, and a way in from other threads."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, final

from interpeer._run import loop_factory
from interpeer.errors import ClosedError, ForkedError, LocalError

_T = TypeVar("_T")


@final
class LoopThread:
    """An event loop on a thread, and a way in from other threads."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=loop_factory())
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._process = os.getpid()
        self._lock = threading.Lock()  # a call comes in either before the end, and is ended by it, or is refused
        self.is_accepting = True
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="interpeer.blocking", daemon=True)
        self._thread.start()
        self._is_ready.wait()

    def _run(self) -> None:
        with self._runner as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._is_ready.set()
        await self._stop.wait()

    @property
    def is_forked(self) -> bool:
        """Whether this process is a fork of the one that has the thread."""
        return os.getpid() != self._process

    def call(self, make: Callable[[], Coroutine[Any, Any, _T]], timeout: float | None) -> _T:
        """Run a coroutine there and wait for it. Raises TimeoutError; the coroutine is then cancelled and has ended."""
        if self.is_forked:
            raise ForkedError("this process is a fork of the one that owns the node: make a node of its own after the fork")
        if threading.current_thread() is self._thread:
            raise LocalError("a blocking call on the node's own thread would wait for itself")

        async def bounded() -> _T:
            async with asyncio.timeout(timeout):
                return await make()

        with self._lock:
            if not self.is_accepting:
                raise ClosedError("the node is closed")
            future: Future[_T] = asyncio.run_coroutine_threadsafe(bounded(), self._loop)
        try:
            return future.result()
        except CancelledError:
            raise ClosedError("the node was closed meanwhile") from None
        except KeyboardInterrupt:
            future.cancel()
            raise

    def do(self, function: Callable[[], _T]) -> _T:
        """Run a plain function there and wait for it."""

        async def done() -> _T:
            return function()

        return self.call(done, None)

    def close(self) -> None:
        """Cancel what still runs there, and end the thread."""
        with self._lock:
            self.is_accepting = False
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


@final
class Each(Iterator[_T]):
    """Iterate by a call, until it raises one of `ends`. May be used again after a time-out."""

    def __init__(self, take: Callable[[], _T], ends: tuple[type[Exception], ...]) -> None:
        self._take = take
        self._ends = ends

    def __next__(self) -> _T:
        try:
            return self._take()
        except self._ends:
            raise StopIteration from None


class _Context(Protocol):
    """What `async with` takes."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


_C = TypeVar("_C", bound=_Context)


class Wrapper(Generic[_C]):
    """Be the face of an object of the thread's; leaving `with` is what leaving `async with` is."""

    def __init__(self, thread: LoopThread, inner: _C) -> None:
        self._thread = thread
        self._inner = inner

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.call(lambda: self._inner.__aexit__(kind, error, trace), None)
