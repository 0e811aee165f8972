"""Tasks that belong to a node's network, and end with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, final

logger = logging.getLogger("interpeer")


@final
class Tasks:
    """Start tasks, report those that fail, and end the rest."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, program: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a program; its task may be cancelled."""
        task = asyncio.get_running_loop().create_task(program)
        self._running.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task of the network has failed", exc_info=error)

    async def close(self) -> None:
        """Cancel all that runs, and wait until it has ended."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
