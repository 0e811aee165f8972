"""Port mapping with a real router: miniupnpd over nftables, between a host inside and one outside, in network namespaces."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.system("miniupnpd", "nft", "ip", "conntrack")

PROBE = Path(__file__).with_name("mapprobe.py")
GATEWAY, OUTSIDE = "20.0.0.1", "20.0.0.2"  # miniupnpd maps nothing behind addresses that it takes for private
PATIENCE_S = 60.0

NFT = """
table inet router {
 chain nat {
  type nat hook postrouting priority 100;
  oifname "wan" meta nfproto ipv4 masquerade
 }
 chain forward {
  type filter hook forward priority 0;
  ct state established,related accept
  jump forwarded
  iifname "wan" drop
 }
 chain forwarded {
 }
 chain mapped_in {
  type nat hook prerouting priority -105;
  jump mapped
 }
 chain mapped {
 }
 chain mapped_out {
  type nat hook postrouting priority 95;
  jump mapped_back
 }
 chain mapped_back {
 }
}
"""

CONFIGURATION = """
ext_ifname=wan
listening_ip=lan
enable_upnp={upnp}
enable_natpmp={natpmp}
secure_mode=yes
min_lifetime=5
max_lifetime=86400
uuid=5f74b083-38b3-4a09-913e-0000000000aa
upnp_table_name=router
upnp_nat_table_name=router
upnp_forward_chain=forwarded
upnp_nat_chain=mapped
upnp_nat_postrouting_chain=mapped_back
allow 1024-65535 192.168.77.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""

SHOUT = """
import socket, sys
host, port, patience = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.connect((host, port))
    s.settimeout(0.2)
    for _ in range(int(patience / 0.2)):
        try:
            s.send(b"hello")
            print(s.recv(100) == b"hello")
            break
        except OSError:
            pass
    else:
        print(False)
"""

FIREWALL = """
table inet firewall {
 chain input {
  type filter hook input priority 0;
  meta l4proto udp ct state new udp sport != {53, 67, 547, 5350, 5351} iifname "eth0" drop
 }
}
"""

GROW_OLD = """
import socket, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.connect(("192.168.77.1", 5351))
    s.settimeout(5)
    epoch_s = 0
    while epoch_s < 6:
        s.send(bytes(2))
        epoch_s = int.from_bytes(s.recv(100)[4:8], "big")
        time.sleep(0.1)
"""


def do(*words: str, text: str | None = None) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, input=text, timeout=PATIENCE_S).stdout


class Street:
    """A host inside, a router, and a host outside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemon: subprocess.Popen[bytes] | None = None
        self.remove()
        for name in ("in", "gw", "out"):
            do("ip", "netns", "add", f"portmap-{name}")
            do("ip", "-n", f"portmap-{name}", "link", "set", "lo", "up")
        self._plug("in", "lan", "192.168.77", "2a00:77:")
        self._plug("out", "wan", "20.0.0", "2a00:1:")
        do("ip", "-n", "portmap-in", "route", "add", "default", "via", "192.168.77.1")
        do("ip", "-n", "portmap-gw", "addr", "add", "fe80::1/64", "dev", "lan", "nodad")  # as routers announce themselves
        do("ip", "-n", "portmap-in", "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0")
        do("ip", "-n", "portmap-out", "-6", "route", "add", "default", "via", "2a00:1::1")
        self.on("gw", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        self.on("gw", "nft", "-f", "-", text=NFT)

    def _plug(self, host: str, link: str, prefix: str, prefix6: str) -> None:
        """Connect a host to one side of the router."""
        do("ip", "link", "add", link, "netns", "portmap-gw", "type", "veth", "peer", "name", "eth0", "netns", f"portmap-{host}")
        for space, device, number in (("gw", link, "1"), (host, "eth0", "2")):
            do("ip", "-n", f"portmap-{space}", "addr", "add", f"{prefix}.{number}/24", "dev", device)
            do("ip", "-n", f"portmap-{space}", "addr", "add", f"{prefix6}:{number}/64", "dev", device, "nodad")
            do("ip", "-n", f"portmap-{space}", "link", "set", device, "up")

    def on(self, name: str, *words: str, text: str | None = None) -> str:
        return do("ip", "netns", "exec", f"portmap-{name}", *words, text=text)

    def start(self, *, upnp: bool = True, natpmp: bool = True) -> None:
        """Start the daemon; it is there when it says that it listens."""
        said = CONFIGURATION.format(upnp="yes" if upnp else "no", natpmp="yes" if natpmp else "no")
        (self.folder / "conf").write_text(said)
        program = ["miniupnpd", "-d", "-f", str(self.folder / "conf"), "-P", str(self.folder / "pid")]
        self._daemon = subprocess.Popen(
            ["ip", "netns", "exec", "portmap-gw", *program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        errors = self._daemon.stderr
        assert errors is not None
        needle, told = b"Listening for NAT-PMP" if natpmp else b"HTTP listening", []
        for line in errors:
            told.append(line)
            if needle in line:
                break
        else:
            raise AssertionError(b"".join(told).decode())
        threading.Thread(target=self._drain, args=(errors,), name="miniupnpd's log").start()

    @staticmethod
    def _drain(errors: Any) -> None:
        with errors:
            for _ in errors:
                pass

    def stop(self) -> None:
        """End the daemon, and let it forget what it has mapped."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None
            for thread in threading.enumerate():
                if thread.name == "miniupnpd's log":
                    thread.join()
        self.forget()

    def grow_old(self) -> None:
        """Let the daemon run for some seconds: what it has lost within the first two cannot be told from what it counts in."""
        self.on("in", sys.executable, "-c", GROW_OLD)

    def announce(self) -> None:
        """Have the daemon tell everybody its address and epoch, as scripts of routers do when the uplink comes up."""
        os.kill(int((self.folder / "pid").read_text()), signal.SIGUSR1)

    def forget(self) -> None:
        """Remove what the daemon has entered, behind its back."""
        for chain in ("forwarded", "mapped", "mapped_back"):
            self.on("gw", "nft", "flush", "chain", "inet", "router", chain)
        self.on("gw", "conntrack", "-F")

    def reaches(self, endpoint: str, patience_s: float = 2.0) -> bool:
        """Tell whether the host outside gets an echo."""
        match = re.fullmatch(r"\[?(.*?)\]?:(\d+)", endpoint)
        assert match
        return self.on("out", sys.executable, "-c", SHOUT, match[1], match[2], str(patience_s)).strip() == "True"

    def remove(self) -> None:
        spaces = do("ip", "netns", "list").split()
        for name in ("in", "gw", "out"):
            if f"portmap-{name}" in spaces:
                do("ip", "netns", "del", f"portmap-{name}")


class Inside:
    """The host inside, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], street: Street) -> None:
        self._process, self._street = process, street

    def event(self, name: str) -> Any:
        """Return the next event of a name; skip others."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            if name in event:
                return event[name]
        raise AssertionError(f"no {name!r}; it ended with {self._process.wait()}")

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def judge(self) -> bool:
        """Have somebody outside do what is asked for next; return what they find."""
        verdict = self._street.reaches(self.event("verify"))
        self.tell(json.dumps(verdict))
        return verdict

    def end(self) -> None:
        self.tell("end")
        self.event("ended")
        assert self._process.wait() == 0


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    if not sys.platform.startswith("linux") or os.geteuid():
        pytest.skip("network namespaces need Linux and root")
    street = Street(tmp_path_factory.mktemp("street"))
    yield street
    street.remove()


@pytest.fixture
def router(street: Street) -> Iterator[Street]:
    """The street, whose daemon a test starts itself."""
    yield street
    street.stop()


@contextmanager
def inside(street: Street, methods: str, version: int = 4, lifetime_s: int = 7200) -> Iterator[Inside]:
    command = ["ip", "netns", "exec", "portmap-in", sys.executable, str(PROBE), methods, str(version), str(lifetime_s)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(PATIENCE_S, process.kill)
        watchdog.start()
        try:
            yield Inside(process, street)
        finally:
            watchdog.cancel()
            watchdog.join()
            process.kill()


@pytest.mark.parametrize(("protocol", "version"), [("pcp", 4), ("nat-pmp", 4), ("upnp", 4), ("pcp", 6)])
def test_port_is_open_to_the_outside_until_the_end(router, protocol, version):
    router.start()
    with inside(router, protocol, version) as host:
        port = host.event("port")
        (mapping,) = host.event("mappings")
        own = f"[2a00:77::2]:{port}" if version == 6 else f"{GATEWAY}:{port}"
        assert (mapping["protocol"], mapping["external"], mapping["is_verified"]) == (protocol, own, None)
        assert host.judge()
        assert host.event("mappings")[0]["is_verified"] is True
        host.end()
        assert not router.reaches(own, 0.6)


@pytest.mark.system("upnpc", "natpmpc")
def test_another_client_sees_what_was_mapped(router):
    router.start()
    with inside(router, "upnp") as host:
        port = host.event("port")
        host.event("verify")
        assert re.search(rf"UDP +{port}->192\.168\.77\.2:{port} +'interpeer'", router.on("in", "upnpc", "-l"))
        assert f"Public IP address : {GATEWAY}" in router.on("in", "natpmpc")
        host.tell("true")
        host.end()
        assert "interpeer" not in router.on("in", "upnpc", "-l")


def test_best_of_three_is_used(router):
    router.start()
    with inside(router, "pcp,nat-pmp,upnp") as host:
        assert [mapping["protocol"] for mapping in host.event("mappings")] == ["pcp"]
        host.tell("null")
        host.tell("report")
        assert host.event("report")["protocols"][:1] in (["nat-pmp"], ["pcp"])
        host.end()


def test_upnp_is_used_where_the_router_has_nothing_else(router):
    router.start(natpmp=False)
    with inside(router, "pcp,nat-pmp,upnp") as host:
        assert [mapping["protocol"] for mapping in host.event("mappings")] == ["upnp"]
        assert host.judge()
        host.end()


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp", "upnp"])
def test_mapping_is_renewed_before_it_ends(router, protocol):
    router.start()
    with inside(router, protocol, lifetime_s=12) as host:
        assert host.judge()
        assert host.judge()  # asked again since it was renewed
        assert host.judge()
        host.end()


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp"])
def test_mapping_is_made_anew_when_the_router_says_that_it_has_restarted(router, protocol):
    router.start()
    with inside(router, protocol) as host:
        endpoint = host.event("verify")
        assert router.reaches(endpoint)
        host.tell("true")
        router.grow_old()
        router.stop()
        assert not router.reaches(endpoint, 0.6)
        router.start()
        router.announce()
        assert host.judge()
        host.end()


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp", "upnp"])
def test_mapping_is_made_anew_by_its_renewal_when_the_router_has_restarted(router, protocol):
    router.start()
    with inside(router, protocol, lifetime_s=20) as host:
        endpoint = host.event("verify")
        assert router.reaches(endpoint)
        host.tell("true")
        router.stop()
        router.start()
        assert host.judge()
        host.end()


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp", "upnp"])
def test_mapping_that_lies_is_deleted_and_made_anew(router, protocol):
    router.start()
    with inside(router, protocol) as host:
        assert host.judge()
        router.forget()
        host.tell("doubt")
        assert not host.judge()
        assert host.judge()
        host.end()


@contextmanager
def peer_outside(router: Street) -> Iterator[str]:
    """Run a node outside; yield its address."""
    words = ["up", "--json", "--no-lan", "--listen", "20.0.0.2:4433", "--state", str(router.folder / "state")]
    command = ["ip", "netns", "exec", "portmap-out", sys.executable, "-m", "interpeer", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ(), cwd=router.folder) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["address"]
        finally:
            process.kill()


def environ() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("INTERPEER_", "XDG_"))}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def doctor(router: Street, *words: str) -> Any:
    """Return what doctor says inside of the router's mappings."""
    command = ["ip", "netns", "exec", "portmap-in", sys.executable, "-m", "interpeer", "doctor", "--json", "--lifetime", "0"]
    options: Any = {"check": True, "capture_output": True, "text": True, "env": environ(), "cwd": router.folder}
    done = subprocess.run([*command, *words], timeout=PATIENCE_S, **options)
    return json.loads(done.stdout)["port_mapping"]


def test_doctor_says_whether_somebody_outside_came_through(router):
    router.start()
    with peer_outside(router) as address:
        told = doctor(router)
        assert told["text"].startswith("granted, not tried from outside: ") and set(told["is_verified"]) == {None}
        told = doctor(router, "--bootstrap", address)
        assert "works, tried from outside: pcp 20.0.0.1:" in told["text"] and True in told["is_verified"], told
        router.on("in", "nft", "-f", "-", text=FIREWALL)
        try:
            told = doctor(router, "--bootstrap", address)
        finally:
            router.on("in", "nft", "delete", "table", "inet", "firewall")
        assert told["status"] == "warning" and "granted, but nothing comes through: pcp 20.0.0.1:" in told["text"], told
        assert "firewall" in told["advice"] and any("nothing comes through" in reason for reason in told["reasons"])
