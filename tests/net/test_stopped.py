"""Processes that are stopped, by SIGSTOP as by a debugger or a job's control, and go on: nothing is lost."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from interpeer import Node

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="only POSIX systems stop a process")
STOPPED_S = 3.0
"""Longer than the longest pause between two probes."""
PIECE = bytes(range(256)) * 256
COUNT = 512
"""Pieces each way: 32 MiB, which takes longer than it takes to stop a process."""
END = """
import asyncio, hashlib, sys, interpeer

async def main():
    async with interpeer.Node(listen="127.0.0.1:0") as node:
        print(node.address, flush=True)
        connection = await node.accept()
        stream = await connection.accept_stream()
        digest = hashlib.blake2b()
        async for chunk in stream:
            digest.update(chunk)
            await stream.write(chunk)
        await stream.finish()
        print(digest.hexdigest(), flush=True)
        await connection.wait_closed()

asyncio.run(main())
"""


def wait_until_stopped(pid):
    """Return when the system says that it is: waitid, for a child that is not ours to reap."""
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED)


@pytest.mark.row("M2")
def test_a_process_that_is_stopped_in_the_middle_of_a_transfer_goes_on_and_nothing_is_lost():
    """It echoes what it gets, so it is sender and receiver; what comes while it is stopped fills its socket."""

    async def talk(ticket, process):
        async with Node(listen="127.0.0.1:0") as node, node.connect(ticket) as connection:
            stream = await connection.open_stream()
            sent, received = hashlib.blake2b(), hashlib.blake2b()
            has_half = asyncio.Event()

            async def send():
                for i in range(COUNT):
                    piece = i.to_bytes(4, "big") + PIECE
                    sent.update(piece)
                    await stream.write(piece)
                await stream.finish()

            async def receive():
                count = 0
                async for chunk in stream:
                    received.update(chunk)
                    count += len(chunk)
                    if count > COUNT * len(PIECE) // 2:
                        has_half.set()

            async def stop():
                await has_half.wait()
                process.send_signal(signal.SIGSTOP)
                await asyncio.to_thread(wait_until_stopped, process.pid)
                loop = asyncio.get_running_loop()
                loop.call_later(STOPPED_S, process.send_signal, signal.SIGCONT)

            async with asyncio.TaskGroup() as tasks:
                for part in (send, receive, stop):
                    tasks.create_task(part())
            assert connection.is_open
            return sent.hexdigest(), received.hexdigest()

    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2] / "src"), *filter(None, sys.path)])}
    command = [sys.executable, "-c", END]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        try:
            sent, received = asyncio.run(asyncio.wait_for(talk(process.stdout.readline().strip(), process), 60))
            assert process.stdout.readline().strip() == sent == received
            assert process.wait(30) == 0
        finally:
            process.kill()
