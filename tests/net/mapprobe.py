"""A host behind a router: it echoes what comes to a UDP port, and keeps that port mapped. Run by test_miniupnpd.py.

    python mapprobe.py METHODS IP-VERSION LIFETIME

It prints one JSON object a line: {"port":..} first, {"mappings":[..]} when these change, {"verify":ENDPOINT} when somebody
outside is to try. On standard input it takes, a line each, "true", "false" or "null" as a verdict, "doubt", "report", and "end".
"""

import asyncio
import json
import sys
from dataclasses import asdict

from interpeer._portmap import PortMapper, machine


def say(**event):
    print(json.dumps(event), flush=True)


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)


async def main(methods, version):
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    anywhere = "0.0.0.0" if version == 4 else "::"
    echo, _ = await loop.create_datagram_endpoint(Echo, local_addr=(anywhere, 0))
    port = echo.get_extra_info("sockname")[1]
    say(port=port)
    verdicts = asyncio.Queue()

    async def verify(endpoint):
        say(verify=str(endpoint))
        return await verdicts.get()

    def tell():
        say(mappings=[asdict(mapping) | {"external": str(mapping.external)} for mapping in mapper.mappings])

    mapper = PortMapper(port, versions=(version,), methods=methods, on_change=tell, verify=verify)
    await mapper.start()
    while (line := (await lines.readline()).decode().strip()) not in ("end", ""):
        if line == "doubt":
            mapper.handle_doubt()
        elif line == "report":
            say(report=mapper.report())
        else:
            verdicts.put_nowait(json.loads(line))
    await mapper.close()
    echo.close()
    say(ended=True)


if __name__ == "__main__":
    machine.LIFETIME_S = int(sys.argv[3])
    asyncio.run(main(sys.argv[1].split(","), int(sys.argv[2])))
