"""Reach any peer by its public key.

>>> import interpeer
>>> async def main():
...     async with interpeer.Node() as a, interpeer.Node() as b:
...         async with a.connect(b.address) as connection, connection.open_stream() as stream:
...             await stream.write(b"hello")
...             accepted = await (await b.accept()).accept_stream()
...             return await accepted.readexactly(5)
>>> interpeer.run(main())
b'hello'
"""

import logging as _logging

from interpeer import blocking
from interpeer._address import Address, Endpoint
from interpeer._channel import Channel, ChannelOptions, Dropped, MessageStats
from interpeer._config import Config, Give
from interpeer._connection import Connection
from interpeer._events import ConnectFailed, Event, EventsDropped, PathChanged, PeerConnected, PeerDisconnected
from interpeer._identity import Identity, PeerId
from interpeer._node import Node
from interpeer._path import Path
from interpeer._run import run
from interpeer._state import StateLockedError
from interpeer._stats import ChannelStats, PathStats, Stats
from interpeer._stream import Stream
from interpeer._version import __version__
from interpeer.errors import (
    ChannelClosed,
    ClosedError,
    ConnectionClosed,
    DatagramTooLarge,
    ForkedError,
    IdentityFileError,
    InterpeerError,
    LocalError,
    MessageLost,
    MessageTooLarge,
    NetworkError,
    ProtocolError,
    Refused,
    ResetByPeer,
    StreamReset,
    TimedOut,
    Unreachable,
    UnsupportedVersion,
    WrongLoopError,
)

__all__ = [
    "Address",
    "Channel",
    "ChannelClosed",
    "ChannelOptions",
    "ChannelStats",
    "ClosedError",
    "Config",
    "ConnectFailed",
    "Connection",
    "ConnectionClosed",
    "DatagramTooLarge",
    "Dropped",
    "Endpoint",
    "Event",
    "EventsDropped",
    "ForkedError",
    "Give",
    "Identity",
    "IdentityFileError",
    "InterpeerError",
    "LocalError",
    "MessageLost",
    "MessageStats",
    "MessageTooLarge",
    "NetworkError",
    "Node",
    "Path",
    "PathChanged",
    "PathStats",
    "PeerConnected",
    "PeerDisconnected",
    "PeerId",
    "ProtocolError",
    "Refused",
    "ResetByPeer",
    "StateLockedError",
    "Stats",
    "Stream",
    "StreamReset",
    "TimedOut",
    "Unreachable",
    "UnsupportedVersion",
    "WrongLoopError",
    "__version__",
    "blocking",
    "run",
]

_logging.getLogger("interpeer").addHandler(_logging.NullHandler())
