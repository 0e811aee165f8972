"""The main job in miniature: one process reaches another by its id and address, and moves data that the other compares.

`move` runs it, and tells how it goes. What is moved is one random block again and again, which the receiver knows from its
first coming: so comparing every byte costs little, and no disk is measured.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

from interpeer import Address, Identity, Node, Stream
from interpeer._bench import loads
from interpeer._bench.end import Control, Facts, run
from interpeer._bench.process import End, EndFailed

LISTEN = "127.0.0.1:0"
BLOCK_BYTES = 1 << 18
TELL_S = 0.2


@final
@dataclass(frozen=True, slots=True)
class Step:
    """Say how far it is; what is not known yet is empty."""

    caller: str
    called: str
    address: str
    cipher: str = ""
    path: str = ""
    connected_s: float = 0.0
    bytes: int = 0
    seconds: float = 0.0
    is_last: bool = False

    @property
    def gbit_per_s(self) -> float:
        return 8e-9 * self.bytes / self.seconds if self.seconds else 0.0


def move(seconds: float, loop: str) -> Iterator[Step]:
    """Run both processes; yield how far they are. Raises EndFailed, for damaged data too."""
    name = __name__
    with End(f"{name}:serve", loop=loop) as server:
        called = server.receive()
        with End(f"{name}:dial", loop=loop, seconds=seconds, address=called["address"]) as client:
            calling = client.receive()
            people = {"caller": calling["id"], "called": called["id"], "address": called["place"]}
            yield Step(**people)
            try:
                known = {**people, **client.receive()}
                while not (told := server.receive()).pop("is_last", False):
                    yield Step(**known, **told)
            except EndFailed as failure:
                raise EndFailed(f"{failure}; the caller: {client.last_words()}") from None
            client.receive()
            client.wait()
            yield Step(**known, **told, is_last=True)
        server.wait()


def serve(control: Control, *, loop: str) -> Facts:
    return run(_serve(control), uvloop=loop == "uvloop") or {}


def dial(control: Control, *, loop: str, seconds: float, address: str) -> Facts:
    return run(_dial(control, seconds, Address(address)), uvloop=loop == "uvloop") or {}


async def _serve(control: Control) -> Facts:
    async with Node(Identity.generate(), listen=LISTEN) as node:
        control.tell(id=str(node.id), address=str(node.address), place=str(node.address.endpoints[0]))
        connection = await node.accept()
        stream = await connection.accept_stream()
        start_s = told_s = time.perf_counter()
        block, buffer, count = await stream.readexactly(BLOCK_BYTES), bytearray(BLOCK_BYTES), BLOCK_BYTES
        while await _fill(stream, buffer):
            if not buffer.startswith(block):  # both have a block's length; `!=` would say the same
                raise ValueError(f"the data are damaged between {count} and {count + BLOCK_BYTES} bytes")
            count += BLOCK_BYTES
            now_s = time.perf_counter()
            if now_s - told_s >= TELL_S:
                told_s = now_s
                control.tell(bytes=count, seconds=now_s - start_s)
        seconds = time.perf_counter() - start_s
        await stream.write(loads.COUNT.pack(count))
        await stream.finish()
        await connection.close()
        return {"bytes": count, "seconds": seconds, "is_last": True}


async def _fill(stream: Stream, buffer: bytearray) -> bool:
    """Fill the buffer; False at the end. What is left of it when the end comes too early fails the comparison."""
    view, done = memoryview(buffer), 0
    while done < len(buffer):
        size = await stream.readinto(view[done:])
        if not size:
            if done:
                raise ValueError(f"the data end in the middle of a block, after {done} bytes of it")
            return False
        done += size
    return True


async def _dial(control: Control, seconds: float, address: Address) -> Facts:
    async with Node(Identity.generate(), listen=LISTEN) as node:
        control.tell(id=str(node.id))
        start_s = time.perf_counter()
        connection = await node.connect(address)
        connected_s = time.perf_counter() - start_s
        control.tell(cipher=connection.cipher, path=str(connection.path), connected_s=connected_s)
        async with connection:
            stream = await connection.open_stream()
            block: Any = os.urandom(BLOCK_BYTES)
            deadline_s = time.perf_counter() + seconds
            await stream.write(block)
            while time.perf_counter() < deadline_s:
                await stream.write(block)
            await stream.finish()
            (count,) = loads.COUNT.unpack(await stream.readexactly(loads.COUNT.size))
            if count != stream.bytes_accepted:
                raise ValueError(f"{stream.bytes_accepted} bytes were sent and {count} received")
            await connection.wait_closed()  # by the other side, which knows then that its answer has come
        return {"sent": count}
