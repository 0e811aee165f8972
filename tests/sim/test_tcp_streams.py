"""asyncio's streams between simulated hosts: bytes in order whatever links do, through NATs and firewalls, until an end."""

import asyncio
import itertools

import pytest

from interpeer.testing import Host, Link, NatKind, SimNet, SimulationError

SIZE = 300_000
SERVER = "203.0.113.1"


async def serve(ready, handle, port=443, host=None):
    server = await asyncio.start_server(handle, host, port)
    ready.set_result(server)
    async with server:
        await server.serve_forever()


async def start_server(host: Host, handle, port=443):
    ready = asyncio.get_running_loop().create_future()
    task = host.start(serve(ready, handle, port))
    return await ready, task


async def echo(reader, writer):
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def exchange(data, port=443):
    reader, writer = await asyncio.open_connection(SERVER, port)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def make_net(link=None, **client):
    net = SimNet(link or Link(delay_s=0.02))
    return net, net.host("server", SERVER), net.host("client", **client)


LINKS = {
    "perfect": Link(),
    "loss": Link(delay_s=0.02, loss=0.1),
    "narrow": Link(delay_s=0.02, rate_bit_per_s=5e6, queue_packets=20),
    "all of it": Link(delay_s=0.02, loss=0.05, reorder=0.1, reorder_s=0.01, duplicate=0.05, corrupt=0.02, jitter_s=0.005),
}


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_bytes_come_back_as_they_were_sent_whatever_the_link_does(link, sim):
    async def main():
        _net, server, client = await make_net(link)
        await start_server(server, echo)
        data = sim.bytes(SIZE)
        assert await client.start(exchange(data)) == data

    sim.run(main())


def test_a_transfer_uses_what_a_link_has(sim):
    async def main():
        net, server, client = await make_net(Link(delay_s=0.02, rate_bit_per_s=10e6, queue_packets=50))
        received = asyncio.get_running_loop().create_future()

        async def take(reader, writer):
            received.set_result(len(await reader.read()))
            writer.close()

        async def give():
            _, writer = await asyncio.open_connection(SERVER, 443)
            for _ in range(100):
                writer.write(bytes(50_000))
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        await start_server(server, take)
        begun_s = net.clock.now_s
        client.start(give())
        assert await received == 5_000_000
        rate = 5_000_000 * 8 / (net.clock.now_s - begun_s)
        assert 8.5e6 < rate < 10e6

    sim.run(main())


@pytest.mark.parametrize("kind", list(NatKind))
def test_connections_go_out_through_every_nat_that_lets_their_port_through(kind, sim):
    async def main():
        net, server, client = await make_net(nat=kind)
        seen = []

        async def handle(reader, writer):
            seen.append(writer.get_extra_info("peername")[0])
            await echo(reader, writer)

        await start_server(server, handle, 443)
        await start_server(server, handle, 22)
        data = sim.bytes(20_000)
        assert await client.start(exchange(data)) == data
        if kind.behaviour.translates:
            assert seen == [(client.router.behind or client.router).address]
        if kind.behaviour.tcp_ports is None:
            assert await client.start(exchange(data, 22)) == data
        else:
            begun_s = net.clock.now_s
            with pytest.raises(TimeoutError):
                await client.start(exchange(data, 22))
            assert net.clock.now_s - begun_s == pytest.approx(63, abs=0.1)

    sim.run(main())


def test_nobody_gets_in_through_a_nat_or_a_firewall(sim):
    async def main():
        net, public, home = await make_net(nat=NatKind.FULLCONE)
        fire = net.host("fire", nat=NatKind.FIREWALL)
        for host in (home, fire):
            await start_server(host, echo)
            place = fire.addresses[0] if host is fire else home.router.address
            with pytest.raises(TimeoutError):
                await public.start(asyncio.wait_for(asyncio.open_connection(place, 443), 10))
        assert net.counters["filtered"] + net.counters["not mapped"] == 8

    sim.run(main())


def test_a_flow_whose_nat_forgets_it_is_reset(sim):
    async def main():
        _net, server, client = await make_net(nat=NatKind.SYMMETRIC)
        await start_server(server, echo)

        async def program():
            reader, writer = await asyncio.open_connection(SERVER, 443)
            writer.write(b"before")
            assert await reader.readexactly(6) == b"before"
            client.router.flush()
            writer.write(b"after")
            with pytest.raises(ConnectionResetError):
                await reader.read()

        await client.start(program())

    sim.run(main())


def test_a_port_where_nobody_listens_refuses_at_once(sim):
    async def main():
        net, server, client = await make_net()
        with pytest.raises(ConnectionRefusedError):
            await client.start(exchange(b"", 80))
        assert net.clock.now_s == pytest.approx(0.04)
        listening, task = await start_server(server, echo)
        assert await client.start(exchange(b"x")) == b"x"
        listening.close()
        with pytest.raises(ConnectionRefusedError):
            await client.start(exchange(b"x"))
        task.cancel()

    sim.run(main())


def test_a_peer_that_aborts_resets(sim):
    async def main():
        _net, server, client = await make_net()

        async def abort(reader, writer):
            await reader.readexactly(1)
            writer.transport.abort()

        await start_server(server, abort)
        with pytest.raises(ConnectionResetError):
            await client.start(exchange(b"x"))

    sim.run(main())


def test_a_peer_that_is_gone_is_noticed_after_minutes(sim):
    async def main():
        net, server, client = await make_net()
        await start_server(server, echo)

        async def program():
            reader, writer = await asyncio.open_connection(SERVER, 443)
            server.unplug()
            writer.write(b"hello?")
            with pytest.raises(TimeoutError):
                await reader.read()

        await client.start(program())
        assert 60 < net.clock.now_s < 360

    sim.run(main())


def test_a_hole_in_the_way_is_bridged(sim):
    async def main():
        net, server, client = await make_net()
        await start_server(server, echo)

        async def program():
            reader, writer = await asyncio.open_connection(SERVER, 443)
            net.wire(client, server).set(is_up=False)
            net.wire(client, server).set(is_up=True, after_s=5)
            writer.write(b"hello?")
            answer = await reader.readexactly(6)
            writer.close()
            return answer

        assert await client.start(program()) == b"hello?"
        assert 5 < net.clock.now_s < 12

    sim.run(main())


def test_a_reader_that_does_not_read_stops_the_writer(sim):
    async def main():
        _net, server, client = await make_net()
        may_read, taken = asyncio.Event(), asyncio.get_running_loop().create_future()

        async def slow(reader, writer):
            await may_read.wait()
            taken.set_result(len(await reader.read()))
            writer.close()

        async def program():
            written = 0
            _, writer = await asyncio.open_connection(SERVER, 443)
            try:
                async with asyncio.timeout(60):
                    while True:
                        writer.write(bytes(10_000))
                        written += 10_000
                        await writer.drain()
            except TimeoutError:
                pass
            assert written < 1_500_000  # both ends' buffers
            may_read.set()
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            return written

        await start_server(server, slow)
        assert await client.start(program()) == await taken

    sim.run(main())


def test_one_direction_ends_before_the_other(sim):
    async def main():
        _net, server, client = await make_net()

        async def answer_at_the_end(reader, writer):
            question = await reader.read()
            await asyncio.sleep(30)
            writer.write(question.upper())
            writer.close()

        await start_server(server, answer_at_the_end)
        assert await client.start(exchange(b"question")) == b"QUESTION"

    sim.run(main())


def test_the_message_that_sets_up_or_ends_a_connection_may_be_lost(sim):
    async def main():
        net, server, client = await make_net()
        await start_server(server, echo)
        for lost in range(1, 12):
            numbers = itertools.count(1)
            with net.intercepting(lambda packet, lost=lost, numbers=numbers: () if next(numbers) == lost else None):
                assert await client.start(exchange(b"hello")) == b"hello"
                await asyncio.sleep(30)

    sim.run(main())


def test_a_suspended_host_goes_on_where_it_was(sim):
    async def main():
        _net, server, client = await make_net()
        await start_server(server, echo)

        async def program():
            reader, writer = await asyncio.open_connection(SERVER, 443)
            client.suspend()
            writer.write(b"good night")
            await asyncio.sleep(50)
            client.resume()
            answer = await reader.readexactly(10)
            writer.close()
            return answer

        assert await client.start(program()) == b"good night"

    sim.run(main())


def test_what_asyncio_promises_of_servers_and_transports(sim):
    async def main():
        _net, server, client = await make_net()
        listening, task = await start_server(server, echo, 0)
        (six, _port, *_), (four, port) = (one.getsockname() for one in listening.sockets)
        assert (six, four) == ("::", "0.0.0.0")
        assert listening.is_serving()

        async def program():
            _, writer = await asyncio.open_connection(SERVER, port)
            transport = writer.transport
            assert transport.get_extra_info("peername") == (SERVER, port)
            assert transport.get_extra_info("sockname")[0] == client.addresses[0]
            transport.set_write_buffer_limits(high=1000)
            assert transport.get_write_buffer_limits() == (250, 1000)
            with pytest.raises(ValueError, match="wanted"):
                transport.set_write_buffer_limits(high=1, low=2)
            with pytest.raises(TypeError, match="bytes-like"):
                transport.write("text")
            transport.writelines([b"a", b"b"])
            assert transport.is_reading()
            writer.close()
            assert transport.is_closing()
            with pytest.raises(OSError, match="unreachable"):
                await asyncio.open_connection("2000::1", 1, local_addr=None)

        client.move("198.51.100.7")
        await client.start(program())
        with pytest.raises(OSError, match="another server"):
            await server.start(asyncio.start_server(echo, None, port))
        listening.close()
        await listening.wait_closed()
        assert not listening.is_serving()
        task.cancel()

    sim.run(main())


def test_loopback_and_nodes_are_on_the_same_host(sim):
    async def main():
        _net, server, _client = await make_net()
        await start_server(server, echo)

        async def program():
            reader, writer = await asyncio.open_connection("127.0.0.1", 443)
            writer.write(b"me")
            writer.write_eof()
            answer = await reader.read()
            writer.close()
            return answer

        assert await server.start(program()) == b"me"

    sim.run(main())


def test_streams_need_a_host_and_numbers(sim):
    async def main():
        with pytest.raises(SimulationError, match="on a host"):
            await asyncio.open_connection(SERVER, 1)
        _net, _server, client = await make_net()
        with pytest.raises(SimulationError, match="no names"):
            await client.start(asyncio.open_connection("example.org", 1))

    sim.run(main())
