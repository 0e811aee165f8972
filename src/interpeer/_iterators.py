"""What `async for` takes from a node: its incoming connections, and its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, final

from interpeer import errors
from interpeer._connection import Connection
from interpeer._events import Event

if TYPE_CHECKING:
    from interpeer._node import Node


@final
class Incoming:
    """Iterate over connections that peers open; may be used again after a cancellation."""

    __slots__ = ("_node",)

    def __init__(self, node: Node) -> None:
        self._node = node

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Connection:
        try:
            return await self._node.accept()
        except errors.ClosedError:
            raise StopAsyncIteration from None


@final
class Events:
    """Iterate over a node's events; may be used again after a cancellation."""

    __slots__ = ("_node",)

    def __init__(self, node: Node) -> None:
        self._node = node

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self._node._next_event()
