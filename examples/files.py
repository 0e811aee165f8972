"""Send a file to a peer, which verifies it: a part, or another file, is never taken for it.

Prints:

    received 1000000 bytes
    equal: True
"""

import asyncio
import tempfile
from pathlib import Path

import interpeer


async def receive(node: interpeer.Node, target: Path) -> None:
    connection = await node.accept()
    stream = await connection.accept_stream()
    print("received", await stream.recv_file(target, max_bytes=10_000_000), "bytes")
    await stream.finish()


async def send(source: Path, target: Path) -> None:
    async with interpeer.Node() as a, interpeer.Node() as b:
        receiving = asyncio.create_task(receive(b, target))
        async with a.connect(b.address) as connection, connection.open_stream() as stream:
            await stream.send_file(source)
            await receiving


with tempfile.TemporaryDirectory() as folder:
    source, target = Path(folder, "source"), Path(folder, "target")
    source.write_bytes(bytes(range(250)) * 4000)
    interpeer.run(send(source, target))
    print("equal:", source.read_bytes() == target.read_bytes())
