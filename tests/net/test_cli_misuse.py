"""What the command line says when it cannot do what was meant: one line, the right exit code, never a traceback (A9)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

import interpeer
from interpeer._cli import main
from interpeer._cli.parser import COMMANDS, SHELLS
from interpeer._version import __version__

pytestmark = pytest.mark.usefixtures("homeless")
LOOPBACK = ("--listen", "127.0.0.1:0")
SOMEBODY = str(interpeer.Identity.from_seed(bytes(32)).id)
NOBODY_HOME = f"{SOMEBODY}@127.0.0.1:9"

MISUSES = {
    "no command": [],
    "no such command": ["nonsense"],
    "no such option": ["id", "--nonsense"],
    "an option before the command that does not exist": ["--nonsense", "id"],
    "an abbreviated option": ["ping", NOBODY_HOME, "--time", "1"],
    "no target": ["ping"],
    "no ticket": ["recv"],
    "no path": ["send"],
    "an empty path": ["send", "file", ""],
    "an empty folder": ["recv", f"{SOMEBODY}@127.0.0.1:9", "-o", ""],
    "an empty state directory": ["pipe", "--state", ""],
    "too many words": ["ping", NOBODY_HOME, "more"],
    "a target that is none": ["ping", "not a ticket"],
    "a target with a wrong character": ["ping", "a" * 51 + "1"],
    "an id that is no key": ["ping", "a" * 52],
    "a cut ticket": ["recv", str(interpeer.Address(NOBODY_HOME))[:-3]],
    "an address without brackets": ["ping", f"{SOMEBODY}@::1:9"],
    "an address without a port": ["ping", f"{SOMEBODY}@127.0.0.1"],
    "an address with port 0": ["ping", f"{SOMEBODY}@127.0.0.1:0"],
    "an address with too large a port": ["ping", f"{SOMEBODY}@127.0.0.1:65536"],
    "an address that is no address": ["ping", f"{SOMEBODY}@1.2.3.256:9"],
    "a count that is none": ["ping", NOBODY_HOME, "-c", "many"],
    "a count of zero": ["ping", NOBODY_HOME, "-c", "0"],
    "a negative count": ["ping", NOBODY_HOME, "-c", "-1"],
    "a time-out that is none": ["ping", NOBODY_HOME, "--timeout", "soon"],
    "a time-out of zero": ["ping", NOBODY_HOME, "--timeout", "0"],
    "an endless time-out": ["ping", NOBODY_HOME, "--timeout", "inf"],
    "a time-out that is no number": ["ping", NOBODY_HOME, "--timeout", "nan"],
    "nowhere to listen": ["pipe", "--listen", "somewhere"],
    "a host to listen on": ["pipe", "--listen", "localhost:0"],
    "a port that is none": ["pipe", "--listen", "127.0.0.1:99999"],
    "a rate that is none": ["pipe", "--give", "plenty"],
    "a network without a name": ["pipe", "--network", ""],
    "a network with too long a name": ["pipe", "--network", "n" * 65],
    "a bootstrap that is no ticket": ["pipe", "--bootstrap", "somebody"],
    "somebody to allow who is nobody": ["send", "/", "--allow", "bob"],
    "a wait that is none": ["pipe", "--wait", "-1"],
    "a NAT of no kind": ["demo", "--nat", "foo"],
    "two NATs of which one has no kind": ["demo", "--nat", "port,foo"],
    "two NATs of which one has no name": ["demo", "--nat", "port,"],
    "three NATs": ["demo", "--nat", "port,symmetric,port"],
    "--allow for a caller": ["pipe", NOBODY_HOME, "--allow", SOMEBODY],
    "a shell nobody completes for": ["--completion", "cmd"],
}


@pytest.mark.row("A9")
@pytest.mark.parametrize("words", MISUSES.values(), ids=MISUSES)
def test_misuse_is_one_line_and_exit_code_2(capsys, words):
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("interpeer: ") and len(printed.err.splitlines()) == 1 and len(printed.err) > 30


@pytest.mark.parametrize("words", [["ping"], ["nonsense"], ["ping", NOBODY_HOME, "--timeout", "0"], []], ids=" ".join)
def test_misuse_is_one_object_for_programs(capsys, words):
    assert main([*words, "--json"]) == 2
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert told["ok"] is False and told["error"] and told["reasons"] == []
    assert printed.err == ""


@pytest.mark.parametrize("words", [["pipe", "--nonsense"], ["pipe", "--listen", "somewhere"]], ids=" ".join)
def test_misuse_is_told_where_no_data_are(capsys, words):
    assert main([*words, "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and json.loads(printed.err)["ok"] is False


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_says_what_it_does(capsys, command):
    assert main([command, "--help"]) == 0
    assert f"usage: interpeer {command}" in capsys.readouterr().out


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_every_command(capsys, shell):
    assert main(["--completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(command in script for command in COMMANDS)
    assert "--listen" in script or "-l listen" in script


def test_bash_takes_the_completion_script(capsys, tmp_path):
    main(["--completion", "bash"])
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out + "\nCOMP_WORDS=(interpeer pi); COMP_CWORD=1; _interpeer; echo ${COMPREPLY[@]}\n")
    try:
        done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("bash is not installed")
    assert done.stdout.split() == ["ping", "pipe"] and done.stderr == ""


def test_version_is_the_packages(cli):
    done = cli.run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"interpeer {__version__}\n", "")
    assert json.loads(cli.run("--version", "--json").stdout) == {"ok": True, "version": __version__}


def test_version_loads_neither_the_commands_nor_their_packages():
    code = "import sys; from interpeer._cli import main; main(['--version']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"argparse", "rich", "numpy", "tomllib"} & set(loaded)
    assert not [name for name in loaded if name.startswith("interpeer._cli.commands")]


def test_defect_is_one_line_and_its_place_is_in_the_log(capsys, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("interpeer._cli.commands.id.run", broken)
    assert main(["id"]) == 1
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1 and "ZeroDivisionError: by zero" in printed.err and "report it" in printed.err


@pytest.mark.row("A9")
def test_nobody_reads_standard_output_and_nothing_is_said(cli):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "interpeer", "id"]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=cli.environ, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.row("A9")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_command_says_nothing_and_ends_with_130(cli, tmp_path, number):
    (tmp_path / "file").write_text("data")
    send = cli.start("send", tmp_path / "file", *LOOPBACK)
    send.event("ready")
    assert send.interrupt(number) == 130
    assert send.rest() == [] and send.said() == ""


@pytest.mark.row("A9")
def test_command_can_be_interrupted_while_it_reaches_for_somebody(cli):
    recv = cli.start("recv", NOBODY_HOME, *LOOPBACK, cwd=cli.home)
    recv.event("reaching")
    assert recv.interrupt() == 130
    assert recv.rest() == [] and recv.said() == ""


def test_port_that_is_taken_is_told(cli, tmp_path):
    (tmp_path / "file").write_text("data")
    send = cli.start("send", tmp_path / "file", *LOOPBACK)
    ticket = interpeer.Address(send.event("ready")["ticket"])
    done = cli.run("pipe", "--listen", str(ticket.endpoints[0]))
    assert done.returncode == 1
    assert done.stderr == f"interpeer: cannot listen at {ticket.endpoints[0]}: Address already in use\n"


def test_address_that_is_not_ours_is_told(cli):
    done = cli.run("pipe", "--listen", "192.0.2.99:0", "--json")
    assert done.returncode == 1
    assert "cannot listen at 192.0.2.99:0" in json.loads(done.stderr)["error"]
