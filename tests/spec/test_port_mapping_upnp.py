"""Port mapping by UPnP (docs/spec, chapter 25): async-upnp-client at a device by script, on loopback."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from interpeer._portmap import Gateway, PortMapper
from interpeer._portmap import igd as igd_module
from interpeer._portmap.answers import Answer, Kind, Wish
from interpeer._portmap.datagrams import Absent
from interpeer._portmap.igd import Igd, Search, check_url
from interpeer._portmap.requester import MAX_BODY_BYTES, MAX_REQUESTS
from tests.models.igd import ScriptedDevice, description, serve
from tests.spec.mapping import until

PORT = 4433
WISH = Wish(PORT, PORT, None, 7200, bytes(12))
LIMIT_S = 30

BOMB = """<?xml version="1.0"?><!DOCTYPE root [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device><friendlyName>&b;</friendlyName></device></root>"""


@pytest.fixture(autouse=True)
def _one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """On loopback nothing is lost."""
    monkeypatch.setattr(igd_module, "SEARCH_RETRIES_S", (1.0,))


def play(device: ScriptedDevice, script: Callable[[Igd], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(LIMIT_S), serve(device) as gateway:
            igd = Igd(gateway, os.urandom)
            try:
                await script(igd)
            finally:
                igd.close()

    asyncio.run(main())


def absent(device: ScriptedDevice) -> tuple[str, int]:
    """Return why a device is not used, and how many datagrams were ignored."""
    told = []

    async def script(igd: Igd) -> None:
        with pytest.raises(Absent) as caught:
            await igd.probe()
        told.append((str(caught.value), igd.ignored))

    play(device, script)
    return told[0]


def ask(device: ScriptedDevice, *wishes: Wish) -> list[Answer]:
    answers: list[Answer] = []

    async def script(igd: Igd) -> None:
        await igd.probe()
        igd.on_answer = answers.append
        for i, wish in enumerate(wishes):
            igd.send(wish)
            igd.send(wish)
            await until(lambda i=i: len(answers) > i)

    play(device, script)
    return answers


def test_port_is_mapped_renewed_and_given_back():
    device = ScriptedDevice()
    end = Wish(PORT, PORT, "20.0.0.1", 0, bytes(12))
    granted, again, gone = ask(device, WISH, WISH, end)
    assert granted == again == Answer(Kind.GRANTED, lifetime_s=7200, host="20.0.0.1", port=PORT)
    assert gone.kind is Kind.GONE and device.table == {}
    assert [action for action, _ in device.calls] == [*("GetExternalIPAddress", "AddPortMapping") * 2, "DeletePortMapping"]
    assert device.calls[1][1] == {
        "NewRemoteHost": "", "NewExternalPort": str(PORT), "NewProtocol": "UDP", "NewInternalPort": str(PORT),
        "NewInternalClient": "127.0.0.1", "NewEnabled": "1", "NewPortMappingDescription": "interpeer", "NewLeaseDuration": "7200",
    }  # fmt: skip


def test_device_that_has_restarted_is_found_where_it_is_now():
    first, second = ScriptedDevice(), ScriptedDevice()
    answers: list[Answer] = []

    async def main() -> None:
        async with asyncio.timeout(LIMIT_S), serve(second):
            async with serve(first) as gateway:
                igd = Igd(gateway, os.urandom)
                await igd.probe()
                igd.on_answer = answers.append
                igd.send(WISH)
                await until(lambda: len(answers) == 1)
                first.location = f"http://127.0.0.1:{second.port}/root.xml"
                first.refuses = True
                igd.send(WISH)
                await until(lambda: len(answers) == 2)
                igd.send(WISH)
                await until(lambda: len(answers) == 3)
                igd.close()

    asyncio.run(main())
    assert [answer.kind for answer in answers] == [Kind.GRANTED, Kind.REFUSED, Kind.GRANTED]
    assert list(second.table) == [PORT]


def test_mapper_uses_upnp_where_nothing_else_answers():
    device = ScriptedDevice()

    async def main() -> None:
        async with asyncio.timeout(LIMIT_S), serve(device) as gateway:
            mapper = PortMapper(PORT, versions=(4,), methods=("upnp",), find_gateway=lambda version: gateway)
            await mapper.start()
            await until(lambda: mapper.mappings)
            (mapping,) = mapper.mappings
            assert (mapping.protocol, str(mapping.external), mapping.is_verified) == ("upnp", f"20.0.0.1:{PORT}", None)
            assert mapper.report()["protocols"] == ["upnp"]
            await mapper.close()
            assert device.table == {} and mapper.mappings == ()

    asyncio.run(main())


@pytest.mark.spec("PM-5")
def test_gateway_that_is_left_is_told_so():
    device = ScriptedDevice()

    async def main() -> None:
        async with asyncio.timeout(LIMIT_S), serve(device) as gateway:
            found: list[Gateway | None] = [gateway]
            mapper = PortMapper(PORT, versions=(4,), methods=("upnp",), find_gateway=lambda version: found[0])
            await mapper.start()
            await until(lambda: mapper.mappings)
            found[0] = None
            mapper.handle_network_change()
            await until(lambda: not device.table)
            assert mapper.mappings == ()
            await mapper.close()

    asyncio.run(main())


@pytest.mark.spec("PM-22")
@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2:80/root.xml",
        "http://192.0.2.1/root.xml",
        "http://localhost/root.xml",
        "https://127.0.0.1/root.xml",
        "file:///etc/passwd",
        "http://127.0.0.1@192.0.2.1/root.xml",
        "http://user@127.0.0.1/root.xml",
        "http://[::1/root.xml",
        "http://127.0.0.1:99999/root.xml",
        "//127.0.0.1/root.xml",
    ],
)
def test_location_elsewhere_is_ignored(location):
    device, there = ScriptedDevice(), ("127.0.0.1", 1900)
    search = Search(Gateway("127.0.0.1", "127.0.0.1"))
    device.location = location
    search.datagram_received(device.reply(), there)
    assert search.found == [] and search.ignored == 1
    device.location = "http://127.0.0.1:80/root.xml"
    search.datagram_received(device.reply(), ("127.0.0.2", 1900))
    assert search.found == [] and search.ignored == 2
    search.datagram_received(device.reply(), there)
    assert search.found == [device.location] and search.ignored == 2


@pytest.mark.spec("PM-22")
def test_device_elsewhere_is_not_asked():
    device, victim = ScriptedDevice(), ScriptedDevice()

    async def script(igd: Igd) -> None:
        async with serve(victim):
            device.location = f"http://localhost:{victim.port}/root.xml"
            with pytest.raises(Absent, match="no answer"):
                await igd.probe()

    play(device, script)
    assert device.searched and victim.paths == []


def test_search_takes_a_few_devices_each_once():
    search = Search(Gateway("127.0.0.1", "127.0.0.1"))
    device = ScriptedDevice()
    for i in range(1000):
        device.location = f"http://127.0.0.1:{5000 + i // 2}/root.xml"
        search.datagram_received(device.reply(), ("127.0.0.1", 1900))
    assert search.found == [f"http://127.0.0.1:{port}/root.xml" for port in range(5000, 5004)]


@pytest.mark.spec("PM-23")
@pytest.mark.parametrize("kind", ["control", "scpd"])
def test_description_that_points_elsewhere_is_not_followed(kind):
    device, victim = ScriptedDevice(), ScriptedDevice()

    async def script(igd: Igd) -> None:
        async with serve(victim):
            device.documents["/root.xml"] = description(**{kind: f"http://localhost:{victim.port}/{kind}"})
            with pytest.raises(Absent, match="no service that maps ports"):
                await igd.probe()

    play(device, script)
    assert victim.paths == []


@pytest.mark.spec("PM-23")
def test_request_to_another_host_is_not_sent():
    device, victim = ScriptedDevice(), ScriptedDevice()

    async def script(igd: Igd) -> None:
        from async_upnp_client.const import HttpRequest
        from async_upnp_client.exceptions import UpnpCommunicationError

        async with serve(victim):
            await igd.probe()
            with pytest.raises(UpnpCommunicationError, match="it points at"):
                await igd._requester.async_http_request(HttpRequest("GET", f"http://localhost:{victim.port}/", {}, None))

    play(device, script)
    assert victim.paths == []


@pytest.mark.spec("PM-23")
def test_redirection_is_not_followed():
    device, victim = ScriptedDevice(), ScriptedDevice()

    async def script(igd: Igd) -> None:
        async with serve(victim):
            device.redirect = f"http://127.0.0.1:{victim.port}/root.xml"
            with pytest.raises(Absent):
                await igd.probe()

    play(device, script)
    assert victim.paths == [] and device.paths == ["/root.xml"]


@pytest.mark.spec("PM-24")
def test_reply_is_read_up_to_its_limit():
    device = ScriptedDevice()
    whole = device.documents["/root.xml"]
    device.documents["/root.xml"] = whole + " " * (MAX_BODY_BYTES - len(whole))
    assert ask(device, WISH)[0].kind is Kind.GRANTED
    device.documents["/root.xml"] += " "
    reason, _ = absent(device)
    assert f"more than {MAX_BODY_BYTES} bytes" in reason


@pytest.mark.spec("PM-31")
def test_description_makes_a_bounded_number_of_requests():
    device = ScriptedDevice()
    device.documents["/root.xml"] = description(services=500)
    reason, _ = absent(device)
    assert f"more than {MAX_REQUESTS} requests" in reason and len(device.paths) == MAX_REQUESTS


@pytest.mark.spec("PM-25")
def test_document_that_may_declare_entities_is_refused():
    device = ScriptedDevice()
    device.documents["/root.xml"] = BOMB
    reason, _ = absent(device)
    assert "DOCTYPE" in reason


@pytest.mark.parametrize(
    "document",
    [
        "",
        "<root",
        "<root/>",
        "\0" * 100,
        description(service="urn:schemas-upnp-org:service:Layer3Forwarding:1"),
        description().replace("<serviceList>", "<deviceList><device>" * 3000 + "</device></deviceList>" * 3000 + "<serviceList>"),
        description().replace("<deviceType>", "<iconList><icon><width>wide</width></icon></iconList><deviceType>"),
    ],
)
def test_description_that_is_nonsense_is_a_reason(document):
    device = ScriptedDevice()
    device.documents["/root.xml"] = document
    reason, _ = absent(device)
    assert reason.startswith("http://127.0.0.1:") and len(reason) < 300 and reason.isprintable()


def test_port_that_is_taken_is_replaced_by_another():
    device = ScriptedDevice()
    device.taken = {PORT}
    (granted,) = ask(device, WISH)
    assert granted.kind is Kind.GRANTED and granted.port != PORT and list(device.table) == [granted.port]
    device.taken = set(range(65536))
    (refused,) = ask(device, WISH)
    assert refused.kind is Kind.REFUSED and "taken" in refused.reason


def test_gateway_that_maps_for_ever_is_asked_to_and_that_is_said():
    device = ScriptedDevice()
    device.only_permanent = True
    granted, gone = ask(device, WISH, Wish(PORT, PORT, "20.0.0.1", 0, bytes(12)))
    assert granted.lifetime_s == 7200 and "for ever" in granted.reason
    assert gone.kind is Kind.GONE and device.table == {}


@pytest.mark.spec("PM-8")
@pytest.mark.parametrize("host", ["0.0.0.0", "", "none", "<b>", "2001:db8::1", "fe80::1%eth0", "::ffff:20.0.0.1", "224.0.0.1"])
def test_gateway_without_an_external_address_is_refused(host):
    device = ScriptedDevice()
    device.host = host
    (answer,) = ask(device, WISH)
    assert answer.kind is Kind.REFUSED and answer.reason and device.table == {}


def test_error_of_the_gateway_is_the_reason():
    device = ScriptedDevice()
    device.error = 606
    (answer,) = ask(device, WISH)
    assert answer == Answer(Kind.REFUSED, reason="not authorised")


def test_missing_library_is_the_reason(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "interpeer._portmap.requester", None)
    reason, _ = absent(ScriptedDevice())
    assert "pip install 'interpeer[upnp]'" in reason


@pytest.mark.parametrize("url", ["http://192.0.2.1", "http://192.0.2.1:5000/x"])
def test_urls_of_the_gateway_are_taken(url):
    check_url(url, "192.0.2.1")
