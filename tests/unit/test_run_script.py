"""What ./run says and does on machines where something is missing: tools of the system are played by short scripts."""

import os
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="./run is for POSIX systems")

TOOLS = ("cat", "cksum", "cmp", "dirname", "find", "grep", "head", "mkdir", "rm", "sed", "sh", "sort", "tail")
APT = "apt-get update && env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends"


@pytest.fixture
def machine(root, tmp_path):
    """A checkout and a search path with the basic tools only; call it to run ./run there."""
    tools, checkout = tmp_path / "bin", tmp_path / "checkout"
    tools.mkdir()
    checkout.mkdir()
    shutil.copy(root / "run", checkout)
    for tool in TOOLS:
        (tools / tool).symlink_to(shutil.which(tool))

    def add(name, script):
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)

    def run(*arguments, **environment):
        return subprocess.run(
            ["sh", "run", *arguments],
            cwd=checkout,
            env={"PATH": str(tools), **environment},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    add("uname", "echo Linux")
    add("id", "echo 1000")
    run.add, run.checkout = add, checkout
    return run


@pytest.mark.parametrize(
    ("manager", "command"),
    [
        ("apt-get", f"{APT} gcc libc6-dev make python3 python3-venv python3-dev"),
        ("apk", "apk add gcc musl-dev linux-headers make python3 python3-dev"),
        ("dnf", "dnf install -y gcc make python3 python3-devel"),
        ("pacman", "pacman -Sy --needed --noconfirm gcc make python"),
        ("zypper", "zypper --non-interactive install gcc make python3 python3-devel"),
    ],
)
def test_without_root_and_sudo_it_prints_the_exact_command_and_stops(machine, manager, command):
    machine.add(manager, "echo called >>calls")
    done = machine("build")
    assert done.returncode == 1
    missing, advice = done.stderr.splitlines()
    assert missing == "run: missing: a C compiler, make, Python 3.11 or newer with venv and headers"
    assert advice.endswith(f"as root, run: {command}")
    assert not (machine.checkout / "calls").exists()


def test_system_sodium_replaces_make(machine):
    machine.add("apk", "")
    done = machine("build", INTERPEER_SYSTEM_SODIUM="1")
    assert " make" not in done.stderr


def test_sudo_is_used_if_it_needs_no_password(machine):
    machine.add("dnf", "echo dnf $* >>calls")
    machine.add("sudo", '[ "$1" != -n ] || shift; case $1 in true) ;; *) echo sudo >>calls; exec "$@" ;; esac')
    machine("build")
    assert (machine.checkout / "calls").read_text().splitlines() == ["sudo", "dnf install -y gcc make python3 python3-devel"]


def test_sudo_that_would_ask_without_a_terminal_is_not_run(machine):
    machine.add("dnf", "echo called >>calls")
    machine.add("sudo", '[ "$1" != -n ] || exit 1; echo called >>calls')
    done = machine("build")
    assert done.returncode == 1
    assert "run: sudo dnf install -y gcc make python3 python3-devel" in done.stderr
    assert not (machine.checkout / "calls").exists()


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ({"apt-get": ""}, "as root, run: apt-get update"),
        ({"apk": ""}, "here, install the like of: shellcheck dash"),
        ({"apt-get": "", "sudo": "exit 1"}, "sudo wants a password"),
    ],
)
def test_tests_of_the_system_go_on_without_what_cannot_be_installed(machine, tools, said):
    for name, script in tools.items():
        machine.add(name, script)
    done = machine("test", "--system")
    assert said in done.stderr and "tests that need their programs are left out" in done.stderr
    assert "missing: a C compiler" in done.stderr.partition("left out")[2]


def test_only_the_packages_that_are_missing_are_installed_and_no_service_at_the_next_boot(machine):
    """As root, with a policy in place for the time of the installation only."""
    for tool in ("grep", "env", "tee", "chmod"):
        if not (machine.checkout.parent / "bin" / tool).exists():
            (machine.checkout.parent / "bin" / tool).symlink_to(shutil.which(tool))
    script = machine.checkout / "run"
    policy = machine.checkout / "policy"
    script.write_text(script.read_text().replace("policy=/usr/sbin/policy-rc.d", f"policy={policy}"))
    machine.add("id", "echo 0")
    machine.add("dpkg-query", "case $4 in coturn | tshark) exit 1 ;; *) printf installed ;; esac")
    machine.add("apt-get", f'echo "$*" "$(sh {policy}; echo $?)" >>calls')
    machine.add("systemctl", 'echo systemctl "$*" >>calls')
    done = machine("test", "--system")
    assert "left out" not in done.stderr
    calls = (machine.checkout / "calls").read_text().splitlines()
    assert calls[:3] == ["update 101", "install -y --no-install-recommends tshark coturn 101", "systemctl -q disable coturn"]
    assert not policy.exists()


def test_old_python_is_named_with_advice(machine):
    machine.add("id", "echo 0")
    machine.add("cc", "exit 0")
    machine.add("make", "")
    machine.add("apk", "")
    machine.add("python3", "case $1 in -V) echo Python 3.9.2 ;; *) exit 1 ;; esac")
    done = machine("build")
    assert done.returncode == 1
    assert "Python 3.11 or newer with venv and headers is needed, found Python 3.9.2" in done.stderr
    assert "PYTHON=/path/to/python3.13 ./run" in done.stderr


def test_failing_step_shows_the_end_of_its_output_and_where_the_rest_is(machine):
    machine.add("id", "echo 0")
    machine.add("apk", 'i=0; while [ $i -lt 40 ]; do i=$((i + 1)); echo "noise $i"; done; echo "no space left" >&2; exit 9')
    done = machine("build")
    assert done.returncode == 1
    assert "no space left" in done.stderr and "noise 40" in done.stderr and "noise 1\n" not in done.stderr
    assert "failed: installing" in done.stderr and ".cache/run.log" in done.stderr
    assert "noise 1\n" in (machine.checkout / ".cache/run.log").read_text()


def test_machine_without_a_known_package_manager_is_told_what_to_install(machine):
    done = machine("build")
    assert done.returncode == 1
    assert "missing: a C compiler" in done.stderr and "no package manager known here" in done.stderr


def test_fuzzing_elsewhere_than_on_linux_is_refused_before_anything_is_installed(machine):
    machine.add("uname", "echo Darwin")
    done = machine("fuzz")
    assert done.returncode == 1
    assert "LD_PRELOAD" in done.stderr and "missing" not in done.stderr


def test_unknown_command_is_misuse(machine):
    done = machine("tset")
    assert done.returncode == 2
    assert "no such command: tset" in done.stderr and done.stdout == ""


def test_help_lists_exactly_the_commands_there_are(machine, root):
    commands = machine("help").stdout.partition("environment")[0].splitlines()[1:]
    listed = {line.split()[0] for line in commands if line.startswith("  ") and line[2] != " "}
    defined = {line[4:].partition("()")[0] for line in (root / "run").read_text().splitlines() if line.startswith("run_")}
    assert listed == defined


@pytest.mark.system("shellcheck", "dash")
def test_scripts_are_clean_under_shellcheck_and_parse_in_dash(root):
    scripts = [root / "run", root / ".ci/run", *(root / ".ci").glob("*.sh")]
    for command in (["shellcheck"], ["dash", "-n"]):
        for script in scripts:
            done = subprocess.run([*command, script], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
