"""Everything that can go wrong, by whose doing it is.

Who catches one of these catches those below it::

    InterpeerError
    ├── LocalError (RuntimeError)               you: the call cannot be right here
    │   ├── ClosedError                         the node, connection or stream is closed
    │   ├── ForkedError                         this process is a fork of the one that owns the node
    │   ├── WrongLoopError                      the object belongs to another event loop or thread
    │   ├── IdentityFileError                   a key file that must not be used
    │   ├── DatagramTooLarge (ValueError)       more than the path carries
    │   └── MessageTooLarge (ValueError)        more than the peer takes
    ├── ProtocolError                           a peer broke the protocol, or says that we did; has `code`
    └── NetworkError (ConnectionError)          the network, or the peer's decision
        ├── Unreachable                         no way to the peer; `reasons` has one line for each way tried
        ├── Refused (ConnectionRefusedError)    the peer does not let us in; has `code`
        ├── UnsupportedVersion                  the peer speaks no version that we speak
        ├── TimedOut (TimeoutError)             nothing came for too long
        ├── ResetByPeer (ConnectionResetError)  the peer has lost the connection
        ├── ConnectionClosed                    the peer closed the connection; has `code` and `reason`
        ├── StreamReset                         the peer gave the stream up, or reads it no more; has `code`
        └── ChannelClosed                       the peer has closed the channel, or gave it up; has `code`
            └── MessageLost                     a message was lost on a channel that closes then
"""

from __future__ import annotations


class InterpeerError(Exception):
    """Be the base of every error that interpeer raises on its own account."""


class LocalError(InterpeerError, RuntimeError):
    """Say that the call cannot be right here: an object is closed, forked, or of another loop."""


class ClosedError(LocalError):
    """Say that the node, connection or stream was closed by this side.

    >>> import asyncio, interpeer
    >>> async def main():
    ...     async with interpeer.Node(listen="127.0.0.1:0") as a, interpeer.Node(listen="127.0.0.1:0") as b:
    ...         async with a.connect(b.address) as connection:
    ...             pass
    ...         try:
    ...             connection.send_datagram(b"late")
    ...         except interpeer.ClosedError as error:
    ...             return str(error)
    >>> asyncio.run(main())
    'this connection was closed by this side'
    """


class ForkedError(LocalError):
    """Say that this process is a fork of the one that owns the node: keys and packet numbers must not be shared."""


class WrongLoopError(LocalError):
    """Say that an object was used from another event loop or thread than the one that it belongs to."""


class IdentityFileError(LocalError):
    """Say why a key file cannot be used. It is never replaced silently."""


class DatagramTooLarge(LocalError, ValueError):
    """Say that a datagram is larger than `Connection.max_datagram_bytes`.

    >>> import asyncio, interpeer
    >>> async def main():
    ...     async with interpeer.Node(listen="127.0.0.1:0") as a, interpeer.Node(listen="127.0.0.1:0") as b:
    ...         async with a.connect(b.address) as connection:
    ...             try:
    ...                 connection.send_datagram(bytes(100_000))
    ...             except interpeer.DatagramTooLarge as error:
    ...                 return str(error)
    >>> asyncio.run(main())
    'a datagram of 100000 bytes; at most ... fit in a packet'
    """


class MessageTooLarge(LocalError, ValueError):
    """Say that a message is larger than the peer takes on a channel."""


class ProtocolError(InterpeerError):
    """Say that a peer broke the protocol, or tells us that we did. `code` is the wire's error code."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class NetworkError(InterpeerError, ConnectionError):
    """Be the base of everything that the network or the peer's decision causes."""


class Unreachable(NetworkError):
    """Say that no way led to the peer. `reasons` has one line for each way that was tried.

    >>> import asyncio, interpeer
    >>> async def main():
    ...     somebody = interpeer.Identity.generate().id
    ...     async with interpeer.Node(config=interpeer.Config(connect_timeout_s=0.1)) as node:
    ...         try:
    ...             await node.connect(f"{somebody}@127.0.0.1:9")
    ...         except interpeer.Unreachable as error:
    ...             return error.reasons
    >>> asyncio.run(main())
    ('127.0.0.1:9: ... no answer',)
    """

    def __init__(self, message: str, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.reasons = reasons


class Refused(NetworkError, ConnectionRefusedError):
    """Say that the peer does not let us in. `code` is the wire's error code.

    >>> import asyncio, interpeer
    >>> async def main():
    ...     async with interpeer.Node(listen="127.0.0.1:0") as a, interpeer.Node(listen="127.0.0.1:0") as b:
    ...         try:
    ...             await a.connect(b.address, protocol="chess")
    ...         except interpeer.Refused as error:
    ...             return str(error)
    >>> asyncio.run(main())
    "the peer does not speak the protocol 'chess'"
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class UnsupportedVersion(NetworkError):
    """Say that the peer speaks no version of the protocol that we speak."""


class TimedOut(NetworkError, TimeoutError):
    """Say that nothing came from the peer for the idle time-out."""


class ResetByPeer(NetworkError, ConnectionResetError):
    """Say that the peer has lost the connection, for example because it was restarted."""


class ConnectionClosed(NetworkError):
    """Say that the peer's application closed the connection, with a code and a reason.

    >>> import asyncio, interpeer
    >>> async def main():
    ...     async with interpeer.Node(listen="127.0.0.1:0") as a, interpeer.Node(listen="127.0.0.1:0") as b:
    ...         async with a.connect(b.address) as connection:
    ...             await (await b.accept()).close(7, "the game is over")
    ...             try:
    ...                 await connection.recv_datagram()
    ...             except interpeer.ConnectionClosed as error:
    ...                 return error.code, error.reason
    >>> asyncio.run(main())
    (7, 'the game is over')
    """

    def __init__(self, message: str, code: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class StreamReset(NetworkError):
    """Say that the peer gave a stream up (reading), or reads it no more (writing). `code` is the application's.

    >>> import asyncio, interpeer
    >>> async def main():
    ...     async with interpeer.Node(listen="127.0.0.1:0") as a, interpeer.Node(listen="127.0.0.1:0") as b:
    ...         async with a.connect(b.address) as connection, connection.open_stream() as stream:
    ...             await stream.write(b"a part")
    ...             stream.reset(7)
    ...             try:
    ...                 await (await (await b.accept()).accept_stream()).read()
    ...             except interpeer.StreamReset as error:
    ...                 return error.code
    >>> asyncio.run(main())
    7
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class ChannelClosed(NetworkError):
    """Say that the peer has closed a channel, or gave it up, or reads it no more. `code` is the application's, 0 at the end."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class MessageLost(ChannelClosed):
    """Say that a channel is closed because a message was lost, on which it was to close then."""
