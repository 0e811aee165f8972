"""Send numpy arrays to a peer, and get one back: neither end copies them.

Prints:

    got float32 (512, 512), sent its transpose back
    equal: True
"""

import asyncio

import numpy as np

import interpeer


async def transpose(node: interpeer.Node) -> None:
    connection = await node.accept()  # one caller; for many at once, a task for each, as in the README
    stream = await connection.accept_stream()
    array = await stream.recv_array()
    print(f"got {array.dtype} {array.shape}, sent its transpose back")
    await stream.send_array(array.T)
    await stream.finish()


async def main() -> None:
    array = np.random.default_rng(1).random((512, 512), dtype=np.float32)
    async with interpeer.Node() as a, interpeer.Node() as b:
        serving = asyncio.create_task(transpose(b))
        async with a.connect(b.address) as connection, connection.open_stream() as stream:
            await stream.send_array(array)
            print("equal:", np.array_equal(await stream.recv_array(), array.T))
        await serving


interpeer.run(main())
