"""Plain UDP of programs on simulated hosts: datagram endpoints, broadcast and multicast on a switch, and options."""

import asyncio
import socket
import struct

import pytest

from interpeer.testing import Link, NatKind, SimNet, SimulationError

MDNS = "224.0.0.251"


class Box(asyncio.DatagramProtocol):
    """Keeps what comes."""

    def __init__(self):
        self.heard, self.errors, self.end = [], [], None

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.heard.append((data, addr[0]))

    def error_received(self, exc):
        self.errors.append(exc.errno)

    def connection_lost(self, exc):
        self.end = asyncio.get_running_loop().time()


async def open_box(host, local=("0.0.0.0", 0), *, groups=(), **options):
    """Open an endpoint on a host; return its transport and what it hears."""

    async def program():
        loop = asyncio.get_running_loop()
        return await loop.create_datagram_endpoint(Box, local_addr=local, **options)

    transport, box = await host.start(program())
    for group in groups:
        join(transport, group)
    return transport, box


def join(transport, group, option=socket.IP_ADD_MEMBERSHIP):
    sock = transport.get_extra_info("socket")
    if ":" in group:
        sock.setsockopt(
            socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, group) + struct.pack("=I", 1)
        )
    else:
        sock.setsockopt(socket.IPPROTO_IP, option, socket.inet_aton(group) + bytes(4))


def test_datagrams_go_between_hosts_through_nats(sim):
    async def main():
        net = SimNet(Link(delay_s=0.01))
        server, client = net.host("server", "203.0.113.1"), net.host("client", nat=NatKind.SYMMETRIC)
        there, heard = await open_box(server, ("0.0.0.0", 3478))
        near, answers = await open_box(client, ("0.0.0.0", 5000))
        near.sendto(b"question", ("203.0.113.1", 3478))
        await asyncio.sleep(1)
        assert heard.heard == [(b"question", client.router.address)]
        assert there.get_extra_info("sockname") == ("0.0.0.0", 3478)
        there.sendto(b"answer", (client.router.address, 5000))  # not where it came from
        await asyncio.sleep(1)
        assert answers.heard == []
        for transport in (there, near):
            transport.close()
        await asyncio.sleep(0)
        assert answers.end == heard.end == 3.0
        near.sendto(b"late", ("203.0.113.1", 3478))
        await open_box(server, ("203.0.113.1", 3478))

    sim.run(main())


def test_a_connected_endpoint_hears_its_remote_alone(sim):
    async def main():
        net = SimNet()
        a, b, c = (net.host(name) for name in "abc")
        (_, at_b), (_, at_c) = [await open_box(host, ("::", 7)) for host in (b, c)]
        near, box = await open_box(a, None, remote_addr=(b.addresses[1], 7))
        near.sendto(b"hello")
        with pytest.raises(ValueError, match="only that of the remote"):
            near.sendto(b"hello", (c.addresses[1], 7, 0, 0))
        await asyncio.sleep(1)
        assert at_b.heard == [(b"hello", a.addresses[1])]
        host, port, *_ = near.get_extra_info("sockname")
        assert host == "::"
        for at in (at_b, at_c):
            at.transport.sendto(b"answer", (a.addresses[1], port))
        await asyncio.sleep(1)
        assert box.heard == [(b"answer", b.addresses[1])]

    sim.run(main())


def test_what_cannot_be_sent_is_told_to_the_protocol(sim):
    async def main():
        net = SimNet()
        host = net.host("a", "192.0.2.1")
        transport, box = await open_box(host)
        transport.sendto(b"x", ("2001:db8::1", 1, 0, 0))
        transport.sendto(b"x", ("255.255.255.255", 1))
        six, box_six = await open_box(host, None, family=socket.AF_INET6)
        six.sendto(b"x", ("2001:db8::1", 1, 0, 0))
        await asyncio.sleep(0)
        assert [socket.errno.errorcode[number] for number in box.errors + box_six.errors] == [
            "ENETUNREACH",
            "EACCES",
            "ENETUNREACH",
        ]
        with pytest.raises(ValueError, match="address family"):
            await open_box(host, None)
        with pytest.raises(OSError, match="not an address"):
            await open_box(host, ("192.0.2.2", 1))
        with pytest.raises(OSError, match="has this port"):
            await open_box(host, transport.get_extra_info("sockname"))
        with pytest.raises(SimulationError, match="on a host"):
            await asyncio.get_running_loop().create_datagram_endpoint(Box, ("0.0.0.0", 0))
        with pytest.raises(SimulationError, match="no sockets"):
            await host.start(asyncio.get_running_loop().create_datagram_endpoint(Box, sock=object()))

    sim.run(main())


@pytest.mark.parametrize("target", ["255.255.255.255", "192.168.1.255"])
def test_a_broadcast_reaches_all_on_the_switch_and_nobody_else(target, sim):
    async def main():
        net = SimNet(Link(delay_s=0.01))
        home = net.router("home", NatKind.FULLCONE)
        sender, near, deaf, off = (net.host(name, nat=home) for name in ("sender", "near", "deaf", "off"))
        others = [net.host("other", nat=net.router("other home")), net.host("public")]
        boxes = {host: (await open_box(host, ("0.0.0.0", 4000)))[1] for host in (sender, near, off, *others)}
        await open_box(deaf, ("0.0.0.0", 4001))
        off.unplug()
        transport, _ = await open_box(sender, allow_broadcast=True)
        transport.sendto(b"anybody?", (target, 4000))
        await asyncio.sleep(1)
        assert {host.name for host, box in boxes.items() if box.heard} == {"sender", "near"}
        assert boxes[near].heard == [(b"anybody?", sender.addresses[0])]

    sim.run(main())


@pytest.mark.parametrize(("group", "wildcard"), [(MDNS, "0.0.0.0"), ("ff02::fb", "::")])
def test_multicast_reaches_those_who_have_joined(group, wildcard, sim):
    async def main():
        net = SimNet()
        home = net.router("home", ipv6="fw")
        a, b, c = (net.host(name, nat=home) for name in "abc")
        sender, own = await open_box(a, (wildcard, 5353), groups=[group], reuse_port=True)
        _, second = await open_box(a, (wildcard, 5353), groups=[group], reuse_port=True)
        _, joined = await open_box(b, (wildcard, 5353), groups=[group])
        _, bound = await open_box(c, (wildcard, 5353))
        sender.sendto(b"query", (group, 5353))
        await asyncio.sleep(1)
        assert [len(box.heard) for box in (own, second, joined, bound)] == [1, 1, 1, 0]
        level, option = (
            (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP) if ":" in group else (socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP)
        )
        sender.get_extra_info("socket").setsockopt(level, option, 0)
        net.wire(a, c).set(is_up=False)
        sender.sendto(b"query", (group, 5353))
        await asyncio.sleep(1)
        assert [len(box.heard) for box in (own, second, joined)] == [1, 1, 2]

    sim.run(main())


def test_a_group_can_be_left_and_the_way_out_chosen(sim):
    async def main():
        net = SimNet()
        one, two = (net.router(name, lan=lan) for name, lan in (("one", None), ("two", "10.0.0.0/24")))
        host = net.host("host", nat=one)
        host.add_interface("wlan0", two)
        neighbours = [net.host(router.name, nat=router) for router in (one, two)]
        ends = [await open_box(neighbour, ("0.0.0.0", 5353), groups=[MDNS]) for neighbour in neighbours]
        transport, _ = await open_box(host)
        options = transport.get_extra_info("socket")
        options.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.0.0.10"))
        transport.sendto(b"query", (MDNS, 5353))
        await asyncio.sleep(1)
        assert [box.heard for _, box in ends] == [[], [(b"query", "10.0.0.10")]]
        assert options.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST) == 0 == options.getsockopt(1, 2)
        join(ends[1][0], MDNS, socket.IP_DROP_MEMBERSHIP)
        transport.sendto(b"query", (MDNS, 5353))
        await asyncio.sleep(1)
        assert len(ends[1][1].heard) == 1
        with pytest.raises(OSError, match="group"):
            options.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, 1)

    sim.run(main())


def test_a_time_to_live_is_set_as_at_a_socket(sim):
    async def main():
        net = SimNet()
        host, peer = net.host("a", nat=NatKind.PORT), net.host("b")
        _, heard = await open_box(peer, ("0.0.0.0", 9))
        transport, _ = await open_box(host)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 2)
        transport.sendto(b"opens the NAT", (peer.addresses[0], 9))
        await asyncio.sleep(1)
        assert heard.heard == []
        assert host.router.mappings == 1
        assert net.counters["ttl expired"] == 1

    sim.run(main())
