"""Send over two ways to one peer at once, lose one of them in the middle, and let the other finish.

Prints:

    two paths: 0 and 2
    1000000 bytes arrived, the rest of them by path 2
"""

import asyncio

import interpeer

SIZE = 1_000_000


async def serve(node: interpeer.Node) -> int:
    async with await node.accept() as connection:
        stream = await connection.accept_stream()
        received = await stream.read()
        await stream.write(b"thank you")
        await stream.finish()
        await connection.wait_closed()
        return len(received)


async def main() -> None:
    config = interpeer.Config(scheduler="aggregate")  # the rates of all paths add up
    async with (
        interpeer.Node(listen="0.0.0.0:0", config=config) as a,
        interpeer.Node(listen="0.0.0.0:0", config=config) as b,
    ):
        serving = asyncio.create_task(serve(b))
        port = b.address.endpoints[0].port
        async with a.connect(f"{b.id}@127.0.0.1:{port}") as connection, connection.open_stream() as stream:
            await connection.open_path(f"127.0.0.2:{port}")  # another address of the same machine
            first, second = connection.paths
            print(f"two paths: {first.id} and {second.id}")
            await stream.write(bytes(SIZE // 2))
            connection.close_path(first)  # what is on its way there goes by the other
            await stream.write(bytes(SIZE // 2))
            await stream.finish()
            assert await stream.read() == b"thank you"
            by = connection.path.id
        print(f"{await serving} bytes arrived, the rest of them by path {by}")


interpeer.run(main())
