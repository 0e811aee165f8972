"""The same API for threads: every call waits, and takes `timeout=` in seconds.

    >>> import interpeer
    >>> with interpeer.blocking.Node() as a, interpeer.blocking.Node() as b:
    ...     connection = a.connect(b.address, timeout=5)
    ...     stream = connection.open_stream()
    ...     stream.write(b"hello")
    ...     accepted = b.accept(timeout=5).accept_stream(timeout=5)
    ...     accepted.readexactly(5, timeout=5)
    b'hello'

Each node has an event loop on a thread of its own, so any thread may use it, and its connections and streams, at any time.
A call that takes longer than `timeout` raises TimeoutError and is cancelled, with what the asynchronous call promises of
that: reads lose nothing, a write leaves a prefix sent.
"""

from __future__ import annotations

from interpeer.blocking._channel import Channel
from interpeer.blocking._connection import Connection
from interpeer.blocking._node import Node
from interpeer.blocking._stream import Stream

__all__ = ["Channel", "Connection", "Node", "Stream"]
