"""A session between two processes, with a capture of its packets, for test_wireshark.

`python session.py FOLDER CIPHER` runs in a network namespace of its own: it leaves `capture.pcap`, `keys` and the qlog of
both ends in the folder. `python session.py FOLDER CIPHER callee` (or `caller TICKET`) is one end."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import interpeer

PACKET_OUTGOING = 4  # on loopback each packet is seen twice
STREAM_BYTES = 30_000
DATAGRAMS = 5
CHANNELS = 6
PROTECTED_MESSAGES = [*(b"%d" % i + bytes(600) for i in range(20)), bytes(40_000)]  # the last is more than a window
LATE_MESSAGES = [bytes(1000)] * 40  # more than a window, too: what does not fit at once cannot be in time
LAST_MESSAGE = b"one more"


def config(folder: str, cipher: str) -> interpeer.Config:
    # keys change every 16 packets, and fresh ones are agreed on as often as can be: epochs are part of what is read
    return interpeer.Config(
        qlog_dir=f"{folder}/qlog",
        key_log=f"{folder}/keys",
        ciphers=(cipher,),
        key_update_packets=16,
        key_limit_packets=1 << 20,
        rekey_s=2,
        max_ack_delay_s=0.05,
        stream_window_bytes=16_384,
        max_channels=CHANNELS,
    )


async def callee(folder: str, cipher: str) -> None:
    async with interpeer.Node(listen="0.0.0.0:0", config=config(folder, cipher)) as node:
        print(node.address, flush=True)
        connection = await node.accept()
        stream = await connection.accept_stream()
        data = await stream.read()
        await stream.write(data[::-1])
        await stream.finish()
        for _ in range(DATAGRAMS):
            await connection.recv_datagram()
        connection.send_datagram(b"all of them")
        await answer_channels(connection)
        await connection.wait_closed()


async def answer_channels(connection: interpeer.Connection) -> None:
    """Return each message, until the last channel has come."""
    for _ in range(CHANNELS):
        channel = await connection.accept_channel()
        with suppress(interpeer.ChannelClosed):
            async for message in channel:
                await channel.send(message)
        await channel.close()


async def use_channels(connection: interpeer.Connection) -> None:
    """Send every frame that channels have: in the end one is closed, one given up, and a message of one too late."""
    repaired = await connection.open_channel(fec=0.5, ordered=False, priority=-1)
    await repaired.send_many(PROTECTED_MESSAGES)
    for _ in PROTECTED_MESSAGES:
        await repaired.recv()
    await repaired.close()
    late = await connection.open_channel(deadline=1e-6)
    await late.send_many(LATE_MESSAGES)
    await late.close()
    given_up = await connection.open_channel(resend=False)
    given_up.reset(79)
    for _ in range(CHANNELS - 3):
        async with connection.open_channel() as channel:
            await channel.send(LAST_MESSAGE)
            await channel.recv()


async def caller(folder: str, cipher: str, ticket: str) -> None:
    async with interpeer.Node(listen="0.0.0.0:0", config=config(folder, cipher)) as node:
        async with node.connect(ticket) as connection:
            stream = await connection.open_stream()
            await stream.write(bytes(STREAM_BYTES))
            await stream.finish()
            assert len(await stream.read()) == STREAM_BYTES
            (await connection.open_stream()).reset(77)
            (await connection.open_stream()).stop(78)
            connection.send_datagrams([b"datagram %d" % i for i in range(DATAGRAMS)])
            assert await connection.recv_datagram() == b"all of them"
            await use_channels(connection)
            await connection.migrate(f"127.0.0.2:{connection.path.remote.port}")
            while not connection.stats().rekeys:
                async with connection.open_stream() as late_stream:  # until its end is acknowledged, which takes its time
                    await late_stream.write(b"still there?")
            await connection.close(7, "that is all")


def capture(wire: socket.socket, path: str, over: threading.Event) -> None:
    """Write what goes over the wire to a file, until there is nothing more and it is over."""
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 1))
        number = 0
        while True:
            try:
                frame, where = wire.recvfrom(1 << 18)
            except TimeoutError:
                if over.is_set():
                    return
                continue
            if where[2] == PACKET_OUTGOING:
                number += 1
                file.write(struct.pack("<IIII", number // 1000, number % 1000, len(frame), len(frame)) + frame)


def main(folder: str, cipher: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    wire.bind(("lo", 0))
    wire.settimeout(0.2)
    over = threading.Event()
    reader = threading.Thread(target=capture, args=(wire, f"{folder}/capture.pcap", over))
    reader.start()
    command = [sys.executable, __file__, folder, cipher]
    try:
        with subprocess.Popen([*command, "callee"], stdout=subprocess.PIPE, text=True) as one:
            assert one.stdout is not None
            ticket = one.stdout.readline().strip()
            subprocess.run([*command, "caller", ticket], check=True, timeout=60)
            assert one.wait(60) == 0
    finally:
        over.set()
        reader.join()
        wire.close()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        Path(sys.argv[1]).mkdir(exist_ok=True)
        os.chdir(sys.argv[1])
        main(*sys.argv[1:])
    elif sys.argv[3] == "callee":
        asyncio.run(callee(*sys.argv[1:3]))
    else:
        asyncio.run(caller(*sys.argv[1:3], sys.argv[4]))
