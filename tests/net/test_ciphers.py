"""Every cipher carries a whole connection, and peers whose libraries differ agree on one that both have."""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import interpeer
from interpeer._core import control

CIPHERS = interpeer.Config().ciphers
OLD_CIPHERS = [name for name in ("aes-256-gcm", "chacha20-poly1305") if name in control.available_suites()]
DATA = hashlib.shake_128(b"ciphers").digest(600_000)


async def exchange(here: interpeer.Connection, there: interpeer.Connection) -> None:
    """Move data both ways, on a stream and in a datagram."""
    stream = await here.open_stream()
    peer = await there.accept_stream()

    async def echo() -> None:
        while piece := await peer.read(100_000):
            await peer.write(piece)
        await peer.finish()

    echoing = asyncio.ensure_future(echo())
    reading = asyncio.ensure_future(stream.read())
    await stream.write(DATA)
    await stream.finish()
    assert await reading == DATA
    await echoing
    here.send_datagram(b"a datagram")
    assert await there.recv_datagram() == b"a datagram"


@pytest.mark.parametrize("cipher", CIPHERS)
def test_every_cipher_carries_a_connection_through_updates_of_its_keys(run, pair, cipher):
    if cipher not in control.available_suites():
        pytest.skip(f"{cipher} is not available here")

    async def main():
        async with pair(ciphers=(cipher,), key_update_packets=100) as p:
            assert p.ab.cipher == p.ba.cipher == cipher
            await exchange(p.ab, p.ba)
            counters = p.a.counters(), p.b.counters()
            assert all(count["dropped_forged"] == 0 for count in counters)

    run(main())


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (("chacha20-poly1305", "aes-256-gcm"), ("aes-256-gcm", "chacha20-poly1305"), "chacha20-poly1305"),
        (CIPHERS, ("chacha20-poly1305",), "chacha20-poly1305"),
        (("chacha20-poly1305",), CIPHERS, "chacha20-poly1305"),
    ],
)
def test_the_callers_preference_decides_among_what_both_have(ours, theirs, expected):
    async def main():
        async with (
            asyncio.timeout(30),
            interpeer.Node(listen="127.0.0.1:0", config=interpeer.Config(ciphers=ours)) as a,
            interpeer.Node(listen="127.0.0.1:0", config=interpeer.Config(ciphers=theirs)) as b,
        ):
            connection, other = await asyncio.gather(a.connect(b.address), b.accept())
            assert connection.cipher == other.cipher == expected

    asyncio.run(main())


def test_without_a_cipher_in_common_the_call_is_refused():
    if len(control.available_suites()) < 2:
        pytest.skip("there is only one cipher here")

    async def main():
        first, second = control.available_suites()[:2]
        async with (
            asyncio.timeout(30),
            interpeer.Node(listen="127.0.0.1:0", config=interpeer.Config(ciphers=(first,))) as a,
            interpeer.Node(listen="127.0.0.1:0", config=interpeer.Config(ciphers=(second,))) as b,
        ):
            with pytest.raises(interpeer.Refused, match="no cipher in common"):
                await a.connect(b.address)

    asyncio.run(main())


# --- an older libsodium, in a process of its own ---

ALONE = """
import asyncio, interpeer
from interpeer import _sodium
from interpeer._core import control

async def main(cipher):
    async with asyncio.timeout(30), interpeer.Node(listen="127.0.0.1:0", config=interpeer.Config(ciphers=(cipher,))) as a, \\
            interpeer.Node(listen="127.0.0.1:0") as b:
        connection, other = await asyncio.gather(a.connect(b.address), b.accept())
        stream = await connection.open_stream()
        writing = asyncio.ensure_future(stream.write(bytes(300_000)))
        peer = await other.accept_stream()
        assert await peer.readexactly(300_000) == bytes(300_000)
        await writing
        print(connection.cipher, other.cipher)

print(_sodium.version(), _sodium.sodium().origin)
print(*control.available_suites())
for cipher in control.available_suites():
    asyncio.run(main(cipher))
try:
    asyncio.run(main("aegis-256"))
except ValueError as error:
    print(error)
"""

PEER = """
import asyncio, sys, interpeer

async def main():
    async with asyncio.timeout(30), interpeer.Node(listen="127.0.0.1:0") as node:
        if len(sys.argv) > 1:
            connection = await node.connect(sys.argv[1])
        else:
            print(node.address, flush=True)
            connection = await node.accept()
        print(connection.cipher, flush=True)
        async for stream in connection.streams():
            await stream.write(await stream.read())
            await stream.finish()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def old_libsodium() -> str:
    """The file of a libsodium without AEGIS."""

    class Mapping(ctypes.Structure):
        _fields_ = [("l_addr", ctypes.c_void_p), ("l_name", ctypes.c_char_p)]

    try:
        library = ctypes.CDLL("libsodium.so.23")
    except OSError:
        pytest.skip("not installed: libsodium.so.23 (./run test --system does that, on Debian and Ubuntu)")
    if hasattr(library, "crypto_aead_aegis256_encrypt"):
        pytest.skip("the system's libsodium has AEGIS")
    pointer = ctypes.cast(library._handle, ctypes.POINTER(Mapping))  # glibc's handle is the link map, which knows the path
    return os.path.realpath(os.fsdecode(pointer.contents.l_name))


def environment(libsodium: str) -> dict[str, str]:
    return {**os.environ, "INTERPEER_LIBSODIUM": libsodium, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@contextmanager
def peer_process(libsodium: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run PEER with that library."""
    command = [sys.executable, "-c", PEER, *arguments]
    with subprocess.Popen(command, env=environment(libsodium), stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return (await asyncio.to_thread(process.stdout.readline)).strip()


async def echo(connection: interpeer.Connection) -> None:
    async with connection.open_stream() as stream:
        reading = asyncio.ensure_future(stream.read())
        await stream.write(DATA)
        await stream.finish()
        assert await reading == DATA


@pytest.mark.system
def test_an_old_libsodium_has_every_cipher_but_aegis(old_libsodium):
    done = subprocess.run(
        [sys.executable, "-c", ALONE], env=environment(old_libsodium), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    head, available, *connections, refusal = done.stdout.splitlines()
    version, origin = head.split()
    assert version == "1.0.18" and origin == "environment"
    assert sorted(available.split()) == sorted(OLD_CIPHERS)
    assert connections == [f"{cipher} {cipher}" for cipher in available.split()]
    assert "none of these ciphers is available here: aegis-256" in refusal


@pytest.mark.system
@pytest.mark.parametrize("who_calls", ["the old one", "the new one"])
def test_an_old_and_a_new_libsodium_agree_on_a_cipher(old_libsodium, who_calls):
    async def main():
        async with asyncio.timeout(30), interpeer.Node(listen="127.0.0.1:0") as node:
            if who_calls == "the old one":
                with peer_process(old_libsodium, str(node.address)) as process:
                    connection = await node.accept()
                    assert connection.cipher == await line(process) == OLD_CIPHERS[0]
                    await echo(connection)
            else:
                with peer_process(old_libsodium) as process:
                    connection = await node.connect(await line(process))
                    assert connection.cipher == await line(process) == OLD_CIPHERS[0]
                    await echo(connection)

    if "aegis-256" not in control.available_suites():
        pytest.skip("this process has no AEGIS either")
    asyncio.run(main())
