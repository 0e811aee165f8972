"""How tasks wait for what the core tells: no Future unless there is something to wait for, and no wake-up lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, final, overload

from interpeer.errors import WrongLoopError


class Waiters:
    """Keep the tasks that wait for each kind of event of one object.

    An event wakes everybody who waits for it, and each looks again at what it waits for: so a task that is cancelled
    after the event takes nothing away from the others."""

    __slots__ = ("_futures", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._futures: dict[int, list[asyncio.Future[None]]] = {}

    def check_loop(self) -> None:
        """Raise WrongLoopError on another event loop than the object's."""
        if asyncio.get_running_loop() is not self._loop:
            raise WrongLoopError("this object belongs to another event loop: use it there, or interpeer.blocking from threads")

    def is_waited_for(self, event: int) -> bool:
        """Tell whether a task waits for an event, or has not run since it came."""
        return event in self._futures

    async def wait(self, event: int, is_so: Callable[[], object]) -> None:
        """Wait for an event, unless `is_so()`, which also asks the core for it, finds that it has come true already."""
        self.check_loop()
        future = self._loop.create_future()
        self._futures.setdefault(event, []).append(future)
        try:
            if not is_so():
                await future
        finally:  # and no sooner: who is woken has not looked yet
            futures = self._futures[event]
            futures.remove(future)
            if not futures:
                del self._futures[event]

    def wake(self, events: int) -> None:
        """Wake whoever waits for one of these events."""
        for event, futures in self._futures.items():
            if event & events:
                for future in futures:
                    if not future.done():
                        future.set_result(None)


class _Closing(Protocol):
    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


_T = TypeVar("_T", bound=_Closing)


@final
class Opening(Coroutine[Any, Any, _T]):
    """A call that can be awaited, given to `create_task`, or used with `async with`, which also closes what it gives."""

    __slots__ = ("_coroutine", "_opened")

    def __init__(self, coroutine: Coroutine[Any, Any, _T]) -> None:
        self._coroutine = coroutine
        self._opened: _T | None = None

    def __await__(self) -> Generator[Any, Any, _T]:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        return self._coroutine.send(value)

    @overload
    def throw(
        self, kind: type[BaseException], value: BaseException | object = None, trace: TracebackType | None = None, /
    ) -> Any: ...
    @overload
    def throw(self, kind: BaseException, value: None = None, trace: TracebackType | None = None, /) -> Any: ...
    def throw(self, kind: Any, value: Any = None, trace: Any = None, /) -> Any:
        return self._coroutine.throw(kind if value is None else value)

    def close(self) -> None:
        self._coroutine.close()

    async def __aenter__(self) -> _T:
        self._opened = await self._coroutine
        return await self._opened.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._opened is not None
        await self._opened.__aexit__(kind, error, trace)
