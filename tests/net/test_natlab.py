"""The laboratory's NATs are measured from outside and held against the table of kinds; and what can be done to them."""

import contextlib
import ipaddress
import itertools
import json
import re
import select
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from interpeer.testing import Dependence, Link, NatKind
from interpeer.testing._natkind import can_punch
from interpeer.testing.natlab import Ipv6, Lab, LabError, PortMapping
from interpeer.testing.natlab._namespace import names, require
from tests.net import natprobe

pytestmark = pytest.mark.system

KINDS = list(NatKind)
NAME = "natlabt"


def open_lab(name=NAME):
    try:
        require()
    except LabError as error:
        pytest.skip(str(error))
    return Lab(name, seed=4)


@pytest.fixture(scope="module")
def lab():
    with natprobe.on_one_processor(), open_lab() as lab:
        lab.host("wired", link=Link())  # starts the process for links, which lives as long as the laboratory
        yield lab


@pytest.fixture(scope="module")
def servers(lab):
    with contextlib.closing(natprobe.Servers(lab)) as servers:
        yield servers


@pytest.fixture(scope="module")
def hosts(lab):
    """Two hosts of each kind, each behind a router of its own; those of a carrier's kind behind one carrier."""
    return {kind: (lab.host(f"{kind}-1", kind), lab.host(f"{kind}-2", kind)) for kind in KINDS}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.behaviour.udp])
def test_each_kind_measures_as_the_table_says(kind, hosts, servers):
    nat, seen = kind.behaviour, natprobe.measure(hosts[kind][0], servers)
    assert (seen.mapping, seen.filtering) == (nat.mapping, nat.filtering)
    assert (seen.preserves_port, seen.hairpin) == (nat.preserves_port, nat.hairpin)
    assert seen.step == (nat.step if kind is NatKind.SYMMETRIC_SEQ else None)
    if not nat.preserves_port and seen.step is None:
        assert (seen.span <= 512) == (nat.block_ports == 512)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.behaviour.udp])
def test_where_udp_is_blocked_the_allowed_tcp_ports_pass(kind, hosts, servers, lab):
    ports = kind.behaviour.tcp_ports or (80, 443)
    assert not natprobe.passes_udp(hosts[kind][0], servers)
    assert natprobe.open_tcp_ports(hosts[kind][0], lab.hosts["s1"], (80, 443)) == set(ports)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_timed_punch_gets_through_exactly_where_the_table_says(kind, hosts, servers):
    wrong = []
    for other, is_first in itertools.product(KINDS, (True, False)):
        with contextlib.ExitStack() as stack:
            pair = [
                stack.enter_context(natprobe.Puncher(host, servers, low_ttl=len(host.routers) + 1))
                for host in (hosts[kind][0], hosts[other][1])
            ]
            expected = can_punch(kind.behaviour, other.behaviour)
            if kind is other is NatKind.CGN:
                expected = False  # both behind the same NAT, which turns nothing back
            if natprobe.punch(*(pair if is_first else pair[::-1])) != expected:
                wrong.append((other, "calls first" if is_first else "is called"))
    assert wrong == []


def test_masquerade_moves_away_from_a_port_that_a_stranger_came_to(hosts, servers):
    a, b = (natprobe.Puncher(host, servers) for host in hosts[NatKind.LINUX])
    with a, b:
        assert not natprobe.punch(a, b)


def test_mappings_end_after_their_lifetime_and_packets_from_outside_do_not_keep_them(hosts, servers):
    host = hosts[NatKind.FULLCONE][1]
    for lifetime_s in (0.6, 1.1):
        host.set_nat(NatKind.FULLCONE.behaviour.replace(lifetime_s=lifetime_s))
        assert natprobe.lifetime_s(host, servers) >= lifetime_s
    host.set_nat(NatKind.FULLCONE)


def test_a_flush_forgets_mappings_and_closes_the_filter(hosts, servers):
    host = hosts[NatKind.PORT_RANDOM][0]
    with natprobe.bound(host) as opened:
        before = servers.seen(opened)
        assert servers.seen(opened) == before
        host.flush()
        servers.sockets[0, 0].sendto(b"too late", before)
        after = servers.seen(opened)
        assert after[0] == before[0] and after[1] != before[1]
        assert servers.arriving(opened, after) == []


def test_a_renumbered_router_has_another_prefix_and_hosts_keep_their_addresses(hosts, servers):
    host = hosts[NatKind.PORT][0]
    with natprobe.bound(host) as opened:
        inside, before = opened.getsockname(), servers.seen(opened)
        host.renumber()
        after = servers.seen(opened)
    assert after == (host.router.address, inside[1])
    assert before[0].split(".")[:3] != after[0].split(".")[:3]
    assert all(ipaddress.ip_address(address).is_global for address in (before[0], after[0]))


def test_a_roaming_host_keeps_its_sockets(lab, hosts, servers):
    host, other = lab.host("laptop", NatKind.PORT), hosts[NatKind.PORT][1]
    with host.socket() as opened:
        opened.bind(("0.0.0.0", 0))
        opened.setblocking(False)
        home, seen = host.router, servers.seen(opened)
        assert seen[0] == home.address
        host.roam(other)
        assert host.router is other.router and servers.seen(opened)[0] == other.router.address
        host.roam(lab.internet)
        assert host.router is None and servers.seen(opened)[0] == host.address
        host.roam(home)
        assert servers.seen(opened) == seen


def test_an_interface_that_is_down_is_noticed_and_comes_back_with_its_address(lab, servers):
    host = lab.host("unplugged", NatKind.PORT, ipv6=Ipv6.OPEN)
    with host.socket() as opened:
        opened.setblocking(False)
        opened.bind(("0.0.0.0", 0))
        before = servers.seen(opened), host.address6
        host.down()
        with pytest.raises(OSError, match="unreachable"):
            opened.sendto(b"x", servers.address((0, 0)))
        host.up()
        assert (servers.seen(opened), host.address6) == before


def test_a_nat_changes_its_kind_while_it_runs(hosts, servers):
    host = hosts[NatKind.ADDR][0]
    host.set_nat(NatKind.SYMMETRIC)
    with natprobe.bound(host) as opened:
        assert servers.seen(opened) != servers.seen(opened, (0, 1))
    host.set_nat(NatKind.ADDR)
    assert natprobe.measure(host, servers).filtering is Dependence.ADDRESS_DEPENDENT


def test_two_homes_behind_one_carrier_have_the_same_addresses_inside(hosts):
    one, other = hosts[NatKind.CGN]
    assert one.address == other.address == "192.168.1.10"
    assert one.router is not other.router and one.router.outside is other.router.outside


def test_hosts_of_one_home_reach_each_other_directly(lab, hosts):
    first = hosts[NatKind.SYMMETRIC][0]
    second = lab.host("second", behind=first.router)
    with natprobe.bound(first) as one, natprobe.bound(second) as other:
        one.sendto(b"hello", other.getsockname())
        assert select.select([other], [], [], natprobe.PATIENCE_S)[0]
        assert other.recvfrom(10) == (b"hello", one.getsockname())


def test_hosts_on_a_switch_find_each_other_and_nothing_else(lab, servers):
    office = lab.switch("office")
    one, other = (lab.host(name, behind=office) for name in ("desk", "chair"))
    with natprobe.bound(one) as sender, other.socket() as receiver:
        receiver.bind(("", 5353))
        group = socket.inet_aton("224.0.0.251") + socket.inet_aton(other.address)
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(one.address))
        sender.sendto(b"who is there?", ("224.0.0.251", 5353))
        assert select.select([receiver], [], [], natprobe.PATIENCE_S)[0]
        assert receiver.recvfrom(20) == (b"who is there?", sender.getsockname())
        with pytest.raises(OSError, match="unreachable"):
            sender.sendto(b"?", servers.address((0, 0)))


@pytest.mark.parametrize("ipv6", [Ipv6.FIREWALL, Ipv6.OPEN])
def test_ipv6_passes_homes_as_the_router_filters(lab, ipv6):
    server = lab.host(f"six-{ipv6}")
    host = lab.host(f"home-{ipv6}", NatKind.PORT, ipv6=ipv6, ipv4=False)
    with server.socket(socket.AF_INET6) as outside, host.socket(socket.AF_INET6) as inside:
        for opened, owner in ((outside, server), (inside, host)):
            opened.bind((owner.address6, 0))
            opened.settimeout(natprobe.PATIENCE_S)
        outside.sendto(b"unasked", inside.getsockname())
        inside.sendto(b"hello", outside.getsockname())
        assert outside.recvfrom(10)[1] == inside.getsockname()
        outside.sendto(b"asked", inside.getsockname())
        assert inside.recv(10) == (b"asked" if ipv6 is Ipv6.FIREWALL else b"unasked")
    assert host.address is None and ipaddress.ip_address(host.address6).is_global


def test_ipv6_goes_through_two_routers_and_survives_renumbering(lab):
    server, host = lab.host("six"), lab.host("six-double", NatKind.DOUBLE, ipv6=Ipv6.OPEN)
    with server.socket(socket.AF_INET6) as outside:
        outside.bind((server.address6, 0))
        outside.settimeout(natprobe.PATIENCE_S)
        for _ in range(2):
            with host.socket(socket.AF_INET6) as inside:
                inside.sendto(b"hello", outside.getsockname())
                assert outside.recvfrom(10)[1][0] == host.address6
            before = host.address6
            host.renumber()
            assert host.address6 != before


def test_a_small_mtu_is_told_by_the_router(lab, servers):
    host = lab.host("small", NatKind.PORT, mtu_bytes=1300)
    with natprobe.bound(host) as opened:
        opened.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: always
        opened.connect(servers.address((0, 0)))
        until = time.monotonic() + natprobe.PATIENCE_S
        with pytest.raises(OSError, match="too long"):
            while time.monotonic() < until:  # the first is what the router tells about
                opened.send(bytes(1400))
        assert opened.getsockopt(socket.IPPROTO_IP, 14) == 1300  # IP_MTU


def test_a_link_delays_loses_and_counts_each_way_for_itself(lab, servers):
    host = lab.host("far", NatKind.PORT, link=Link(), link_down=Link(delay_s=0.05))
    server = servers.sockets[0, 0]
    with natprobe.bound(host) as opened:
        outside = servers.seen(opened)
        began = time.monotonic()
        server.sendto(b"answer", outside)
        assert select.select([opened], [], [], natprobe.PATIENCE_S)[0]
        assert time.monotonic() - began >= 0.05
        host.set_link(Link(loss=1.0))
        lost = host.router.link_stats()["up"]["lost"]
        opened.sendto(b"lost", servers.address((0, 0)))
        while host.router.link_stats()["up"]["lost"] == lost:
            assert time.monotonic() - began < natprobe.PATIENCE_S
        host.set_link(None)
        assert servers.seen(opened) == outside


def test_a_link_between_routers_of_one_carrier(lab, servers):
    carrier = lab.router("carrier", NatKind.PORT_RANDOM)
    host = lab.host("subscriber", NatKind.PORT, behind=carrier, link=Link(delay_s=0.01))
    with natprobe.bound(host) as opened:
        assert servers.seen(opened)[0] == carrier.address


NAT_PMP = 5351


def test_a_router_maps_ports_when_asked_and_forgets_them_when_it_reboots(lab, servers):
    try:
        host = lab.host("gamer", NatKind.PORT, port_mapping=PortMapping.ALL)
    except LabError as error:
        if "apt-get" in str(error):
            pytest.skip(str(error))
        raise
    with natprobe.bound(host) as asking, natprobe.bound(host) as opened:
        port = opened.getsockname()[1]
        asking.connect((str(host.router.lan.inside[1]), NAT_PMP))
        for attempt in range(2):  # again after a reboot
            asking.send(struct.pack("!BBHHHI", 0, 1, 0, port, port + attempt, 60))
            assert select.select([asking], [], [], natprobe.PATIENCE_S)[0]
            answer = asking.recv(64)
            assert answer[:4] == bytes((0, 129, 0, 0))
            mapped = struct.unpack_from("!H", answer, 10)[0]
            servers.sockets[1, 1].sendto(b"unasked", (host.router.address, mapped))
            assert select.select([opened], [], [], natprobe.PATIENCE_S)[0]
            assert opened.recvfrom(10) == (b"unasked", servers.address((1, 1)))
            opened.sendto(b"welcome", servers.address((1, 1)))
            assert select.select([servers.sockets[1, 1]], [], [], natprobe.PATIENCE_S)[0]
            assert servers.sockets[1, 1].recvfrom(10) == (b"welcome", (host.router.address, mapped))
            host.flush()
            servers.sockets[1, 1].sendto(b"unasked", (host.router.address, mapped))
            assert servers.arriving(opened, servers.seen(opened)) == []


INDEPENDENT = Path(__file__).resolve().parents[3] / "shared" / "natlab" / "natlab.py"
THEIR_WORDS = {
    NatKind.PUBLIC: "none",
    NatKind.SYMMETRIC_BLOCK: "symmetric,ports=20480-20991",
    NatKind.DOUBLE: "port@outer",
    NatKind.CGN: "port@carrier",
    NatKind.CGN_HAIRPIN: "port@hairpin",
}
THEIR_ROUTERS = "outer:=port", "carrier:=port", "hairpin:=port,hairpin=on"


@pytest.fixture
def independent():
    """Another laboratory, which knows nothing of this one: what its own prober says of the same kinds."""
    if not INDEPENDENT.exists():
        pytest.skip("there is no other laboratory beside this checkout")
    command = [sys.executable, str(INDEPENDENT), "-L", "independent"]
    sites = [f"{kind}={THEIR_WORDS.get(kind, kind)}" for kind in KINDS if kind.behaviour.udp]
    subprocess.run([*command, "up", *sites, *THEIR_ROUTERS], check=True, capture_output=True)
    with contextlib.ExitStack() as stack:
        stack.callback(subprocess.run, [*command, "down"], check=True, capture_output=True)
        probing = {}
        for kind in KINDS:
            if kind.behaviour.udp:
                probing[kind] = subprocess.Popen([*command, "probe", kind], stdout=subprocess.PIPE, text=True)
                stack.enter_context(probing[kind])
        yield {kind: json.loads(process.communicate()[0])[kind] for kind, process in probing.items()}


def test_an_independent_laboratory_means_the_same_by_the_names_of_kinds(hosts, servers, independent):
    differing = []
    for kind, theirs in independent.items():
        ours = natprobe.measure(hosts[kind][0], servers)
        pairs = {
            "mapping": (ours.mapping, theirs["mapping"] if theirs["nat"] else "none"),
            "filtering": (ours.filtering, "none" if kind is NatKind.PUBLIC else theirs["filtering"]),
            "preserves port": (ours.preserves_port, theirs["port_preserved"]),
            "hairpin": (ours.hairpin, theirs["nat"] and theirs["hairpin"]),
        }
        differing += [(kind, name, *pair) for name, pair in pairs.items() if pair[0] != pair[1]]
    assert differing == []


def test_the_examples_of_the_page_run(root):
    with open_lab("demo"):
        pass  # or it cannot run here
    page = (root / "docs" / "natlab.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(examples) == 4
    names = {"__name__": "example"}
    for number, example in enumerate(examples, 1):
        exec(compile(example, f"docs/natlab.md, example {number}", "exec"), names)


def test_the_command_line_runs_a_command_on_the_first_host():
    with open_lab("natlabu"):
        pass
    command = [sys.executable, "-m", "interpeer.testing.natlab", "--name", "natlabu"]
    asked = [*command, "a=port,delay_s=0.001", "b", "--", "sh", "-c", "echo $0; ip route get {b}; exit 3", "{a}"]
    done = subprocess.run(asked, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.startswith("20.") and "192.168.1.10" in done.stdout
    refused = subprocess.run([*command, "a=prt"], check=False, capture_output=True, text=True)
    assert refused.returncode == 2 and "not a kind of NAT" in refused.stderr


def test_commands_run_on_a_host_and_end_with_the_laboratory():
    with open_lab("natlabu") as lab:
        host = lab.host("a", NatKind.PORT)
        assert host.run(["ip", "-4", "-o", "address", "show", "out"]).stdout.split()[3] == "192.168.1.10/24"
        with pytest.raises(subprocess.CalledProcessError):
            host.run(["false"])
        with pytest.raises(LabError, match="runs already"):
            Lab("natlabu")
        process = host.popen(["sleep", "1000"])
    assert process.returncode < 0
    assert names("nat-natlabu-") == []


def test_what_a_crash_has_left_is_removed_by_the_next_of_that_name():
    crash = """
import os
from subprocess import DEVNULL
from interpeer.testing import Link, NatKind
from interpeer.testing.natlab import Lab
host = Lab("natlabu").host("a", NatKind.PORT, link=Link())
print(host.popen(["sleep", "1000"], stdout=DEVNULL, stderr=DEVNULL).pid, flush=True)
os._exit(0)
"""
    with open_lab("natlabu"):
        pass
    orphan = int(subprocess.run([sys.executable, "-c", crash], check=True, capture_output=True, text=True).stdout)
    assert names("nat-natlabu-")
    with Lab("natlabu") as lab:
        assert names("nat-natlabu-") == ["nat-natlabu-internet"]
        lab.host("a", NatKind.PORT, link=Link())
    with contextlib.suppress(FileNotFoundError):  # or it is dead, and nobody has asked yet
        assert Path("/proc", str(orphan), "stat").read_text().rpartition(")")[2].split()[0] in "ZX"


def test_what_does_not_fit_together_is_refused():
    with open_lab("natlabu") as lab:
        with pytest.raises(ValueError, match="is short"):
            lab.host("Not A Name")
        with pytest.raises(ValueError, match="cannot have IPv6"):
            lab.host("a", behind=lab.router("r"), ipv6=Ipv6.OPEN)
        with pytest.raises(ValueError, match="not routers"):
            lab.host("b", NatKind.PORT, behind=lab.switch("s"), ipv6=Ipv6.OPEN)
        with pytest.raises(ValueError, match="a router has a NAT"):
            lab.router("c", NatKind.FIREWALL)
        with pytest.raises(ValueError, match="not behind a router"):
            lab.host("d").set_nat(NatKind.PORT)
        with pytest.raises(ValueError, match="port mapping is what a router offers"):
            lab.host("e", port_mapping=PortMapping.IGD)
        with pytest.raises(ValueError, match="CoDel"):
            lab.host("f", link=Link(codel_target_s=0.005))
        with pytest.raises(ValueError, match="no link that counts"):
            lab.host("g").link_stats()
