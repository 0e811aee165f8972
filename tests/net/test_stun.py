"""STUN over real sockets, between nodes and with other people's clients and servers, in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator

import pytest
from aioice import ice
from aioice import stun as ice_stun

import interpeer
from interpeer._address import Endpoint
from interpeer._core import stun
from interpeer._nat import NodeHooks, Server, State, discover
from interpeer._nat._client import StunClient
from tests.models import stun as model

ID = bytes(range(12))
HOSTS = ("127.0.0.1", "127.0.1.1", "127.0.2.1")


def core(host: str, port: int):
    return Endpoint(host, port).to_core()


@contextlib.asynccontextmanager
async def nodes(*hosts, **options) -> AsyncIterator[list[interpeer.Node]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(interpeer.Node(listen=f"{host}:0", **options)) for host in hosts]


def server(node) -> Server:
    return Server(node.address.endpoints[0].to_core())


# --- nodes among themselves ---


def test_nodes_tell_each_other_where_they_are(run):
    async def main():
        async with nodes(*HOSTS) as (asking, *answering):
            report = await discover(
                NodeHooks(asking), [server(one) for one in answering], own=[asking.address.endpoints[0].to_core()]
            )
            assert (report.udp, report.mapping, report.preserves_port) == (True, "none", True)
            assert report.reflexive == (asking.address.endpoints[0],) and report.hairpin
            assert all(one.counters()["stun_answered"] for one in answering)
            assert asking.counters()["stun_answered"] == 0 and not asking._expected

    run(main())


def test_a_node_that_is_told_not_to_answers_nobody(run):
    async def main():
        config = interpeer.Config(stun_server=False)
        async with nodes(HOSTS[0]) as (asking,), nodes(HOSTS[1], config=config) as (silent,):
            with StunClient(NodeHooks(asking)) as client:
                result = await client.ask(client.open(is_main=True), server(silent).endpoint, tries=1, last_wait=1)
            assert result.state is State.TIMED_OUT
            assert silent.counters()["dropped_stun"] == 1

    run(main())


def test_a_node_on_ipv6_is_told_its_address(run):
    async def main():
        async with nodes("[::1]", "[::1]") as (asking, answering):
            with StunClient(NodeHooks(asking)) as client:
                result = await client.ask(client.open(is_main=True, is_ipv6=True), server(answering).endpoint)
            assert result.mapped == asking.address.endpoints[0].to_core()

    run(main())


def test_an_answer_goes_to_another_port_where_it_is_asked_for(run):
    async def main():
        async with nodes(*HOSTS[:2]) as (asking, answering):
            with StunClient(NodeHooks(asking)) as client:
                silent, loud = client.open(), client.open()
                result = await client.ask(loud, server(answering).endpoint, response_port=silent.port)
            assert result.mapped == core("127.0.0.1", loud.port)

    run(main())


# --- coturn ---


def free_ports(count: int) -> list[int]:
    """Return ports that nobody has on any of the addresses, at this moment."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.bind(("", 0))
            found.append(sock.getsockname()[1])
    return found


@contextlib.asynccontextmanager
async def coturn(folder) -> AsyncIterator[tuple[int, int]]:
    """Run a STUN server with two addresses and two ports, without a daemon, a database of its users, or a log."""
    port, other = free_ports(2)
    command = (
        "turnserver", "-n", "--stun-only", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp", "--log-file", "stdout",
        "--listening-ip", HOSTS[0], "--listening-ip", HOSTS[1], "--listening-port", str(port), "--alt-listening-port", str(other),
        "--pidfile", str(folder / "pid"), "--userdb", str(folder / "users"),
    )  # fmt: skip
    nothing = subprocess.DEVNULL
    with await asyncio.to_thread(subprocess.Popen, command, stdin=nothing, stdout=nothing, stderr=nothing, cwd=folder) as process:
        try:
            yield port, other
        finally:
            process.terminate()


@pytest.mark.system("turnserver")
@pytest.mark.parametrize("driver", ["asyncio"], indirect=True)
def test_our_client_asks_coturn(run, tmp_path):
    async def main():
        async with coturn(tmp_path) as (port, other), nodes("127.0.2.1") as (asking,):
            report = await discover(
                NodeHooks(asking), [Server(core(HOSTS[0], port))], own=[asking.address.endpoints[0].to_core()]
            )
            assert (report.mapping, report.filtering, report.preserves_port) == ("none", "none", True)
            with StunClient(NodeHooks(asking)) as client:
                socket, another = client.open(), client.open()
                change = stun.CHANGES_ADDRESS | stun.CHANGES_PORT
                changed = await client.ask(socket, core(HOSTS[0], port), change=change, answers_from=core(HOSTS[1], other))
                assert changed.mapped == core("127.0.2.1", socket.port)
                moved = await client.ask(another, core(HOSTS[0], port), response_port=socket.port)
                assert moved.mapped == core("127.0.2.1", another.port)
            message = changed.message
            assert message is not None and message.software.startswith(b"Coturn") and message.origin == core(HOSTS[1], other)

    run(main())


async def output_of(*command: str) -> str:
    done = await asyncio.to_thread(subprocess.run, command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.system("turnutils_natdiscovery", "turnutils_stunclient")
@pytest.mark.parametrize("driver", ["asyncio"], indirect=True)
def test_coturns_clients_ask_us(run):
    """They send 20 bytes, which pay for no answer: who pads, or asks again, gets one."""

    async def main():
        async with nodes(HOSTS[0]) as (node,):
            port = str(node.address.endpoints[0].port)
            said = await output_of("turnutils_natdiscovery", "-m", "-P", "-p", port, HOSTS[0])
            assert f"reflexive addr: {HOSTS[0]}:" in said, said
            assert node.counters()["stun_answered"] >= 1

        async with nodes(HOSTS[0]) as (node,):
            port = str(node.address.endpoints[0].port)
            command = ("turnutils_stunclient", "-p", port, HOSTS[0])
            with await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.DEVNULL) as first:
                while not node.counters()["dropped_stun"]:
                    await asyncio.sleep(0)
                said = await output_of(*command)
                first.kill()
            assert f"reflexive addr: {HOSTS[0]}:" in said, said
            assert (node.counters()["stun_answered"], node.counters()["dropped_stun"]) == (1, 1)

    run(main())


# --- aioice ---


class Receiver:
    """What an aioice program is told of all that is no answer."""

    def __init__(self) -> None:
        self.other: list[object] = []

    def data_received(self, data, component) -> None:
        self.other.append(data)

    def request_received(self, message, addr, protocol) -> None:
        """Answer as an aioice program would: that is the server of this test."""
        answer = ice_stun.Message(
            message_method=message.message_method, message_class=ice_stun.Class.RESPONSE, transaction_id=message.transaction_id
        )
        answer.attributes["XOR-MAPPED-ADDRESS"] = addr
        answer.attributes["SOFTWARE"] = "aioice"
        answer.add_fingerprint()
        protocol.send_stun(answer, addr)

    def protocol_lost(self, protocol) -> None:
        pass


@contextlib.asynccontextmanager
async def aioice_protocol(host: str):
    loop, receiver = asyncio.get_running_loop(), Receiver()
    transport, protocol = await loop.create_datagram_endpoint(lambda: ice.StunProtocol(receiver), local_addr=(host, 0))
    yield protocol, transport.get_extra_info("sockname")[:2]
    await protocol.close()
    assert receiver.other == []


@pytest.mark.parametrize("driver", ["asyncio"], indirect=True)
def test_aioice_asks_us(run):
    async def main():
        async with nodes(HOSTS[0]) as (node,), aioice_protocol(HOSTS[1]) as (protocol, address):
            at = (HOSTS[0], node.address.endpoints[0].port)

            def request(**attributes):
                made = ice_stun.Message(message_method=ice_stun.Method.BINDING, message_class=ice_stun.Class.REQUEST)
                made.attributes.update(attributes)
                return made

            padded = request(SOFTWARE="x" * 40)
            padded.add_fingerprint()
            for made in (request(SOFTWARE="x" * 40), padded, request()):  # the last one is bare: it is repeated once
                answer, source = await protocol.request(made, at)
                assert (answer.attributes["XOR-MAPPED-ADDRESS"], source) == (address, at)
                assert ("FINGERPRINT" in answer.attributes) == (made is padded)
            with pytest.raises(ice_stun.TransactionFailed) as failed:
                await protocol.request(request(PRIORITY=1, SOFTWARE="x" * 40), at)
            assert failed.value.response.attributes["ERROR-CODE"][0] == 420

    run(main())


@pytest.mark.parametrize("driver", ["asyncio"], indirect=True)
def test_we_ask_aioice(run):
    async def main():
        async with nodes(HOSTS[0]) as (node,), aioice_protocol(HOSTS[1]) as (_, address):
            with StunClient(NodeHooks(node)) as client:
                result = await client.ask(client.open(is_main=True), core(*address))
            assert result.mapped == node.address.endpoints[0].to_core()
            assert result.message is not None and result.message.software == b"aioice" and result.message.has_fingerprint

    run(main())


def test_aioice_reads_what_we_write_and_we_what_it_writes():
    request = stun.binding_request(ID, username=b"me:you", key=b"secret", with_sha1=True)
    read = ice_stun.parse_message(request)
    at = request.index(b"\0\x08\0\x14")  # of the integrity
    covered = ice_stun.set_body_length(request[:at], at - 20)
    assert read.attributes["MESSAGE-INTEGRITY"] == ice_stun.message_integrity(covered, b"secret")
    assert (read.message_class, read.transaction_id) == (ice_stun.Class.REQUEST, ID)
    assert (read.attributes["USERNAME"], read.attributes["SOFTWARE"].encode()) == ("me:you", stun.SOFTWARE)
    for host in ("192.0.2.1", "2001:db8::1"):
        answer = ice_stun.Message(ice_stun.Method.BINDING, ice_stun.Class.ERROR, transaction_id=ID)
        answer.attributes["XOR-MAPPED-ADDRESS"] = (host, 4711)
        answer.attributes["ERROR-CODE"] = (401, "who are you?")
        answer.add_message_integrity(b"secret")
        answer.add_fingerprint()
        ours = stun.parse(bytes(answer))
        assert (ours.mapped, ours.error, ours.reason) == (model.endpoint(host, 4711), 401, b"who are you?")
        assert stun.verify(bytes(answer), b"secret") and not stun.verify(bytes(answer), b"secrets")
