"""A bulk transfer over TLS 1.3 and TCP as a program for asyncio has it: open_connection, write and drain; read.

That is the API that interpeer's own streams have, so the two are compared; tls.py shows what tuning by hand adds to TLS.
"""

import asyncio
import ssl
import time
from typing import Any

from interpeer._bench import loads
from interpeer._bench.end import Control, Facts, Stopwatch, run
from interpeer._bench.tls import ADDRESS, CHUNK_BYTES, LAST
from interpeer._certificate import HOST, certificate_file


def serve(control: Control, *, loop: str, **_: Any) -> Facts | None:
    with certificate_file() as (path, certificate):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(path)
        return run(_serve(control, context, certificate), uvloop=loop == "uvloop")


async def _serve(control: Control, context: ssl.SSLContext, certificate: str) -> Facts:
    figures: Facts = {}

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        watch, count, last = Stopwatch(), 0, False
        while not last:
            data = await reader.read(CHUNK_BYTES)
            count += len(data)
            last = data.endswith(LAST)
        figures.update(bytes=count, **watch.read())
        writer.write(loads.COUNT.pack(count))
        await writer.drain()

    server = await asyncio.start_server(receive, ADDRESS, 0, ssl=context)
    control.tell(port=server.sockets[0].getsockname()[1], certificate=certificate)
    await control.stopped()
    server.close()
    return figures


def dial(control: Control, *, loop: str, port: int, certificate: str, seconds: float, **_: Any) -> Facts | None:
    context = ssl.create_default_context(cadata=certificate)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return run(_dial(context, port, seconds), uvloop=loop == "uvloop")


async def _dial(context: ssl.SSLContext, port: int, seconds: float) -> Facts:
    reader, writer = await asyncio.open_connection(ADDRESS, port, ssl=context, server_hostname=HOST)
    data, written = bytes(CHUNK_BYTES), 0
    watch = Stopwatch()
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        writer.write(data)
        await writer.drain()
        written += len(data)
    writer.write(LAST)
    await reader.readexactly(loads.COUNT.size)
    writer.transport.abort()
    return {"bytes": written + len(LAST), **watch.read()}
