"""Two nodes in two network namespaces with a link between them, whose MTU changes while data flow.

Run as a script in a fresh namespace it makes the other one, moves data to a node there, and prints what it saw as JSON."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager

from namespaces import ip

from interpeer import Config, Node

NEAR, FAR = "10.9.0.1", "10.9.0.2"
PIECE = 1 << 20
PATIENCE_S = 20


class Far:
    """The process in the other namespace, told what to do line by line."""

    def __init__(self) -> None:
        command = ["unshare", "--net", sys.executable, __file__, "far"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hear()  # it is in its namespace

    def hear(self) -> str:
        return self.process.stdout.readline().strip()

    def say(self, words: str) -> str:
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()
        return self.hear()


def far() -> None:
    print("here", flush=True)
    asyncio.run(serve())


async def serve() -> None:
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        await obey(stack, loop)


async def obey(stack: AsyncExitStack, loop: asyncio.AbstractEventLoop) -> None:
    while words := await loop.run_in_executor(None, sys.stdin.readline):
        verb, *rest = words.split(maxsplit=1)
        if verb == "ip":
            ip(rest[0].strip())
            print("done", flush=True)
        elif verb == "listen":
            node = await stack.enter_async_context(Node(listen=f"{FAR}:0"))
            stack.callback(asyncio.create_task(take(node)).cancel)
            print(node.address, flush=True)
        elif verb == "forge":
            near_port, far_port, mtu = map(int, rest[0].split())
            forge(near_port, far_port, mtu)
            print("done", flush=True)


async def take(node: Node) -> None:
    async for connection in node.incoming():
        async for stream in connection.streams():
            count = 0
            while piece := await stream.read(PIECE):
                count += len(piece)
            await stream.write(count.to_bytes(8, "big"))
            await stream.finish()


def forge(near_port: int, far_port: int, mtu: int) -> None:
    """Tell the near end that what it sends is too large, as any stranger may who guesses its ports."""
    near, there = socket.inet_aton(NEAR), socket.inet_aton(FAR)
    inner = bytes.fromhex("4500057800004000") + b"\x40\x11\0\0" + near + there
    inner += near_port.to_bytes(2, "big") + far_port.to_bytes(2, "big") + (1372).to_bytes(2, "big") + b"\0\0"
    message = bytearray(b"\3\4\0\0\0\0" + mtu.to_bytes(2, "big") + inner)
    total = sum(int.from_bytes(message[i : i + 2], "big") for i in range(0, len(message), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    message[2:4] = (~total & 0xFFFF).to_bytes(2, "big")
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.sendto(message, (NEAR, 0))


@asynccontextmanager
async def two_ends(mtu: int):
    """Yield the far end, a connection to it, and our node."""
    other = Far()
    try:
        ip("link set lo up")
        ip("link add veth0 type veth peer name veth1")
        ip(f"link set veth1 netns {other.process.pid}")
        ip(f"address add {NEAR}/24 dev veth0")
        ip(f"link set veth0 up mtu {mtu}")
        other.say(f"ip address add {FAR}/24 dev veth1")
        other.say(f"ip link set veth1 up mtu {mtu}")
        address = other.say("listen")
        async with Node(listen=f"{NEAR}:0", config=Config()) as node, node.connect(address) as connection:
            yield other, connection, node
    finally:
        other.process.stdin.close()
        other.process.wait()


def route_to(address: str) -> str:
    return subprocess.run(["ip", "route", "get", address], check=True, capture_output=True, text=True).stdout


async def move(connection, count: int) -> int:
    """Send so many bytes; return how many have arrived."""
    async with asyncio.timeout(PATIENCE_S):
        stream = await connection.open_stream()
        piece = bytes(PIECE)
        for _ in range(count // PIECE):
            await stream.write(piece)
        await stream.finish()
        return int.from_bytes(await stream.readexactly(8), "big")


async def until(connection, low: int, high: int) -> int:
    """Move data until the size of packets is in this interval, and say which it is."""
    async with asyncio.timeout(PATIENCE_S):
        while not low <= connection.stats().packet_bytes <= high:
            assert await move(connection, PIECE) == PIECE
    return connection.stats().packet_bytes


async def jumbo(mtu: int = 9000) -> dict:
    """The whole of the link is used; the own interface's lower MTU is respected at once, and so is a black hole."""
    async with two_ends(mtu) as (_, connection, node):
        found = [await until(connection, 8900, 8972)]
        flow = asyncio.create_task(move(connection, 32 * PIECE))
        await asyncio.sleep(0)
        ip("link set veth0 mtu 1500")
        arrived = await flow
        found.append(await until(connection, 1400, 1472))
        flow = asyncio.create_task(move(connection, 32 * PIECE))
        await asyncio.sleep(0)
        ip("link set veth0 mtu 1280")
        arrived += await flow
        found.append(await until(connection, 1230, 1252))
        return {"found": found, "arrived": arrived, "sent": 64 * PIECE, "counters": node.counters()}


async def hole() -> dict:
    """The far end of the link takes less than the near one gives it, and says nothing."""
    async with two_ends(1500) as (other, connection, node):
        found = [await until(connection, 1472, 1472)]
        flow = asyncio.create_task(move(connection, 32 * PIECE))
        await asyncio.sleep(0)
        other.say("ip link set veth1 mtu 1280")
        arrived = await flow
        found.append(await until(connection, 1230, 1260))
        return {"found": found, "arrived": arrived, "sent": 32 * PIECE, "counters": node.counters()}


async def forged() -> dict:
    """Somebody says by ICMP that 68 bytes, and 1000, are the most; the system believes it."""
    async with two_ends(1500) as (other, connection, node):
        found = [await until(connection, 1472, 1472)]
        near_port = node.address.endpoints[0].port
        for mtu in (68, 576, 1000):
            other.say(f"forge {near_port} {connection.path.remote.port} {mtu}")
            found.append(await until(connection, 1200, 1472))
        route = route_to(FAR)
        arrived = await move(connection, 8 * PIECE)
        found.append(connection.stats().packet_bytes)
        return {"found": found, "arrived": arrived, "sent": 8 * PIECE, "route": route, "counters": node.counters()}


if __name__ == "__main__":
    if sys.argv[1] == "far":
        far()
    else:
        os.environ.setdefault("INTERPEER_DISABLE", sys.argv[2] if len(sys.argv) > 2 else "")
        print(json.dumps(asyncio.run(globals()[sys.argv[1]]())))
