"""Files over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading

import pytest

import interpeer
from interpeer import _files


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(hashlib.shake_128(b"file").digest(3_000_001))
    return path


def test_a_file_arrives_and_replaces_the_old_one(run, pair, source, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"old")

    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            receiving = asyncio.ensure_future(peer.recv_file(target))
            assert await stream.send_file(source) == 3_000_001
            assert await receiving == 3_000_001

    run(main())
    assert target.read_bytes() == source.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source", "target"]


def test_an_empty_file(run, pair, tmp_path):
    (tmp_path / "empty").touch()

    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            receiving = asyncio.ensure_future(peer.recv_file(tmp_path / "copy"))
            await stream.send_file(tmp_path / "empty")
            assert await receiving == 0

    run(main())
    assert (tmp_path / "copy").read_bytes() == b""


DIGEST_OF_HELLO = hashlib.blake2b(b"hello", digest_size=32).digest()


def damaged(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", interpeer.ProtocolError),
        (b"IPF1" + (5).to_bytes(8, "big") + b"hel", interpeer.ProtocolError),
        (b"IPF1" + (5).to_bytes(8, "big") + b"hello" + bytes(32), interpeer.ProtocolError),
        (b"IPF1" + (5).to_bytes(8, "big") + b"hello" + damaged(DIGEST_OF_HELLO), interpeer.ProtocolError),
        (b"IPF1" + (1 << 62).to_bytes(8, "big"), ValueError),
    ],
)
def test_what_is_wrong_is_refused_and_leaves_nothing_behind(run, pair, tmp_path, sent, error):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            await stream.write(sent)
            await stream.finish()
            with pytest.raises(error):
                await peer.recv_file(tmp_path / "target", max_bytes=1000)

    run(main())
    assert list(tmp_path.iterdir()) == []


def test_a_cancelled_receiver_leaves_nothing_behind(run, pair, source, tmp_path):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            await stream.write(b"IPF1" + (1000).to_bytes(8, "big") + b"some of it")
            task = asyncio.ensure_future(peer.recv_file(tmp_path / "target"))
            await asyncio.sleep(0)
            while p.ba.stats().data_received < 22:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(interpeer.StreamReset):
                while True:
                    await stream.write(bytes(1000))

    run(main())
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.row("F3")
def test_a_missing_source_or_folder_is_an_oserror(run, pair, tmp_path):
    async def main():
        async with pair() as p:
            stream, peer = await p.streams()
            with pytest.raises(FileNotFoundError):
                await stream.send_file(tmp_path / "nothing")
            with pytest.raises(FileNotFoundError):
                await peer.recv_file(tmp_path / "no" / "folder")

    run(main())
    assert not os.listdir(tmp_path)


def never_written(path):
    """What a FIFO would wait for."""
    os.mkfifo(path)
    return path


@pytest.mark.skipif(os.name != "posix", reason="Windows has no FIFO in its file system")
def test_what_is_no_plain_file_is_not_sent(run, pair, tmp_path):
    async def main():
        async with pair() as p:
            for path, error in [
                (never_written(tmp_path / "fifo"), OSError),
                (tmp_path, IsADirectoryError),
                ("/dev/zero", OSError),
                (0, TypeError),
            ]:
                stream, _ = await p.streams()
                with pytest.raises(error):
                    await stream.send_file(path)

    run(main())


@pytest.mark.skipif(os.name != "posix", reason="Windows has neither of these")
def test_what_exists_and_is_no_plain_file_is_refused_before_anything_comes(run, pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    never_written(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    before = sorted(tmp_path.iterdir())

    async def main():
        async with pair() as p:
            for place in ("fifo", "folder", "folder/", "link", "", ".", "..", "folder/."):
                _, peer = await p.streams()
                with pytest.raises(OSError):
                    await peer.recv_file(place)
                with pytest.raises(interpeer.ClosedError):
                    await peer.read()
            _, peer = await p.streams()
            with pytest.raises(TypeError):
                await peer.recv_file(1)

    run(main())
    assert sorted(tmp_path.iterdir()) == before


async def move(p, source, target):
    stream, peer = await p.streams()
    async with asyncio.TaskGroup() as group:
        group.create_task(stream.send_file(source))
        group.create_task(peer.recv_file(target))


@pytest.mark.skipif(os.name != "posix", reason="Windows has no modes")
def test_a_received_file_has_the_mode_of_any_new_one_or_of_the_old(run, pair, source, tmp_path):
    new, old, usual = tmp_path / ("n" * 255), tmp_path / "old", tmp_path / "usual"
    usual.touch()
    old.touch()
    old.chmod(0o640)

    async def main():
        async with pair() as p:
            await move(p, source, new)
            await move(p, source, old)

    run(main())
    assert new.stat().st_mode == usual.stat().st_mode
    assert old.stat().st_mode & 0o777 == 0o640 and old.read_bytes() == source.read_bytes()


def test_a_sender_cancelled_while_it_opens_the_file_closes_it(run, pair, source, monkeypatch):
    opened, go_on = [], threading.Event()
    really_open = _files._open

    def open_slowly(name):
        opened.append(really_open(name))
        go_on.wait()
        return opened[0]

    monkeypatch.setattr(_files, "_open", open_slowly)

    async def main():
        async with pair() as p:
            stream, _ = await p.streams()
            task = asyncio.ensure_future(stream.send_file(source))
            while not opened:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            go_on.set()
            while not opened[0].closed:
                await asyncio.sleep(0)

    run(main())
