"""`send` and `recv` between real processes: what arrives, what resumes after a kill, what is refused, what is told."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import stat
import sys
import threading

import pytest

import interpeer
from interpeer._transfer import protocol as p
from interpeer._transfer.store import Store

LOOPBACK = ("--listen", "127.0.0.1:0")
CHUNK = p.CHUNK_BYTES


@pytest.fixture
def offer(cli):
    """A function that starts `send`; it returns the command and its ticket."""

    def start(*words):
        command = cli.start("send", *words, *LOOPBACK)
        return command, command.event("ready")["ticket"]

    return start


def recv(cli, ticket, folder, *words):
    """Receive; return the exit code and the last object that was printed."""
    done = cli.run("recv", ticket, "-o", folder, *LOOPBACK, "--json", *words)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def write_random(path, size, seed):
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


def tree(folder):
    """Return what is in a folder: the content of files by their paths, and None for folders."""
    found = {}
    for path in folder.rglob("*"):
        found[os.fsencode(path.relative_to(folder))] = path.read_bytes() if path.is_file() else None
    return found


def test_folder_with_odd_names_arrives_whole(cli, offer, tmp_path):
    folder = tmp_path / "what is sent"
    (folder / "empty folder" / "ü").mkdir(parents=True)
    (folder / "empty").write_bytes(b"")
    (folder / ".hidden").write_text("dot")
    (folder / "exactly a chunk").write_bytes(bytes(CHUNK))
    (folder / "new\nline \t' \" $HOME ; * ? -rf").write_text("odd")
    (folder / ("n" * 255)).write_text("long")
    (folder / "日本 🎉 e\u0301").write_text("unicode as it is")
    (folder / "script").write_text("#!/bin/sh\n")
    (folder / "script").chmod(0o755)
    os.utime(folder / "script", ns=(0, 1_234_567_890_123_456_789))
    if sys.platform == "linux":
        (folder / os.fsdecode(b"not UTF-8 \xff\xfe")).write_text("bytes")
    _, ticket = offer(folder)
    code, last = recv(cli, ticket, tmp_path / "out")
    assert (code, last["ok"], last["resumed_bytes"]) == (0, True, 0)
    assert tree(tmp_path / "out") == {
        b"what is sent": None, **{b"what is sent/" + name: content for name, content in tree(folder).items()}
    }  # fmt: skip
    script = (tmp_path / "out" / folder.name / "script").stat()
    assert script.st_mode & stat.S_IXUSR and script.st_mtime_ns == 1_234_567_890_123_456_789
    assert not (tmp_path / "out" / folder.name / "empty").stat().st_mode & stat.S_IXUSR


def test_links_are_followed_within_the_folder_and_left_out_beyond(cli, tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "file").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    (folder / "sub" / "inside").symlink_to("../file")
    (folder / "sub" / "outside").symlink_to(tmp_path / "secret")
    (folder / "sub" / "up").symlink_to("../..")
    (folder / "sub" / "loop").symlink_to("..")
    (folder / "sub" / "nowhere").symlink_to("nothing")
    os.mkfifo(folder / "fifo")
    command = cli.start("send", folder, *LOOPBACK)
    ready = command.event("ready")
    assert sorted(os.path.basename(line.partition(": ")[0]) for line in ready["left_out"]) == [
        "fifo", "loop", "nowhere", "outside", "up",
    ]  # fmt: skip
    assert recv(cli, ready["ticket"], tmp_path / "out")[0] == 0
    received = tmp_path / "out" / "folder"
    assert tree(received) == {b"file": b"inside", b"sub": None, b"sub/inside": b"inside"}
    assert not (received / "sub" / "inside").is_symlink()


def test_events_of_both_sides_tell_the_same(cli, offer, tmp_path, seed):
    size = 3 * CHUNK + 5
    command, ticket = offer(write_random(tmp_path / "file", size, seed), "--once")
    code, last = recv(cli, ticket, tmp_path / "out")
    assert code == 0
    assert last.pop("seconds") > 0
    assert last == {
        "event": "done", "ok": True, "bytes": size, "path": "lan", "resumed_bytes": 0, "files": 1, "reasons": [],
    }  # fmt: skip
    sent = command.event("sent")
    assert (sent["ok"], sent["bytes"], sent["path"], sent["resumed_bytes"]) == (True, size, "lan", 0)
    assert command.process.wait() == 0


def test_people_are_told_what_came_and_how(cli, offer, tmp_path):
    (tmp_path / "file").write_bytes(bytes(2_000_000))
    _, ticket = offer(tmp_path / "file")
    done = cli.run("recv", ticket, "-o", tmp_path / "out", *LOOPBACK)
    assert done.returncode == 0 and done.stdout == ""
    assert "receiving 1 file, 2 MB" in done.stderr and "received 2 MB in" in done.stderr and "lan 127.0.0.1" in done.stderr


def test_receiver_killed_in_the_middle_resumes(cli, offer, tmp_path, seed):
    size, out = 64 * CHUNK + 17, tmp_path / "out"
    file = write_random(tmp_path / "file", size, seed)
    _, ticket = offer(file)
    first = cli.start("recv", ticket, "-o", out, *LOOPBACK)
    first.event("receiving")
    while not (parts := [path for path in out.rglob("*.part") if path.stat().st_size > 2 * CHUNK]):
        assert first.process.poll() is None
    assert first.interrupt(signal.SIGKILL) == -signal.SIGKILL
    assert not (out / "file").exists()
    there = parts[0].stat().st_size
    assert 2 * CHUNK < there < size
    code, last = recv(cli, ticket, out)
    assert code == 0 and last["bytes"] == size and last["resumed_bytes"] == there // CHUNK * CHUNK
    assert (out / "file").read_bytes() == file.read_bytes()
    assert os.listdir(out) == ["file"]


def test_sender_that_comes_back_is_resumed_from(cli, tmp_path, seed):
    size, out = 64 * CHUNK, tmp_path / "out"
    file = write_random(tmp_path / "file", size, seed)
    first = cli.start("send", file, *LOOPBACK)
    receiver = cli.start("recv", first.event("ready")["ticket"], "-o", out, *LOOPBACK)
    receiver.event("receiving")
    while not [path for path in out.rglob("*.part") if path.stat().st_size > 2 * CHUNK]:
        assert receiver.process.poll() is None
    assert first.interrupt() == 130
    last = receiver.rest()[-1]
    assert receiver.process.wait() == 1 and last["ok"] is False and "has ended it" in last["error"]
    second = cli.start("send", file, *LOOPBACK)
    code, last = recv(cli, second.event("ready")["ticket"], out)
    assert code == 0 and last["resumed_bytes"] >= 2 * CHUNK
    assert (out / "file").read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("damage", "good"),
    [
        (lambda there: there[: 2 * CHUNK + 5], 2),
        (lambda there: there[:CHUNK] + bytes([there[CHUNK] ^ 1]) + there[CHUNK + 1 :], 1),
        (lambda there: there + b"more than there should be", 4),
        (lambda there: bytes(len(there)), 0),
        (lambda there: b"", 0),
    ],
    ids=["cut within a chunk", "damaged in the second chunk", "too long", "other content", "empty"],
)
def test_only_what_is_right_of_an_earlier_attempt_is_kept(cli, offer, tmp_path, seed, damage, good):
    file, out = write_random(tmp_path / "file", 3 * CHUNK + 9, seed), tmp_path / "out"
    _, ticket = offer(file)
    store = Store(out)
    store.open()
    part = store._partial(p.Entry(p.FILE, 3 * CHUNK + 9, 0, "file"))
    with open(part, "wb") as written:
        written.write(damage(file.read_bytes()))
    code, last = recv(cli, ticket, out)
    assert code == 0, str(last)
    assert last["resumed_bytes"] == min(good * CHUNK, 3 * CHUNK + 9)
    assert (out / "file").read_bytes() == file.read_bytes()


def test_what_is_there_is_not_sent_again_and_not_replaced(cli, offer, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("same", "other", "longer"):
        (folder / name).write_text(f"content of {name}")
    out = tmp_path / "out"
    (out / "folder").mkdir(parents=True)
    (out / "folder" / "same").write_text("content of same")
    (out / "folder" / "other").write_text("CONTENT of other")
    (out / "folder" / "longer").write_text("content of longer, and more")
    _, ticket = offer(folder)
    code, last = recv(cli, ticket, out)
    assert code == 1 and last["ok"] is False and last["resumed_bytes"] == last["bytes"] == len("content of same")
    assert len(last["reasons"]) == 2 and all("move it away" in reason for reason in last["reasons"])
    assert (out / "folder" / "other").read_text() == "CONTENT of other"
    assert (out / "folder" / "longer").read_text() == "content of longer, and more"


def test_file_that_changed_since_it_was_offered_is_not_received(cli, offer, tmp_path):
    (tmp_path / "file").write_text("as it was")
    _, ticket = offer(tmp_path / "file")
    (tmp_path / "file").write_text("as it is now")
    code, last = recv(cli, ticket, tmp_path / "out")
    assert code == 1 and last["reasons"] == ["file: it has changed since it was offered"]
    assert tree(tmp_path / "out") == {}


def test_unauthorised_receivers_are_refused(cli, offer, tmp_path):
    (tmp_path / "file").write_text("private")
    command, ticket = offer(tmp_path / "file")
    address = interpeer.Address(ticket)
    for secret in (bytes(16), None):
        code, last = recv(cli, str(interpeer.Address.of(address.peer_id, address.endpoints, secret)), tmp_path / "out")
        assert code == 1 and "secret" in last["error"]
        command.event("refused")
    assert tree(tmp_path / "out") == {}


def test_allowed_receivers_need_no_secret(cli, offer, tmp_path):
    (tmp_path / "file").write_text("for one")
    allowed = cli.run("id", "--key", tmp_path / "key").stdout.strip()
    _, ticket = offer(tmp_path / "file", "--allow", allowed)
    assert recv(cli, ticket, tmp_path / "out", "--timeout", "0.5")[0] == 1
    assert recv(cli, ticket, tmp_path / "out", "--key", tmp_path / "key")[0] == 0


@pytest.mark.parametrize("words", [["nothing"], ["/"], ["file", "folder/file"]], ids=["missing", "root", "one name twice"])
def test_what_cannot_be_sent_is_told(cli, tmp_path, words):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("one")
    (tmp_path / "folder" / "file").write_text("two")
    done = cli.run("send", *words, *LOOPBACK, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1


@pytest.mark.row("F3")
def test_folder_that_cannot_be_written_is_told(cli, offer, tmp_path):
    (tmp_path / "file").write_text("data")
    _, ticket = offer(tmp_path / "file")
    done = cli.run("recv", ticket, "-o", tmp_path / "file" / "within", *LOOPBACK, "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told == {"event": "error", "ok": False, "error": f"{tmp_path}/file/within: Not a directory", "reasons": []}


def test_hidden_file_goes_only_into_a_folder_that_was_named(cli, offer, tmp_path):
    (tmp_path / ".profile").write_text("harm")
    _, ticket = offer(tmp_path / ".profile")
    done = cli.run("recv", ticket, *LOOPBACK, cwd=cli.home)
    assert done.returncode == 1 and "-o" in done.stderr and not (cli.home / ".profile").exists()
    assert recv(cli, ticket, tmp_path / "out")[0] == 0


# --- a sender that means harm ---


def hostile(cli, folder, say):
    """Receive from a sender of our own making, into a folder; `say` is what it writes, in parts, waiting for what it reads."""

    async def serve():
        async with interpeer.Node(listen="127.0.0.1:0", network="interpeer", protocols=(p.PROTOCOL,)) as node:
            command = [sys.executable, "-m", "interpeer", "recv", str(node.address), "-o", str(folder), *LOOPBACK, "--json"]
            child = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=cli.environ
            )
            connection = await node.accept()
            stream = await connection.accept_stream()
            await stream.readexactly(16)
            await say(stream)
            printed, said = await child.communicate()
            return child.returncode, json.loads(printed.splitlines()[-1]), said

    async def bounded():
        async with asyncio.timeout(30):
            return await serve()

    try:
        return asyncio.run(bounded())
    finally:
        for thread in threading.enumerate():
            if thread.name.startswith("asyncio-waitpid"):  # asyncio's, for the child: it has told us, and is about to end
                thread.join()


def listing(*entries):
    """Return a LISTING of (kind, size, name), nothing checked."""
    body = b"".join(p._ENTRY.pack(kind, size, 0, len(name)) + name for kind, size, name in entries)
    return p.LISTING_HEAD.pack(len(entries), len(body)) + body


@pytest.mark.row("F7")
@pytest.mark.parametrize("name", [b"../outside", b"/etc/outside", b"nul\0outside"])
def test_names_that_lead_elsewhere_are_refused_before_anything_is_written(cli, tmp_path, name):
    async def say(stream):
        await stream.write(listing((p.FILE, 3, name)))

    code, last, said = hostile(cli, tmp_path / "out" / "deep", say)
    assert code == 1 and last["ok"] is False and "name that is not taken" in last["error"] and said == b""
    assert tree(tmp_path) == {b"home": None, **homes(tmp_path), b"out": None, b"out/deep": None}


def homes(tmp_path):
    return {b"home/" + name: content for name, content in tree(tmp_path / "home").items()}


@pytest.mark.row("F7")
@pytest.mark.parametrize(
    "entry", [(p.FILE, 5, b"link/file"), (p.FILE, 3, b"link/new"), (p.FOLDER, 0, b"link")], ids=["old", "new", "folder"]
)
def test_link_in_the_folder_leads_nobody_out_of_it(cli, tmp_path, entry):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("known")  # whose digest is nobody's business
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "outside")

    async def say(stream):
        await stream.write(listing(entry))
        if entry[0] == p.FILE:
            assert await stream.readexactly(1 + p.DONE_REST_BYTES) == p.write_done(1)

    code, last, _ = hostile(cli, tmp_path / "out", say)
    assert code == 1 and last["ok"] is False and "not a folder" in last["error"]
    assert os.listdir(tmp_path / "outside") == ["file"]


@pytest.mark.row("F7")
def test_link_in_the_place_of_a_partial_file_is_not_written_through(cli, offer, tmp_path):
    (tmp_path / "file").write_text("new content")
    (tmp_path / "victim").write_text("old content")
    store = Store(tmp_path / "out")
    store.open()
    os.symlink(tmp_path / "victim", store._partial(p.Entry(p.FILE, 11, 0, "file")))
    _, ticket = offer(tmp_path / "file")
    code, last = recv(cli, ticket, tmp_path / "out")
    assert code == 1 and last["ok"] is False
    assert (tmp_path / "victim").read_text() == "old content"


def test_wrong_digest_is_found_and_the_file_does_not_appear(cli, tmp_path):
    async def say(stream):
        await stream.write(listing((p.FILE, 3, b"file")))
        await stream.readexactly(1 + p.REQUEST_REST_BYTES)
        await stream.write(p.write_found(0, 0) + p.write_chunk_header(bytes(32)) + b"abc")

    code, last, _ = hostile(cli, tmp_path / "out", say)
    assert code == 1 and "does not match its digest" in last["error"]
    assert not (tmp_path / "out" / "file").exists()


@pytest.mark.parametrize(
    "answer",
    [b"\x09" + bytes(32), p.write_found(1, 0), p.write_found(0, 1), p.write_chunk_header(bytes(32))],
    ids=["unknown kind", "another file", "more right than shown", "a chunk before its file"],
)
def test_answer_that_makes_no_sense_ends_the_transfer(cli, tmp_path, answer):
    async def say(stream):
        await stream.write(listing((p.FILE, 3, b"file")))
        await stream.readexactly(1 + p.REQUEST_REST_BYTES)
        await stream.write(answer)

    code, last, said = hostile(cli, tmp_path / "out", say)
    assert code == 1 and last["error"].startswith("the sender") and said == b""


@pytest.mark.parametrize("head", [b"\xff" * 8, b"\x00\x00\x00\x02\x00\x00\x00\x03"], ids=["endless", "impossible"])
def test_listing_that_is_too_long_is_refused_at_its_head(cli, tmp_path, head):
    async def say(stream):
        await stream.write(head)

    code, last, _ = hostile(cli, tmp_path / "out", say)
    assert code == 1 and "cannot be" in last["error"]


@pytest.mark.row("A11")
def test_names_cannot_write_to_the_terminal(cli, tmp_path):
    async def say(stream):
        await stream.write(listing((p.FILE, 1 << 40, b"\x1b[31mred\r\n\xff")))

    code, last, said = hostile(cli, tmp_path / "out", say)
    assert code == 1 and "no room" in last["error"] and b"\x1b" not in said


@pytest.mark.skipif(os.name != "posix", reason="Windows does not open folders")
def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    steps = []
    fsync, rename = os.fsync, os.rename

    def watched_fsync(descriptor):
        steps.append(os.path.basename(os.readlink(f"/dev/fd/{descriptor}")) if sys.platform == "linux" else "")
        fsync(descriptor)

    def watched_rename(source, target):
        steps.append("renamed")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    store = Store(tmp_path / "out")
    store.open()
    entry = p.Entry(p.FILE, 4, 0, "folder/one")
    store.look(entry)
    file = store.begin(entry, 0)
    file.write(b"data")
    store.complete(entry, file)
    assert (tmp_path / "out/folder/one").read_bytes() == b"data"
    assert steps[1] == "renamed" and len(steps) == 3
    if sys.platform == "linux":
        assert steps[0].endswith(".part") and steps[2] == "folder"
