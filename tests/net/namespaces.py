"""Network namespaces of the calling user's own, for what loopback cannot show: full queues, filters, scopes, small MTUs.

Run as a script inside such a namespace it carries out the case named and prints what it saw as JSON."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

UNSHARE = ("unshare", "--user", "--map-root-user", "--net")
IP_RECVERR = 11
NEIGHBOUR = "02:00:00:00:00:02"


def are_available() -> bool:
    """Tell whether this user may make them."""
    if not all(map(shutil.which, ("unshare", "ip"))):
        return False
    return subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode == 0


def run_case(name: str, script: str = __file__) -> dict:
    """Run a function of this file, or of another script, in a fresh namespace and return what it returned."""
    source = str(Path(__file__).resolve().parents[2] / "src")
    path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    command = [*UNSHARE, sys.executable, script, name]
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


def make_link() -> None:
    """A link between veth0, which has addresses, and veth1, which has none and answers nothing."""
    ip("link set lo up")
    ip("link add veth0 type veth peer name veth1 address " + NEIGHBOUR)
    ip("address add 10.9.0.1/24 dev veth0")
    ip("address add fe80::1/64 dev veth0 nodad")
    ip("link set veth0 up")
    ip("link set veth1 up")


def udp_payloads(wire: socket.socket, port: int, count: int) -> list[str]:
    """Read frames until so many IPv4 datagrams to the port have come by."""
    payloads = []
    while len(payloads) < count:
        frame = wire.recv(65536)
        if frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_UDP and int.from_bytes(frame[36:38], "big") == port:
            payloads.append(frame[42:].decode().strip())
    return payloads


def full_socket() -> dict:
    """A neighbour that does not answer holds our packets; when its address becomes known they leave."""
    from interpeer._core.udpsocket import UdpSocket

    make_link()
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    wire.bind(("veth1", 0))
    wire.settimeout(20)
    sender = UdpSocket("10.9.0.1")
    with socket.socket(fileno=os.dup(sender.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    waiting = [sender.send([(f"{i:<1000}".encode(), ("10.9.0.2", 7000)) for i in range(20)])]
    waiting.append(sender.flush())
    writable = sender.wait(for_sending=True, timeout=0)
    ip(f"neighbour replace 10.9.0.2 lladdr {NEIGHBOUR} dev veth0")
    while sender.flush():
        sender.wait(for_sending=True)
    payloads = udp_payloads(wire, 7000, 20)
    return {"waiting": waiting, "writable": writable, "payloads": payloads, "counters": sender.counters()}


def full_queue() -> dict:
    """A slow interface whose queue is full, on a socket that is told so."""
    from interpeer._core.udpsocket import UdpSocket

    make_link()
    ip(f"neighbour replace 10.9.0.2 lladdr {NEIGHBOUR} dev veth0")
    shaper = ["tc", "qdisc", "add", "dev", "veth0", "root", "tbf", "rate", "8kbit", "burst", "1600", "limit", "1600"]
    if not shutil.which("tc") or subprocess.run(shaper, check=False, capture_output=True).returncode:
        return {"skipped": "no token bucket here"}
    sender, receiver = UdpSocket("0.0.0.0"), UdpSocket("127.0.0.1")
    with socket.socket(fileno=os.dup(sender.fileno())) as same:
        same.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    waiting = sender.send([*[(bytes(1000), ("10.9.0.2", 7000))] * 10, (b"fine", receiver.address)])
    receiver.wait()
    return {"waiting": waiting, "counters": sender.counters(), "arrived": [m[0].decode() for m in receiver.receive()]}


def failing_routes() -> dict:
    """Destinations without route, prohibited, unreachable, and behind an interface that takes less."""
    from interpeer._core.udpsocket import UdpSocket

    make_link()
    ip("route add prohibit 10.9.1.0/24")
    ip("route add unreachable 10.9.2.0/24")
    ip("link set veth0 mtu 1280")
    sender, receiver = UdpSocket("0.0.0.0"), UdpSocket("127.0.0.1")
    sender.send(
        [
            (b"no route", ("10.10.0.1", 7000)),
            (b"prohibited", ("10.9.1.1", 7000)),
            (b"unreachable", ("10.9.2.1", 7000)),
            (bytes(1400), ("10.9.0.2", 7000)),
            (bytes(14000), ("10.9.0.2", 7000), 1400),
            (b"fine", ("127.0.0.1", receiver.address[1])),
        ]
    )
    counters = sender.counters()
    ip("link set veth0 down")
    sender.send([(b"interface down", ("10.9.0.2", 7000)), (b"fine", ("127.0.0.1", receiver.address[1]))])
    receiver.wait()
    return {"before": counters, "after": sender.counters(), "arrived": [m[0].decode() for m in receiver.receive()]}


def link_local() -> dict:
    """A link-local address needs its scope, and tells it."""
    from interpeer._core.udpsocket import UdpSocket

    make_link()
    scope = socket.if_nametoindex("veth0")
    sender, receiver = UdpSocket("fe80::1", scope=scope), UdpSocket("::")
    port = receiver.address[1]
    sender.send([(b"to the link", ("fe80::1", port, scope))])
    receiver.wait()
    (message,) = receiver.receive()
    receiver.send([(b"back", message[1][:2], 0, 0, message[4], scope)])  # the interface stands in for the scope
    sender.wait()
    (answer,) = sender.receive()
    return {"scope": scope, "bound": sender.address, "from": message[1], "local": message[4], "answer": answer[0].decode()}


def broadcast() -> dict:
    """What came by broadcast is answered from an address of ours."""
    from interpeer._core.udpsocket import UdpSocket

    make_link()
    sender, receiver = UdpSocket("10.9.0.1"), UdpSocket("0.0.0.0")
    with socket.socket(fileno=os.dup(sender.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sender.send([(b"all", ("10.9.0.255", receiver.address[1]))])
    receiver.wait()
    (message,) = receiver.receive()
    receiver.send([(b"here", message[1], 0, 0, message[4])])
    sender.wait()
    return {"local": message[4], "answers": [m[0].decode() for m in sender.receive()]}


def without_ipv6() -> dict:
    """A machine whose IPv6 is switched off still has IPv4."""
    from interpeer._core.udpsocket import UdpSocket

    Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
    ip("link set lo up")
    try:
        UdpSocket("::1")
    except OSError as error:
        return {"error": str(error), "errno": error.errno, "ipv4": UdpSocket("127.0.0.1").address}
    return {"error": None}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()))
