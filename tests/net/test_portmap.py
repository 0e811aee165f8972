"""Port mapping over real sockets, on both loops: a gateway by script on loopback."""

from __future__ import annotations

import asyncio
import socket

import pytest

from interpeer._portmap import Gateway, PortMapper, announcements
from interpeer._portmap.announcements import Announcements
from interpeer._portmap.answers import Kind, Wish
from interpeer._portmap.datagrams import Absent, Datagrams
from interpeer._portmap.dialects import NatPmp, Pcp
from tests.models import portmap as model
from tests.models.gateway import EXTERNAL_HOST, ScriptedGateway, serve
from tests.spec.mapping import until

PORT = 4433
LIMIT_S = 30


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """A function that runs a coroutine on a loop, within a time limit."""

    def run(main):
        async def bounded():
            async with asyncio.timeout(LIMIT_S):
                return await main

        factory = None
        if request.param == "uvloop":
            factory = pytest.importorskip("uvloop").new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(bounded())

    return run


def test_mapping_is_made_and_ended_over_sockets(run):
    async def main() -> None:
        scripted = ScriptedGateway(asyncio.get_running_loop().time)
        async with serve(scripted) as found:
            changes = []
            mapper = PortMapper(
                PORT,
                versions=(4,),
                methods=("pcp", "nat-pmp"),
                find_gateway=lambda version: found,
                on_change=lambda: changes.append(1),
            )
            await mapper.start()
            await until(lambda: mapper.mappings)
            (mapping,) = mapper.mappings
            assert (mapping.protocol, str(mapping.external), mapping.internal_port) == ("pcp", f"{EXTERNAL_HOST}:{PORT}", PORT)
            assert (mapping.gateway, mapping.state, mapping.lifetime_s) == ("127.0.0.1", "mapped", 7200)
            assert scripted.maps[0].client == "127.0.0.1"
            await mapper.close()
            assert scripted.table == {} and len(changes) == 2

    run(main())


def test_nobody_at_the_gateway_is_noticed_at_once(run):
    async def main() -> None:
        async with serve(ScriptedGateway(asyncio.get_running_loop().time)) as found:
            pass  # it is gone
        method = Datagrams(Pcp("127.0.0.1"), found)
        with pytest.raises(Absent, match="nobody listens there"):
            await method.probe()
        method.close()

    run(main())


def test_socket_takes_nothing_from_others(run):
    async def main() -> None:
        scripted = ScriptedGateway(asyncio.get_running_loop().time)
        async with serve(scripted) as found:
            method = Datagrams(NatPmp(), found)
            await method.probe()
            heard = []
            method.on_answer = heard.append
            assert method._transport is not None
            target = method._transport.get_extra_info("sockname")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.sendto(model.natpmp_address_answer("20.0.0.66"), target)
            method.send(Wish(PORT, PORT, None, 7200, bytes(12)))
            await until(lambda: len(heard) == 2)
            assert [answer.kind for answer in heard] == [Kind.HEARD, Kind.GRANTED]
            assert {answer.host for answer in heard} == {EXTERNAL_HOST}
            method.close()

    run(main())


@pytest.mark.parametrize(
    ("dialect", "answer", "reason"),
    [
        (Pcp("127.0.0.1"), bytes.fromhex("0080000100000001"), "it speaks only NAT-PMP"),
        (NatPmp(), model.pcp_header(0, result=1), "it speaks only PCP"),
        (Pcp("127.0.0.1"), model.pcp_header(0, result=12), "it sees another address of this host"),
        (NatPmp(), model.natpmp_address_answer("0.0.0.0", result=3), "it has no uplink"),
        (NatPmp(), model.natpmp_address_answer("0.0.0.0", result=77), "error 77"),
    ],
)
def test_probe_that_is_refused_says_why(run, dialect, answer, reason):
    async def main() -> None:
        scripted = ScriptedGateway(asyncio.get_running_loop().time)
        scripted.twists = lambda data: answer
        async with serve(scripted) as found:
            method = Datagrams(dialect, found)
            with pytest.raises(Absent, match=reason):
                await method.probe()
            method.close()

    run(main())


def test_announcements_are_those_of_the_gateway(run, monkeypatch):
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as router:
            router.bind(("127.0.0.1", 0))
            found = Gateway("127.0.0.1", "127.0.0.1", port=router.getsockname()[1])
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
                free.bind(("0.0.0.0", 0))
                monkeypatch.setattr(announcements, "PORT", free.getsockname()[1])
            heard = []
            listening = Announcements(found, heard.append)
            assert await listening.open() == ""
            target = "127.0.0.1", announcements.PORT
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.sendto(b"forged", target)
            router.sendto(b"true", target)
            await until(lambda: heard)
            assert heard == [b"true"] and listening.ignored == 1
            listening.close()

    run(main())


def test_announcements_that_cannot_be_heard_are_a_reason(run, monkeypatch):
    monkeypatch.setattr(announcements, "_listen", lambda gateway: (_ for _ in ()).throw(OSError(98, "Address already in use")))

    async def main() -> None:
        said = await Announcements(Gateway("127.0.0.1", "127.0.0.1"), lambda data: None).open()
        assert "port 5350" in said and "Address already in use" in said

    run(main())
