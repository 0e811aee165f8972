"""The path's MTU over the system's own links: loopback, and pairs of interfaces whose MTU changes (docs/spec, chapter 15)."""

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from interpeer import Config, Node

ENDS = Path(__file__).with_name("path_mtu_ends.py")
spec = importlib.util.spec_from_file_location("namespaces", ENDS.with_name("namespaces.py"))
namespaces = importlib.util.module_from_spec(spec)
spec.loader.exec_module(namespaces)

needs_namespaces = pytest.mark.skipif(not namespaces.are_available(), reason="needs unshare and ip, and the right to use them")
MB = 1 << 20
MOST_ROUNDS = 200


def run_case(name, *, disable=""):
    """Carry out a case in fresh namespaces and return what it saw; everything that was sent has arrived."""
    path = os.pathsep.join([str(ENDS.parents[2] / "src"), str(ENDS.parent)])
    command = [*namespaces.UNSHARE, sys.executable, str(ENDS), name, disable]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["arrived"] == seen["sent"]
    return seen


@needs_namespaces
@pytest.mark.row("C9", "N12")
def test_jumbo_frames_are_used_and_a_smaller_mtu_of_the_own_interface_is_respected_at_once():
    seen = run_case("jumbo")
    assert seen["found"][0] == 8972 and seen["found"][1] == 1472 and 1236 - 16 < seen["found"][2] <= 1252
    assert seen["counters"]["mtu_black_holes"] >= 2 and seen["counters"]["too_big"] > 0


@needs_namespaces
@pytest.mark.row("C9")
def test_a_link_whose_far_end_takes_less_is_a_black_hole():
    seen = run_case("hole", disable="gso")  # what is cut behind the far interface would pass it
    assert seen["found"][0] == 1472 and seen["found"][1] < 1280
    assert seen["counters"]["mtu_black_holes"] >= 1


@needs_namespaces
@pytest.mark.row("C9")
def test_cve_2024_53259_forged_packet_too_big():
    seen = run_case("forged")
    assert "mtu" in seen["route"], "the system believes it"
    assert seen["found"] == [1472] * 5
    assert seen["counters"]["mtu_black_holes"] == 0


@pytest.mark.parametrize(("address", "most"), [("127.0.0.1", 65_507), ("[::1]", 65_488)])
def test_loopback_carries_the_largest_packets_there_are(address, most):
    async def main():
        config = Config(max_datagram_bytes=65_507)
        async with Node(listen=f"{address}:0", config=config) as a, Node(listen=f"{address}:0", config=config) as b:
            async with a.connect(b.address) as here:
                there = await b.accept()
                here_stream = await here.open_stream()
                stream = await there.accept_stream()
                data, rounds = os.urandom(MB), 0
                while here.stats().packet_bytes < most and rounds < MOST_ROUNDS:
                    rounds += 1
                    writing = asyncio.create_task(here_stream.write(data))
                    assert await stream.readexactly(MB) == data
                    await writing
                assert here.stats().packet_bytes == most
                message = os.urandom(here.max_datagram_bytes)
                assert len(message) > 65_000 and here.send_datagram(message)
                assert await there.recv_datagram() == message

    asyncio.run(main())
