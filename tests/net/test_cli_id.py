"""Keys of the command line: made once, private, never replaced (F1, A11); and who a command is."""

from __future__ import annotations

import json
import os
import re
import stat

import pytest

import interpeer
from interpeer._identity import to_base32

LOOPBACK = ("--listen", "127.0.0.1:0")
SEED = bytes(range(32))


def key_path(cli):
    return cli.home / ".local/state/interpeer/identity"


def test_key_is_made_at_first_use_and_kept(cli):
    first, second = cli.run("id"), cli.run("id", "--json")
    assert first.returncode == second.returncode == 0
    assert re.fullmatch(r"[a-z2-7]{52}\n", first.stdout) and first.stderr == ""
    assert json.loads(second.stdout) == {"ok": True, "id": first.stdout.strip(), "key": str(key_path(cli))}
    assert stat.S_IMODE(key_path(cli).stat().st_mode) == 0o600
    assert stat.S_IMODE(key_path(cli).parent.stat().st_mode) == 0o700


def test_key_file_of_its_own(cli, tmp_path):
    done = cli.run("id", "--key", tmp_path / "key")
    assert interpeer.Identity.load(tmp_path / "key").id == interpeer.PeerId(done.stdout.strip())
    assert not key_path(cli).exists()


@pytest.mark.row("F1")
@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "readable", "folder", "link", "fifo", "no folder"])
def test_key_file_that_cannot_be_used_is_refused_and_stays(cli, tmp_path, damage):
    key = tmp_path / "key"
    interpeer.Identity.from_seed(SEED).save(key)
    whole = key.read_bytes()
    if damage in ("folder", "link", "fifo"):
        key.rename(tmp_path / "real")
    {
        "empty": lambda: key.write_bytes(b""),
        "cut": lambda: key.write_bytes(whole[:-5]),
        "flipped": lambda: key.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]),
        "readable": lambda: key.chmod(0o644),
        "folder": key.mkdir,
        "link": lambda: key.symlink_to(tmp_path / "real"),
        "fifo": lambda: os.mkfifo(key, 0o600),
        "no folder": lambda: None,
    }[damage]()
    if damage == "no folder":
        key = tmp_path / "nowhere" / "key"
    before = key.read_bytes() if damage in ("empty", "cut", "flipped", "readable") else None
    done = cli.run("id", "--key", key)
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and str(key) in done.stderr and to_base32(SEED)[:20] not in done.stderr
    assert before is None or key.read_bytes() == before


def test_seed_of_the_environment_is_used_and_nothing_is_written(cli):
    seed = to_base32(SEED)
    done = cli.run("id", environ={"INTERPEER_KEY": seed})
    assert done.stdout.strip() == str(interpeer.Identity.from_seed(SEED).id)
    assert not key_path(cli).exists()


@pytest.mark.row("A11")
def test_wrong_seed_is_told_without_showing_it(cli):
    wrong = to_base32(SEED)[:-1]
    done = cli.run("id", environ={"INTERPEER_KEY": wrong})
    assert done.returncode == 2 and "INTERPEER_KEY" in done.stderr and wrong[:8] not in done.stderr


def test_flag_is_above_the_environment_and_that_above_the_file(cli, tmp_path):
    config = cli.home / ".config/interpeer/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'key = "{tmp_path}/of-file"\n')
    of_file = cli.run("id").stdout
    of_environment = cli.run("id", environ={"INTERPEER_KEY": to_base32(SEED)}).stdout
    of_flag = cli.run("id", "--key", tmp_path / "of-flag", environ={"INTERPEER_KEY": to_base32(SEED)}).stdout
    assert interpeer.PeerId(of_file.strip()) == interpeer.Identity.load(tmp_path / "of-file").id
    assert interpeer.PeerId(of_environment.strip()) == interpeer.Identity.from_seed(SEED).id
    assert interpeer.PeerId(of_flag.strip()) == interpeer.Identity.load(tmp_path / "of-flag").id


@pytest.mark.row("F4")
def test_state_directory_that_was_named_serves_one_process(cli, tmp_path):
    first = cli.start("pipe", *LOOPBACK, "--state", tmp_path / "state", events_on="stderr")
    first.event("ready")
    second = cli.run("pipe", *LOOPBACK, "--state", tmp_path / "state")
    assert second.returncode == 1 and "in use by another process" in second.stderr


@pytest.mark.row("F4")
def test_default_key_is_one_processs_and_the_next_has_a_fresh_one(cli):
    mine = cli.run("id").stdout.strip()
    first = cli.start("pipe", *LOOPBACK, events_on="stderr")
    assert first.event("ready")["id"] == mine
    second = cli.start("pipe", *LOOPBACK, events_on="stderr")
    assert second.event("ready")["id"] != mine


@pytest.mark.row("F3")
def test_no_place_for_a_key_is_one_warning_and_a_fresh_key(cli, tmp_path):
    (tmp_path / "file").write_text("")
    pipe = cli.start("pipe", *LOOPBACK, events_on="stderr", environ={"XDG_STATE_HOME": str(tmp_path / "file")})
    assert "Not a directory" in pipe.event("warning")["message"]
    assert len(pipe.event("ready")["id"]) == 52


def test_damaged_default_key_is_no_reason_for_a_fresh_one(cli):
    cli.run("id")
    key_path(cli).write_bytes(b"damaged")
    done = cli.run("pipe", *LOOPBACK)
    assert done.returncode == 1 and "damaged" in done.stderr


@pytest.mark.row("A11")
def test_no_secret_is_in_the_log(cli, tmp_path):
    (tmp_path / "file").write_text("data")
    seed = to_base32(SEED)
    send = cli.start("send", tmp_path / "file", *LOOPBACK, "--once", "-v", "-v", environ={"INTERPEER_KEY": seed})
    ticket = send.event("ready")["ticket"]
    secret = interpeer.Address(ticket).secret
    done = cli.run("recv", ticket, "-o", tmp_path / "out", *LOOPBACK, "-vv")
    assert done.returncode == 0 and send.process.wait() == 0
    said = send.said() + done.stderr + done.stdout
    assert secret.hex() not in said and to_base32(secret)[:20] not in said and ticket not in said and seed not in said
