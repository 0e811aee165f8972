"""Tunnels over loopback: calls that UDP does not answer, transfers that move to UDP when it does, and callers that mean ill."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
from contextlib import asynccontextmanager, suppress

import pytest

from interpeer import Address, Config, Endpoint, Node, _tunnel, errors
from interpeer._address import is_virtual
from interpeer._tunnel import listening, websocket

TRANSPORTS = ["tcp", "tls", "ws", "wss"]
DATA = hashlib.shake_128(b"tunnels").digest(20_000_000)
MOST_OF_AN_ADDRESS = 16


class Gate(asyncio.DatagramProtocol):
    """A way for UDP to a port of this machine that can be shut: what comes then is lost, as in a firewall."""

    def __init__(self, target: int) -> None:
        self.is_open = False
        self._target = ("127.0.0.1", target)
        self._caller: tuple[str, int] | None = None

    def connection_made(self, transport) -> None:
        self._transport = transport
        self.endpoint = Endpoint(*transport.get_extra_info("sockname"))

    def datagram_received(self, data, source) -> None:
        if source != self._target:
            self._caller = source
        if self.is_open and self._caller is not None:
            self._transport.sendto(data, self._caller if source == self._target else self._target)


def settings(transport, **more):
    return Config(tunnel_listen=(f"{transport}://127.0.0.1:0",), **more)


def tunnel_of(node) -> Endpoint:
    (endpoint,) = (one for one in node.address.endpoints if one.transport != "udp")
    return endpoint


@asynccontextmanager
async def gated(transport):
    """Two nodes, and the address of the second with its tunnel and with UDP through a gate that is shut."""
    async with (
        Node(listen="127.0.0.1:0") as a,
        Node(listen="127.0.0.1:0", config=settings(transport)) as b,
    ):
        loop = asyncio.get_running_loop()
        made, gate = await loop.create_datagram_endpoint(lambda: Gate(b.address.endpoints[0].port), local_addr=("127.0.0.1", 0))
        try:
            yield a, b, gate, Address.of(b.id, [gate.endpoint, tunnel_of(b)])
        finally:
            made.close()


async def send(writer, reader, data=DATA):
    async with writer.open_stream() as stream:
        peer = await reader.accept_stream()
        reading = asyncio.ensure_future(peer.read())
        await stream.write(data)
        await stream.finish()
        assert await reading == data


async def until_closed(reader, writer):
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await reader.readexactly(1)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("driver", "transport"),
    [
        *(("asyncio", transport) for transport in TRANSPORTS),
        *((driver, "tls") for driver in ("uvloop", "thread", "shards", "portable")),
    ],
    indirect=["driver"],
)
def test_call_that_udp_does_not_answer_goes_by_tunnel_and_moves_to_udp_when_that_works(run, driver, transport):
    async def main():
        async with gated(transport) as (a, b, gate, address):
            async with a.connect(address) as ab:
                ba = await b.accept()
                assert (ab.path.transport, ab.path.remote) == (transport, tunnel_of(b))
                assert ab.path.detail == f"over {_tunnel.NAMES[transport]} to 127.0.0.1:{tunnel_of(b).port}"
                assert ba.path.transport == transport and ba.path.detail.startswith(f"over {_tunnel.NAMES[transport]} from")
                await send(ab, ba)
                await send(ba, ab, DATA[:1_000_000])
                moving = asyncio.ensure_future(send(ab, ba, DATA[:5_000_000]))
                gate.is_open = True
                await until(lambda: ab.path.transport == "udp" and ba.path.transport == "udp")
                assert ab.path.remote == gate.endpoint
                await moving
                assert [path.transport for path in ab.paths if path.state == "active"] == [transport, "udp"], "the tunnel stays"
                gate.is_open = False
                await send(ab, ba, DATA[:1_000_000])
                assert ab.path.transport == transport

    run(main())


def test_call_that_udp_answers_opens_no_tunnel(run):
    async def main():
        async with gated("tcp") as (a, _, gate, address):
            gate.is_open = True
            async with a.connect(address) as ab:
                assert ab.path.transport == "udp" and len(a._tunnels) == 0
                assert not a._tunnels.udp_is_blocked

    run(main())


def test_second_call_does_not_wait_for_udp_that_did_not_answer_the_first(run):
    async def main():
        async with gated("tcp") as (a, b, _, address):
            async with a.connect(address):
                await b.accept()
                assert a._tunnels.udp_is_blocked
                async with a.connect(address) as second:
                    assert second.path.transport == "tcp"

    run(main())


def test_peer_that_has_nothing_but_a_tunnel_is_reached(run):
    async def main():
        async with (
            Node(listen="127.0.0.1:0") as a,
            Node(listen="127.0.0.1:0", config=settings("tcp")) as b,
            a.connect(Address.of(b.id, [tunnel_of(b)])) as ab,
        ):
            assert ab.path.transport == "tcp"
            await send(await b.accept(), ab, b"short")

    run(main())


def test_tunnel_that_breaks_is_opened_again_and_nothing_is_lost(run):
    async def main():
        async with gated("tls") as (a, b, _, address):
            async with a.connect(address) as ab:
                ba = await b.accept()
                moving = asyncio.ensure_future(send(ab, ba, DATA[:5_000_000]))
                await until(lambda: ab.stats().bytes_sent > 1_000_000)
                (carrier,) = a._tunnels._by_number.values()
                carrier.abort()
                await moving
                (again,) = a._tunnels._by_number.values()
                assert again is not carrier and ab.path.transport == "tls"

    run(main())


@pytest.mark.parametrize("error", [ConnectionRefusedError, ImportError, ValueError])
@pytest.mark.parametrize("driver", ["asyncio"], indirect=True)
def test_udp_is_tried_when_the_tunnel_cannot_be_opened_again(run, monkeypatch, error):
    async def main():
        async with gated("tcp") as (a, b, gate, address), a.connect(address) as ab:
            ba = await b.accept()
            await send(ba, ab, b"open at both ends")

            async def refuse(tunnels, endpoint):
                raise error("no")

            monkeypatch.setattr(_tunnel.Tunnels, "open", refuse)
            for carrier in a._tunnels._by_number.values():
                carrier.abort()
            await until(lambda: len(a._tunnels) == 0)
            gate.is_open = True
            await send(ab, ba, b"by UDP")
            assert ab.path.transport == "udp"

    run(main())


@pytest.mark.parametrize("driver", ["asyncio"], indirect=True)
def test_path_through_a_relay_is_no_tunnel_and_no_udp(run, monkeypatch):
    async def main():
        async with gated("tcp") as (a, _, _, address), a.connect(address) as ab:
            upgrader = a._tunnels._upgraders[ab]
            (tunnel,) = (remote for _, state, remote in upgrader._ways() if state == "active")
            assert upgrader._has(is_tunnel=True) and not upgrader._has(is_tunnel=False)
            relayed = tunnel[0][:7] + b"\1" + tunnel[0][8:], *tunnel[1:]
            assert is_virtual(relayed[0]) and not a._tunnels.is_tunnel(relayed)
            monkeypatch.setattr(_tunnel.Upgrader, "_ways", lambda upgrader: [(0, "active", relayed)])
            assert not upgrader._has(is_tunnel=True) and not upgrader._has(is_tunnel=False)

    run(main())


@pytest.mark.parametrize("driver", ["asyncio"], indirect=True)
def test_proxy_that_makes_no_sense_is_a_reason(run, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:port")
    monkeypatch.setenv("no_proxy", "")

    async def main():
        async with Node(listen="127.0.0.1:0") as a, Node(listen="127.0.0.1:0") as b:
            with pytest.raises(errors.Unreachable, match="port"):
                await a.connect(Address.of(b.id, [Endpoint("127.0.0.1", 1, "tls")]))

    run(main())


def test_unreachable_says_why_the_tunnel_did_not_help(run):
    async def main():
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            endpoint = Endpoint("127.0.0.1", closed.getsockname()[1], "tls")
            async with Node(listen="127.0.0.1:0") as a, Node(listen="127.0.0.1:0") as b:
                with pytest.raises(errors.Unreachable) as caught:
                    await a.connect(Address.of(b.id, [endpoint]))
                assert any(reason.startswith(f"{endpoint}: ") for reason in caught.value.reasons)

    run(main())


@pytest.mark.parametrize("driver", ["asyncio"], indirect=True)
def test_websocket_without_its_package_is_refused_with_the_reason(run, monkeypatch):
    async def main():
        monkeypatch.setattr(websocket, "is_available", lambda: False)
        with pytest.raises(ValueError, match="pip install interpeer"):
            async with Node(listen="127.0.0.1:0", config=settings("ws")):
                pass
        async with Node(listen="127.0.0.1:0") as a, Node(listen="127.0.0.1:0") as b:
            with pytest.raises(errors.Unreachable, match="pip install interpeer"):
                await a.connect(Address.of(b.id, [Endpoint("127.0.0.1", 1, "wss")]))

    run(main())


@pytest.mark.parametrize("driver", ["asyncio", "uvloop"], indirect=True)
def test_tunnel_goes_through_the_proxy_of_the_environment(run, monkeypatch):
    seen = []

    async def proxy(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head.split(b"\r\n")[0])
        host, port = head.split()[1].decode().rsplit(":", 1)
        other_reader, other_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def copy(source, to):
            while data := await source.read(65536):
                to.write(data)
            to.close()

        await asyncio.gather(copy(reader, other_writer), copy(other_reader, writer), return_exceptions=True)

    async def main(transport):
        server = await asyncio.start_server(proxy, "127.0.0.1", 0)
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        async with Node(listen="127.0.0.1:0") as a, Node(listen="127.0.0.1:0", config=settings(transport)) as b:
            at = tunnel_of(b)
            async with a.connect(Address.of(b.id, [at])) as ab:
                await send(ab, await b.accept(), DATA[:1_000_000])
            assert seen.pop() == f"CONNECT 127.0.0.1:{at.port} HTTP/1.1".encode()
        server.close()
        await until(lambda: len(asyncio.all_tasks()) == 1)  # but for this one

    run(main("tls"))


# --- strangers ---


@pytest.mark.parametrize("sent", [b"\0\0", b"\x05\xdd" + bytes(1501), b"GET / HTTP/1.1\r\n\r\n"])
def test_stream_that_is_no_tunnels_is_closed(run, sent):
    async def main():
        async with Node(listen="127.0.0.1:0", config=settings("tcp")) as b:
            reader, writer = await asyncio.open_connection("127.0.0.1", tunnel_of(b).port)
            writer.write(b"\0\x03abc" + sent)
            await until_closed(reader, writer)
            await until(lambda: len(b._tunnels) == 0)

    run(main())


@pytest.mark.parametrize("sent", [b"", b"\x05\x00abc", b"\0\x14" + bytes(20)], ids=["nothing", "half", "junk"])
def test_tunnel_that_brings_no_connection_is_closed(run, monkeypatch, sent):
    monkeypatch.setattr(_tunnel, "HANDSHAKE_S", 0.05)
    monkeypatch.setattr(_tunnel, "TEND_S", 0.02)

    async def main():
        async with Node(listen="127.0.0.1:0", config=settings("tcp")) as b:
            reader, writer = await asyncio.open_connection("127.0.0.1", tunnel_of(b).port)
            writer.write(sent)
            await until_closed(reader, writer)
            assert len(b._tunnels) == 0

    run(main())


def test_tunnel_in_use_is_not_taken_for_an_idle_one(run, monkeypatch):
    monkeypatch.setattr(_tunnel, "HANDSHAKE_S", 0.05)
    monkeypatch.setattr(_tunnel, "TEND_S", 0.02)

    async def main():
        async with gated("tcp") as (a, b, _, address), a.connect(address) as ab:
            ba = await b.accept()
            for carrier in b._tunnels._by_number.values():
                before = carrier.opened_s
                await until(lambda carrier=carrier, before=before: carrier.opened_s > before + 0.2)
            await send(ab, ba, b"still there")

    run(main())


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_one_address_has_no_more_tunnels_than_its_share(run, transport):
    async def main():
        async with Node(listen="127.0.0.1:0", config=settings(transport)) as b:
            opened = [await asyncio.open_connection("127.0.0.1", tunnel_of(b).port) for _ in range(MOST_OF_AN_ADDRESS + 1)]
            await until_closed(*opened.pop())
            assert b._tunnels.callers._voices.total() == MOST_OF_AN_ADDRESS
            for _, writer in opened:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
            await until(lambda: b._tunnels.callers._voices.total() == 0)

    run(main())


@pytest.mark.parametrize("transport", ["tcp", "tls", "ws"])
def test_callers_that_are_gone_before_they_are_accepted_take_no_places(run, transport):
    async def main():
        async with Node(listen="127.0.0.1:0", config=settings(transport)) as b:
            for _ in range(MOST_OF_AN_ADDRESS - 1):
                with socket.socket() as caller:
                    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
                    caller.connect(("127.0.0.1", tunnel_of(b).port))
            _, writer = await asyncio.open_connection("127.0.0.1", tunnel_of(b).port)
            await until(lambda: b._tunnels.callers._voices.total() == 1)
            writer.close()
            await writer.wait_closed()
            await until(lambda: b._tunnels.callers._voices.total() == 0)

    run(main())


@pytest.mark.parametrize("driver", ["asyncio"], indirect=True)
def test_caller_that_is_gone_where_the_system_says_so_keeps_nobody_waiting(run, monkeypatch):
    monkeypatch.setattr(listening, "RETRY_S", 1e6)

    async def main():
        loop = asyncio.get_running_loop()
        accept, gone = loop.sock_accept, [ConnectionAbortedError()] * 3

        async def accept_later(sock):
            if gone:
                raise gone.pop()
            return await accept(sock)

        loop.sock_accept = accept_later
        async with Node(listen="127.0.0.1:0") as a, Node(listen="127.0.0.1:0", config=settings("tcp")) as b:
            async with a.connect(Address.of(b.id, [tunnel_of(b)])) as ab:
                assert ab.path.transport == "tcp" and not gone

    run(main())


@pytest.mark.parametrize("is_caller", [True, False])
def test_websocket_that_the_peer_closes_is_gone_and_nothing_is_written_to_it(run, is_caller):
    async def main():
        async with (
            Node(listen="127.0.0.1:0") as a,
            Node(listen="127.0.0.1:0", config=settings("ws")) as b,
        ):
            await a._tunnels.open(tunnel_of(b))
            await until(lambda: b._tunnels._by_number)
            node, other = (a, b) if is_caller else (b, a)
            (carrier,), (closing,) = node._tunnels._by_number.values(), other._tunnels._by_number.values()
            closing._machine.send_close(1000)  # and nothing more: TCP stays open
            carrier.data_received(b"".join(closing._machine.data_to_send()))
            node._tunnels.on_frames(carrier.number, b"\0\3abc")
            await until(lambda: len(node._tunnels) == 0)

    run(main())


@pytest.mark.parametrize("transport", ["ws", "wss"])
def test_websocket_elsewhere_is_refused(run, transport):
    async def main():
        async with Node(listen="127.0.0.1:0") as a, Node(listen="127.0.0.1:0", config=settings(transport)) as b:
            elsewhere = Endpoint("127.0.0.1", tunnel_of(b).port, transport, "/elsewhere")
            with pytest.raises(errors.Unreachable, match="404"):
                await a.connect(Address.of(b.id, [elsewhere]))

    run(main())


def test_addresses_where_nobody_can_listen_are_told(run):
    async def main():
        with pytest.raises(OSError, match="cannot listen for tunnels at tcp://192.0.2.1"):
            async with Node(listen="127.0.0.1:0", config=Config(tunnel_listen=("tcp://192.0.2.1:0",))):
                pass

    run(main())


def test_callers_are_counted_by_household():
    callers = listening.Callers()
    assert (
        listening.voice_of("2001:db8:1:2::5") == listening.voice_of("2001:db8:1:2:3::9") != listening.voice_of("2001:db8:1:3::5")
    )
    assert all(callers.enter("192.0.2.1") for _ in range(MOST_OF_AN_ADDRESS)) and not callers.enter("192.0.2.1")
    assert callers.enter("192.0.2.2")
    callers.leave("192.0.2.1")
    assert callers.enter("192.0.2.1")
    more = [callers.enter(f"198.51.100.{i}") for i in range(1, 250)]
    assert more.count(True) == listening.MAX_INCOMING - MOST_OF_AN_ADDRESS - 1
