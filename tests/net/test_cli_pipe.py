"""`ping` and `pipe` between real processes: both directions, half-close, who may come in, what is closed or lost."""

from __future__ import annotations

import io
import json
import os
import random
import socket
import subprocess
import sys
import tarfile

import pytest

import interpeer

LOOPBACK = ("--listen", "127.0.0.1:0")
LARGE = 3_000_017


@pytest.fixture
def listener(cli):
    """A function that starts a listening `pipe` whose input and output are pipes; it returns the command and its ticket."""

    def start(*words, **options):
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE} | options
        command = cli.start("pipe", *LOOPBACK, *words, events_on="stderr", **options)
        return command, command.event("ready")["ticket"]

    return start


def call(cli, ticket, data=b"", *words):
    command = [sys.executable, "-m", "interpeer", "pipe", ticket, *LOOPBACK, *words]
    return subprocess.run(command, input=data, capture_output=True, env=cli.environ, timeout=30, check=False)


def test_ping_tells_path_and_times(cli, listener):
    _, ticket = listener()
    done = cli.run("ping", ticket, "-c", "2", *LOOPBACK, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and done.stderr == ""
    assert told.keys() == {
        "ok", "id", "path", "detail", "connected_s", "first_byte_s", "direct_s", "rtt_ms", "lost", "reasons",
    }  # fmt: skip
    assert told["ok"] is True and told["path"] == "lan" and told["lost"] == 0 and told["reasons"] == []
    assert told["id"] == str(interpeer.Address(ticket).peer_id)
    assert 0 < told["direct_s"] == told["connected_s"] < told["first_byte_s"]
    assert 0 < told["rtt_ms"]["min"] <= told["rtt_ms"]["avg"] <= told["rtt_ms"]["max"]


def test_ping_by_address_with_an_id_is_told_to_people(cli, listener):
    _, ticket = listener()
    address = interpeer.Address(ticket)
    done = cli.run("ping", f"{address.peer_id}@{address.endpoints[0]}", "-c", "1", *LOOPBACK)
    assert done.returncode == 0
    assert done.stdout.startswith("1 sent, 1 answered, 0 lost; min/avg/max ")
    assert "reached in" in done.stderr and "lan" in done.stderr


@pytest.mark.row("A9")
def test_ping_of_nobody_says_what_was_tried(cli):
    somebody = interpeer.Identity.from_seed(bytes(32)).id
    done = cli.run("ping", f"{somebody}@127.0.0.1:9", "--timeout", "0.3", *LOOPBACK, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 1 and told["ok"] is False and told["path"] is None
    directly, by_a_peer = told["reasons"]
    assert "127.0.0.1:9" in directly and "name one with bootstrap" in by_a_peer


def test_ping_of_a_bare_id_says_that_it_has_no_address(cli):
    done = cli.run("ping", str(interpeer.Identity.from_seed(bytes(32)).id), "--timeout", "0.3", *LOOPBACK)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 2 and "no address" in done.stderr


def test_ping_says_why_it_goes_by_a_tunnel(cli, listener):
    _, ticket = listener("--tunnel", "tls://127.0.0.1:0")
    address = interpeer.Address(ticket)
    (tunnel,) = (one for one in address.endpoints if one.transport == "tls")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        at = interpeer.Endpoint(*deaf.getsockname())
        done = cli.run("ping", str(interpeer.Address.of(address.peer_id, [at, tunnel])), "-c", "1", *LOOPBACK)
    assert done.returncode == 0 and f"over TLS to {tunnel.host}:{tunnel.port}" in done.stderr
    assert done.stderr.splitlines()[-1] == f"not by UDP: {at}: no answer by UDP"


def test_other_network_is_not_heard(cli, listener):
    _, ticket = listener("--network", "mine")
    assert cli.run("ping", ticket, "--network", "mine", "-c", "1", *LOOPBACK).returncode == 0
    assert cli.run("ping", ticket, "--network", "yours", "--timeout", "0.3", *LOOPBACK).returncode == 1


def test_both_directions_and_large_data_arrive(cli, listener, seed):
    there, back = (random.Random(seed + i).randbytes(LARGE) for i in range(2))
    command, ticket = listener()
    with subprocess.Popen(
        [sys.executable, "-m", "interpeer", "pipe", ticket, *LOOPBACK],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli.environ,
    ) as caller:  # fmt: skip
        command.process.stdin.write(back)
        command.process.stdin.close()
        assert caller.stdout.read(LARGE) == back  # while our own direction is open
        caller.stdin.write(there)
        caller.stdin.close()
        assert command.process.stdout.read() == there
        assert caller.stdout.read() == b"" and caller.wait() == 0
        assert f"received {LARGE / 1e6:.0f} MB" in caller.stderr.read().decode()
    done = command.event("done")
    assert (done["ok"], done["sent"], done["received"], done["path"]) == (True, LARGE, LARGE, "lan")
    assert command.process.wait() == 0


def test_end_of_input_ends_one_direction_alone(cli, listener):
    command, ticket = listener()
    with subprocess.Popen(
        [sys.executable, "-m", "interpeer", "pipe", ticket, *LOOPBACK, "--wait", "inf"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=cli.environ,
    ) as caller:  # fmt: skip
        assert command.process.stdout.read() == b""
        command.process.stdin.write(b"an answer after the end")
        command.process.stdin.close()
        assert caller.stdout.read() == b"an answer after the end"
    assert (caller.returncode, command.process.wait()) == (0, 0)


def test_input_that_stays_open_keeps_nobody(cli, listener):
    command, ticket = listener()
    done = call(cli, ticket, b"hello", "--wait", "0")
    assert done.returncode == 0
    assert command.process.stdout.read() == b"hello"
    assert command.process.wait() == 0


def test_archive_of_a_folder_arrives_intact(cli, listener, tmp_path):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for number in range(20):
            file = tarfile.TarInfo(f"folder/{number}")
            file.size = 1000 * number
            tar.addfile(file, io.BytesIO(os.urandom(file.size)))
    (tmp_path / "archive").write_bytes(archive.getvalue())
    with open(tmp_path / "archive", "rb") as file:
        command, ticket = listener(stdin=file)
        done = call(cli, ticket)
    assert done.returncode == 0 and done.stdout == archive.getvalue()
    assert command.process.wait() == 0


@pytest.mark.row("A9")
def test_reader_that_has_gone_ends_both_sides_quietly(cli, listener, tmp_path):
    (tmp_path / "data").write_bytes(bytes(40_000_000))
    with open(tmp_path / "data", "rb") as file:
        command, ticket = listener(stdin=file)
        with subprocess.Popen(
            [sys.executable, "-m", "interpeer", "pipe", ticket, *LOOPBACK, "--json"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli.environ,
        ) as caller:  # fmt: skip
            assert caller.stdout.read(10) == bytes(10)
            caller.stdout.close()
            said = [json.loads(line)["event"] for line in caller.stderr]
        assert caller.returncode == 1 and set(said) <= {"connected", "progress"}
    last = command.rest()[-1]
    assert last["ok"] is False and "reads this stream no more" in last["error"]
    assert command.process.wait() == 1


@pytest.mark.row("A9")
def test_closed_input_is_an_empty_one(cli, listener):
    script = f'exec "{sys.executable}" -m interpeer pipe "$0" --listen 127.0.0.1:0 <&-'
    command, ticket = listener()
    command.process.stdin.close()
    done = subprocess.run(["sh", "-c", script, ticket], capture_output=True, env=cli.environ, timeout=30, check=False)
    assert done.returncode == 0 and command.process.stdout.read() == b""


@pytest.mark.row("A9")
def test_output_that_is_full_is_told(cli, listener):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "wb") as full:
        command, ticket = listener(stdout=full, stdin=subprocess.DEVNULL)
        call(cli, ticket, b"data")
        last = command.rest()[-1]
    assert last == {"event": "error", "ok": False, "error": "No space left on device", "reasons": []}
    assert command.process.wait() == 1


@pytest.mark.row("A9")
@pytest.mark.parametrize("words", [["id"], ["id", "--json"], ["doctor", "--json"], ["--version"]], ids=" ".join)
def test_answer_that_cannot_be_written_is_one_line(cli, words):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "interpeer", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=cli.environ, check=False)
    assert (done.returncode, done.stderr) == (1, "interpeer: No space left on device\n")


def test_wrong_secret_is_refused_and_the_listener_goes_on(cli, listener):
    command, ticket = listener(stdin=subprocess.DEVNULL)
    address = interpeer.Address(ticket)
    for secret in (bytes(16), os.urandom(16), None):
        wrong = interpeer.Address.of(address.peer_id, address.endpoints, secret)
        done = call(cli, str(wrong), b"let me in", "--json")
        told = json.loads(done.stderr.splitlines()[-1])
        assert done.returncode == 1 and done.stdout == b""
        assert told["ok"] is False and "secret" in told["error"]
        assert command.event("refused")["peer"]
    assert call(cli, ticket, b"right").returncode == 0
    assert command.process.stdout.read() == b"right"


def test_only_who_is_allowed_comes_in_and_needs_no_secret(cli, listener, tmp_path):
    allowed = cli.run("id", "--key", tmp_path / "allowed").stdout.strip()
    _, ticket = listener("--allow", allowed, stdin=subprocess.DEVNULL)
    assert interpeer.Address(ticket).secret is None
    stranger = call(cli, ticket, b"", "--timeout", "0.5", "--key", str(tmp_path / "stranger"))
    assert stranger.returncode == 1 and stranger.stdout == b""
    assert call(cli, ticket, b"", "--key", str(tmp_path / "allowed")).returncode == 0


def test_other_sides_death_is_told(cli, listener):
    command, ticket = listener()
    caller = cli.start("pipe", ticket, *LOOPBACK, events_on="stderr", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    caller.event("connected")
    command.event("connected")
    assert command.interrupt() == 130
    last = caller.rest()[-1]
    assert caller.process.wait() == 1
    assert last["ok"] is False and "has ended it" in last["error"]


def test_protocol_that_the_other_side_does_not_speak_is_named(cli, listener, tmp_path):
    _, ticket = listener()
    done = cli.run("recv", ticket, "-o", tmp_path / "out", *LOOPBACK)
    assert done.returncode == 1 and "'files/1'" in done.stderr.splitlines()[-1]


def test_terminal_ends_with_the_other_side(cli, listener):
    pty = pytest.importorskip("pty")
    _, ticket = listener(stdin=subprocess.DEVNULL)
    near, far = pty.openpty()
    try:
        command = [sys.executable, "-m", "interpeer", "pipe", ticket, *LOOPBACK]
        done = subprocess.run(command, stdin=far, capture_output=True, env=cli.environ, timeout=30, check=False)
    finally:
        os.close(near)
        os.close(far)
    assert done.returncode == 0 and done.stdout == b""
