"""Tunnels over WebSocket: the same byte stream, in binary messages whose boundaries mean nothing (docs/spec, chapter 26).

The package `websockets` speaks the protocol, without doing any input or output, so that the same limits hold, and it runs
over whatever stream there is: TCP, TLS, a proxy's, or that of a simulation. It is loaded at first use.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, final

from interpeer._address import Endpoint
from interpeer._tunnel.carrier import Carrier

if TYPE_CHECKING:
    from interpeer._tunnel import Tunnels

MAX_BUFFERED_BYTES = 4 * 1024 * 1024
"""Waiting to be written: more is only there where a peer asks for answers, as to pings, and does not read them."""
MESSAGE_BYTES = 64 * 1024
"""Of a binary message that we send; what is larger is refused."""
SUBPROTOCOL = "interpeer"
MISSING = "the package websockets is not installed: pip install interpeer[websocket]"


def is_available() -> bool:
    """Tell whether there is something to speak the protocol with."""
    try:
        return importlib.util.find_spec("websockets.protocol") is not None
    except ImportError:
        return False


@final
class WebSocketCarrier(Carrier):
    """Be one end of a tunnel over WebSocket."""

    def __init__(self, book: Tunnels, transport: str, remote: Endpoint | None = None, path: str = "") -> None:
        super().__init__(book, transport, remote)
        self._path = path or "/"
        self._machine: Any = self._make_machine()

    def _make_machine(self) -> Any:
        from websockets.client import ClientProtocol
        from websockets.server import ServerProtocol
        from websockets.uri import WebSocketURI

        if self.remote is None:
            return ServerProtocol(subprotocols=[SUBPROTOCOL], max_size=MESSAGE_BYTES)  # type: ignore[list-item]
        is_secure = self.remote.transport == "wss"
        host = f"[{self.remote.host}]" if ":" in self.remote.host else self.remote.host
        uri = WebSocketURI(is_secure, host, self.remote.port, self._path, "", None, None)
        return ClientProtocol(uri, subprotocols=[SUBPROTOCOL], max_size=MESSAGE_BYTES)  # type: ignore[list-item]

    def _begin(self) -> None:
        if self.is_caller:
            self._machine.send_request(self._machine.connect())
            self._flush()

    def data_received(self, data: bytes) -> None:
        from websockets.frames import Frame, Opcode
        from websockets.http11 import Request, Response

        self._machine.receive_data(data)
        for event in self._machine.events_received():
            if isinstance(event, Request):
                self._answer(event)
            elif isinstance(event, Response):
                self._answered()
            elif isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.CONT):
                self._take(bytes(event.data))
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self._machine.fail(1003, "binary messages alone")
        self._flush()
        if self._machine.state.name in ("CLOSING", "CLOSED"):
            self.abort()  # a caller would wait for the other end to close TCP, which it may never do

    def _answer(self, request: Any) -> None:
        """Take a call, if it is for this place."""
        if request.path.partition("?")[0] == self._path:
            response = self._machine.accept(request)
        else:
            response = self._machine.reject(404, "nothing here\n")
        self._machine.send_response(response)
        self._answered()

    def _answered(self) -> None:
        if self._machine.handshake_exc is None and self._machine.state.name == "OPEN":
            self._made_ready()
        elif not self.ready.done():  # after the refusal the stream ends
            self.ready.set_exception(ConnectionRefusedError(f"no WebSocket: {self._machine.handshake_exc}"))
            self.ready.exception()

    def write(self, frames: bytes) -> None:
        if self._machine.state.name != "OPEN":
            return  # the core has said it before it learns that the tunnel has gone
        for at in range(0, len(frames), MESSAGE_BYTES):
            self._machine.send_binary(frames[at : at + MESSAGE_BYTES])
        self._flush()

    def eof_received(self) -> bool:
        self._machine.receive_eof()
        self._flush()
        return False

    def _flush(self) -> None:
        """Write what the protocol has to say, which may be the end."""
        if self._transport is None or self._transport.is_closing():
            return
        chunks = self._machine.data_to_send()
        self._transport.writelines([chunk for chunk in chunks if chunk])
        if b"" in chunks:  # its sign for the end
            self._transport.close()
        elif self._transport.get_write_buffer_size() > MAX_BUFFERED_BYTES:
            self.fail("it does not read what it asks for")
