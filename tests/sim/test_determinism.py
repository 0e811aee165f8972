"""The same seed is the same run, to the last bit of the last packet; another seed is another one."""

import asyncio
import contextlib
import os
import subprocess
import sys

import interpeer
from interpeer.testing import Link, SimNet, run

EVERYTHING = Link(
    delay_s=0.02, jitter_s=0.005, rate_bit_per_s=10e6, queue_packets=25, loss=0.05, reorder=0.05, reorder_s=0.01,
    duplicate=0.05, corrupt=0.02, ecn_mark_bytes=15_000,
)  # fmt: skip


async def program(names=("alice", "bob", "carol")):
    """Have some nodes call each other at once and talk; return the digest of all packets."""
    net = SimNet(EVERYTHING)

    async def answer(connection):
        async for stream in connection.streams():
            with contextlib.suppress(interpeer.NetworkError, interpeer.ClosedError):
                await stream.write(await stream.read())
                await stream.finish()

    async def serve(node, group):
        async for connection in node.incoming():
            group.create_task(answer(connection))

    async def live(node, others):
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(serve(node, group))
            connections = await asyncio.gather(*(node.connect(other.address) for other in others if other is not node))
            for connection in connections:
                stream = await connection.open_stream()
                with contextlib.suppress(TimeoutError, interpeer.NetworkError):
                    async with asyncio.timeout(5), stream:
                        await stream.write(bytes(30_000))
                        await stream.finish()
                        await stream.read()
            await asyncio.sleep(10)
            serving.cancel()
            await node.close()

    nodes = [net.host(name).node() for name in names]
    for node in nodes:
        await node.__aenter__()
    async with asyncio.TaskGroup() as group:
        for node in nodes:
            group.create_task(live(node, nodes))
    return net.digest(), net.clock.now_ns


def test_twenty_runs_with_one_seed_are_one_run(sim):
    assert len({sim.run(program()) for _ in range(20)}) == 1


def test_other_seeds_are_other_runs(sim):
    assert len({sim.run(program(), seed=sim.seed + n) for n in range(5)}) == 5


def test_another_process_with_other_hashes_does_the_same(root):
    """Neither addresses in memory nor the hashes of strings may make a difference."""
    script = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from tests.sim.test_determinism import program, run\n"
        "print(run(program(), seed=5))"
    )
    outputs = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
        outputs.add(done.stdout)
    assert outputs == {f"{run(program(), seed=5)}\n"}
