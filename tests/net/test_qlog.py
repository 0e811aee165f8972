"""qlog and the key log on real sockets, under every driver: written on a thread, and whole when the node is closed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest

from interpeer import _tracer
from tests.net.session import DATAGRAMS


def events(path):
    return [json.loads(record) for record in path.read_text().split("\x1e")[2:]]


def test_both_ends_agree_and_nothing_is_missing(run, pair, tmp_path):
    async def main():
        async with pair(qlog_dir=tmp_path / "qlog", key_log=tmp_path / "keys") as p:
            stream, accepted = await p.streams()
            await asyncio.gather(stream.write(bytes(2_000_000)), accepted.readexactly(2_000_000))
            sent = p.ab.stats().packets_sent
            await p.ab.close()
            await p.ba.wait_closed()
        counters = p.a.counters()
        return sent, {name: counters[name] for name in counters if name.startswith(("trace", "key_log"))}

    sent, troubles = run(main())
    assert set(troubles.values()) == {0}
    (caller,) = (tmp_path / "qlog").glob("*_initiator.sqlog")
    (callee,) = (tmp_path / "qlog").glob("*_responder.sqlog")
    numbers = [e["data"]["header"]["packet_number"] for e in events(caller) if e["name"] == "transport:packet_sent"]
    assert len(numbers) >= sent and numbers == sorted(set(numbers))
    came = {e["data"]["header"]["packet_number"] for e in events(callee) if e["name"] == "transport:packet_received"}
    assert came <= set(numbers)
    assert len((tmp_path / "keys").read_text().splitlines()) == 1 + 4


def test_the_file_grows_while_the_connection_lives(run, pair, tmp_path, monkeypatch):
    monkeypatch.setattr(_tracer, "COLLECT_S", 0.05)

    async def main():
        async with pair(qlog_dir=tmp_path) as p:
            p.ab.send_datagram(b"seen soon")
            await p.ba.recv_datagram()
            while not any('"datagram","length":9' in path.read_text() for path in tmp_path.glob("*_responder.sqlog")):
                await asyncio.sleep(0)

    run(main())


def test_the_keys_are_there_before_the_caller_goes_on(run, pair, tmp_path):
    async def main():
        async with pair(key_log=tmp_path / "keys"):
            return (tmp_path / "keys").read_text()

    assert run(main()).count("INTERPEER_SECRET") == 4


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps who may read a file elsewhere")
def test_a_process_that_is_killed_leaves_what_it_has_told(tmp_path):
    """Not even the last second is needed: whatever was collected has gone to the system at once."""
    program = f"""
import asyncio, os, sys
import interpeer
from tests.net.session import DATAGRAMS

async def main():
    config = interpeer.Config(qlog_dir={str(tmp_path)!r})
    async with interpeer.Node(listen="127.0.0.1:0", config=config) as a, interpeer.Node(listen="127.0.0.1:0") as b:
        async with a.connect(b.address) as connection:
            accepted = await b.accept()
            for i in range(DATAGRAMS):
                connection.send_datagram(bytes(100 + i))
                await accepted.recv_datagram()
            next(iter(a._tracers.values())).collect()
            while not any(
                '"length":%d}}' % (99 + DATAGRAMS) in open(os.path.join({str(tmp_path)!r}, name)).read()
                for name in os.listdir({str(tmp_path)!r})
            ):
                await asyncio.sleep(0)
            os.kill(os.getpid(), 9)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == -9, done.stderr
    (file,) = tmp_path.iterdir()
    lengths = [f["length"] for e in events(file) for f in e["data"].get("frames", ()) if f["frame_type"] == "datagram"]
    assert lengths == list(range(100, 100 + DATAGRAMS))
