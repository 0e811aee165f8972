"""How far a transfer is: rate, time left and path, on a terminal, in sparse lines, or as JSON events.

A `Progress` looks at its transfers a few times a second; whoever moves the data only counts. `rich` draws on terminals, and is
loaded only there.
"""

from __future__ import annotations

import asyncio
import collections
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, final

from interpeer._cli.output import JsonObject, Output, duration, printable, size

if TYPE_CHECKING:
    from rich.progress import TaskID

TICK_S = 0.2
RATE_WINDOW_S = 4.0
"""A rate is an average over so much time: less and it jumps, more and it lags."""
JSON_INTERVAL_S = 1.0
SPARSE_INTERVAL_S = 5.0


@final
class Transfer:
    """Count one thing that moves."""

    def __init__(self, label: str, total: int | None, path: str, facts: JsonObject) -> None:
        self.label = label
        self.total = total
        """Bytes in all; None while nobody knows."""
        self.done = 0
        """Bytes that are where they should be."""
        self.path = path
        self.checked = 0
        """Bytes of earlier attempts that were compared."""
        self.facts = facts
        self.started_s = time.monotonic()
        self._samples = collections.deque([(self.started_s, 0)])

    def advance(self, count: int) -> None:
        """Count so many bytes more."""
        self.done += count

    def skip(self, count: int) -> None:
        """Count bytes that were there already: they are done, but nothing has moved, so the rate does not see them."""
        self.done += count
        self._samples = collections.deque((when, done + count) for when, done in self._samples)

    def sample(self) -> None:
        """Note how far it is now, for the rate."""
        now_s = time.monotonic()
        self._samples.append((now_s, self.done))
        while now_s - self._samples[0][0] > RATE_WINDOW_S and len(self._samples) > 2:
            self._samples.popleft()

    @property
    def bytes_per_s(self) -> float:
        """The rate over the last few seconds."""
        (start_s, start), (end_s, end) = self._samples[0], self._samples[-1]
        return (end - start) / (end_s - start_s) if end_s > start_s else 0.0

    @property
    def left_s(self) -> float | None:
        """How long it will take if the rate stays; None while nobody can tell."""
        rate = self.bytes_per_s
        return max(0, self.total - self.done) / rate if self.total is not None and rate > 0 else None

    def describe(self) -> str:
        """Return for people how far it is."""
        parts = [size(self.done)]
        if self.total is not None:
            share = 100 * self.done // self.total if self.total else 100
            parts = [f"{size(self.done)} of {size(self.total)} ({share} %)"]
        if self.bytes_per_s == 0 and self.checked:
            parts.append(f"{size(self.checked)} of an earlier attempt compared")
        else:
            parts.append(f"{size(self.bytes_per_s)}/s")
        if self.left_s is not None:
            parts.append(f"{duration(self.left_s)} left")
        return ", ".join([*parts, printable(self.path)])


class _Face:
    """Show transfers in one way; this one shows nothing."""

    def show(self, transfers: list[Transfer]) -> None:
        """Show how far they are; called at every tick."""

    def stop(self) -> None:
        """Show nothing more."""


class _Periodic(_Face, ABC):
    """Show each transfer at its own interval, the first time after `first_s`."""

    def __init__(self, output: Output, first_s: float, interval_s: float) -> None:
        self._output = output
        self._first_s = first_s
        self._interval_s = interval_s
        self._due: dict[int, float] = {}

    def show(self, transfers: list[Transfer]) -> None:
        now_s = time.monotonic()
        for transfer in transfers:
            if now_s >= self._due.get(id(transfer), transfer.started_s + self._first_s):
                self._due[id(transfer)] = now_s + self._interval_s
                self._show_one(transfer)

    @abstractmethod
    def _show_one(self, transfer: Transfer) -> None: ...


@final
class _JsonFace(_Periodic):
    def _show_one(self, transfer: Transfer) -> None:
        left_s = transfer.left_s
        self._output.event(
            "progress",
            **transfer.facts,
            bytes=transfer.done,
            total=transfer.total,
            bytes_per_s=round(transfer.bytes_per_s),
            left_s=None if left_s is None else round(left_s, 1),
            path=transfer.path,
            checked=transfer.checked,
        )


@final
class _SparseFace(_Periodic):
    def _show_one(self, transfer: Transfer) -> None:
        self._output.say(f"{printable(transfer.label)}: {transfer.describe()}")


@final
class _LiveFace(_Face):
    """Draw bars on a terminal."""

    def __init__(self, output: Output) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        console = Console(stderr=True, no_color=not output.has_color, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[facts]}", markup=False),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self._bars.start()
        self._tasks: dict[Transfer, TaskID] = {}

    def show(self, transfers: list[Transfer]) -> None:
        for gone in set(self._tasks) - set(transfers):
            self._bars.remove_task(self._tasks.pop(gone))
        for transfer in transfers:
            facts = transfer.describe()
            if transfer not in self._tasks:
                self._tasks[transfer] = self._bars.add_task(printable(transfer.label), total=transfer.total, facts=facts)
            self._bars.update(self._tasks[transfer], completed=transfer.done, total=transfer.total, facts=facts)
        self._bars.refresh()

    def stop(self) -> None:
        self._bars.stop()


@final
class Progress:
    """Show how far transfers are, as long as the block lasts."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._transfers: list[Transfer] = []
        self._face: _Face | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._owner: asyncio.Task[Any] | None = None

    def add(self, label: str, total: int | None, path: str, **facts: Any) -> Transfer:
        """Show one transfer more; `facts` go into its JSON events."""
        transfer = Transfer(label, total, path, facts)
        self._transfers.append(transfer)
        return transfer

    def remove(self, transfer: Transfer) -> None:
        """Show a transfer no more."""
        self._transfers.remove(transfer)
        self._show()

    async def __aenter__(self) -> Self:
        self._owner = asyncio.current_task()
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._ticker is not None
        self._ticker.cancel()
        with suppress(asyncio.CancelledError):
            await self._ticker
        if self._face is not None:
            self._face.stop()

    async def _tick(self) -> None:
        try:
            while True:
                await asyncio.sleep(TICK_S)
                for transfer in self._transfers:
                    transfer.sample()
                self._show()
        except BrokenPipeError:  # nobody listens any more: end the block, which raises this
            assert self._owner is not None
            self._owner.cancel()
            raise

    def _show(self) -> None:
        if self._face is None and not self._transfers:
            return
        if self._face is None:
            self._face = self._make_face()
        self._face.show(self._transfers)

    def _make_face(self) -> _Face:
        if self._output.is_json:
            return _JsonFace(self._output, JSON_INTERVAL_S, JSON_INTERVAL_S)
        if self._output.is_live:
            return _LiveFace(self._output)
        if self._output.is_mixed:
            return _Face()
        return _SparseFace(self._output, JSON_INTERVAL_S, SPARSE_INTERVAL_S)
