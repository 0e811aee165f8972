"""An Internet Gateway Device by script, on loopback: it answers SSDP searches, describes itself, and maps ports over SOAP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from interpeer._portmap import Gateway

SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
ARGUMENTS = {
    "AddPortMapping": (
        "NewRemoteHost", "NewExternalPort", "NewProtocol", "NewInternalPort", "NewInternalClient", "NewEnabled",
        "NewPortMappingDescription", "NewLeaseDuration",
    ),
    "DeletePortMapping": ("NewRemoteHost", "NewExternalPort", "NewProtocol"),
    "GetExternalIPAddress": (),
}  # fmt: skip
TYPES = {"NewExternalPort": "ui2", "NewInternalPort": "ui2", "NewEnabled": "boolean", "NewLeaseDuration": "ui4"}


def description(control: str = "/control", scpd: str = "/scpd.xml", *, services: int = 1, service: str = SERVICE) -> str:
    """Write what a device says of itself."""
    one = (
        f"<service><serviceType>{service}</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>"
        f"<controlURL>{control}</controlURL><eventSubURL>/event</eventSubURL><SCPDURL>{scpd}</SCPDURL></service>"
    )
    return (
        '<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor>'
        "</specVersion><device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>"
        "<friendlyName>router</friendlyName><manufacturer>somebody</manufacturer><modelName>one</modelName>"
        f"<UDN>uuid:1</UDN><serviceList>{one * services}</serviceList></device></root>"
    )


def service_description() -> str:
    """Write what the service says of its actions."""
    actions, names = "", {"NewExternalIPAddress"}
    for action, arguments in ARGUMENTS.items():
        given = [(name, "in") for name in arguments] or [("NewExternalIPAddress", "out")]
        names |= {name for name, _ in given}
        listed = "".join(
            f"<argument><name>{name}</name><direction>{way}</direction>"
            f"<relatedStateVariable>{name[3:]}</relatedStateVariable></argument>"
            for name, way in given
        )
        actions += f"<action><name>{action}</name><argumentList>{listed}</argumentList></action>"
    variables = "".join(
        f'<stateVariable sendEvents="no"><name>{name[3:]}</name><dataType>{TYPES.get(name, "string")}</dataType></stateVariable>'
        for name in sorted(names)
    )
    return (
        '<?xml version="1.0"?><scpd xmlns="urn:schemas-upnp-org:service-1-0"><specVersion><major>1</major><minor>0</minor>'
        f"</specVersion><actionList>{actions}</actionList><serviceStateTable>{variables}</serviceStateTable></scpd>"
    )


class ScriptedDevice:
    """What it maps is in `table`: external port -> arguments of AddPortMapping."""

    def __init__(self) -> None:
        self.host = "20.0.0.1"
        self.documents = {"/root.xml": description(), "/scpd.xml": service_description()}
        self.location: str | None = None
        """What it says in a search reply; None: where it is."""
        self.redirect: str | None = None
        self.refuses = False
        """Whether it closes connections without a word."""
        self.taken: set[int] = set()
        self.only_permanent = False
        self.error = 0
        """With which it answers AddPortMapping."""
        self.table: dict[int, dict[str, str]] = {}
        self.searched = 0
        self.paths: list[str] = []
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.port = 0

    def reply(self) -> bytes:
        location = self.location or f"http://127.0.0.1:{self.port}/root.xml"
        device = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
        return f"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: {device}\r\nLOCATION: {location}\r\n\r\n".encode()

    def answer(self, method: str, path: str, body: str) -> tuple[str, str]:
        """Return a status and a body."""
        self.paths.append(path)
        if method == "GET":
            if self.redirect:
                return f"302 Found\r\nLocation: {self.redirect}", ""
            document = self.documents.get(path)
            return ("200 OK", document) if document is not None else ("404 Not Found", "")
        match = re.search(r"<u:(\w+) ", body)
        assert match and path == "/control"
        action, arguments = match[1], dict(re.findall(r"<(New\w+)>([^<]*)</New\w+>", body))
        self.calls.append((action, arguments))
        code = self._do(action, arguments)
        if code:
            fault = (
                "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
                f'<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>{code}</errorCode>'
                "<errorDescription>no</errorDescription></UPnPError></detail></s:Fault>"
            )
            return "500 Internal Server Error", envelope(fault)
        told = f"<NewExternalIPAddress>{self.host}</NewExternalIPAddress>" if action == "GetExternalIPAddress" else ""
        return "200 OK", envelope(f'<u:{action}Response xmlns:u="{SERVICE}">{told}</u:{action}Response>')

    def _do(self, action: str, arguments: dict[str, str]) -> int:
        if action == "GetExternalIPAddress":
            return 0
        port = int(arguments["NewExternalPort"])
        if action == "DeletePortMapping":
            return 0 if self.table.pop(port, None) else 714
        if self.error:
            return self.error
        if port in self.taken:
            return 718
        if self.only_permanent and arguments["NewLeaseDuration"] != "0":
            return 725
        self.table[port] = arguments
        return 0


def envelope(body: str) -> str:
    return (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        f's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>{body}</s:Body></s:Envelope>'
    )


class _Ssdp(asyncio.DatagramProtocol):
    def __init__(self, device: ScriptedDevice) -> None:
        self._device = device

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data.startswith(b"M-SEARCH * HTTP/1.1"):
            self._device.searched += 1
            self._transport.sendto(self._device.reply(), addr)


@asynccontextmanager
async def serve(device: ScriptedDevice) -> AsyncIterator[Gateway]:
    """Put a device on loopback; yield where it is."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"^content-length: *(\d+)", head, re.IGNORECASE | re.MULTILINE)
            body = (await reader.readexactly(int(length[1]))).decode() if length else ""
            if device.refuses:
                return
            method, path, _ = head.split(" ", 2)
            status, document = device.answer(method, path, body)
            said = document.encode()
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(said)}\r\nConnection: close\r\n\r\n".encode() + said)
            await writer.drain()
        except ConnectionError:
            pass  # it was enough for the other end
        finally:
            writer.close()

    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    device.port = server.sockets[0].getsockname()[1]
    ssdp, _ = await loop.create_datagram_endpoint(lambda: _Ssdp(device), local_addr=("127.0.0.1", 0))
    try:
        yield Gateway("127.0.0.1", "127.0.0.1", ssdp_port=ssdp.get_extra_info("sockname")[1])
    finally:
        ssdp.close()
        server.close()
        await server.wait_closed()
