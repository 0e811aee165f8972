"""miniupnpd on a router: forwards ports at the wish of the hosts behind it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
import uuid
from enum import StrEnum, unique
from pathlib import Path
from typing import Final, final

from interpeer.testing.natlab._namespace import LabError, Namespace
from interpeer.testing.natlab._rules import IN, OUT

_PACKAGE: Final = "miniupnpd-nftables"
_START_S: Final = 5.0
_FOLDER: Final = "/run"
_SSDP: Final = 1900
_NAT_PMP: Final = 5351


@final
@unique
class PortMapping(StrEnum):
    """Name what a router offers to forward ports by."""

    IGD = "igd"
    """UPnP Internet Gateway Device."""
    PMP = "pmp"
    """NAT-PMP (RFC 6886) and PCP (RFC 6887)."""
    ALL = "all"


# Where it enters its rules: before those of the NAT, so that a port that it forwards is forwarded.
_CHAINS: Final = """table inet miniupnpd {
  chain forward { type filter hook forward priority filter; jump miniupnpd; }
  chain prerouting { type nat hook prerouting priority dstnat - 1; jump prerouting_miniupnpd; }
  chain postrouting { type nat hook postrouting priority srcnat - 1; jump postrouting_miniupnpd; }
  chain miniupnpd { }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
}
"""


@final
class Miniupnpd:
    """A running miniupnpd. Raises LabError if it is not installed or does not start."""

    def __init__(self, space: Namespace, offers: PortMapping) -> None:
        program = shutil.which("miniupnpd") or shutil.which("miniupnpd", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise LabError(f"port mapping on a router needs miniupnpd, in Debian: apt-get install {_PACKAGE}")
        self._space = space
        space.tell("nft", "-f", "-", text=_CHAINS)
        self._folder = Path(tempfile.mkdtemp(prefix=f"{space.name}-", dir=_FOLDER))
        (self._folder / "conf").write_text(_configuration(offers))
        command = space.command([program, "-d", "-f", str(self._folder / "conf"), "-P", str(self._folder / "pid")])
        with open(self._folder / "log", "wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._wait(_SSDP if offers is PortMapping.IGD else _NAT_PMP)
        except LabError:
            self.close()
            raise

    def _wait(self, port: int) -> None:
        """Wait until it listens."""
        deadline = time.monotonic() + _START_S
        while port not in self._space.call(_udp_ports):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"miniupnpd did not start: {(self._folder / 'log').read_text()[-500:].strip()}")
            time.sleep(0.01)

    def close(self) -> None:
        """End it: its forwarded ports are forgotten."""
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self._folder)
        self._space.tell("nft", "delete table inet miniupnpd")


def remove_leftovers(prefix: str) -> None:
    """Remove what a crash has left of routers whose namespaces are called so."""
    for folder in Path(_FOLDER).glob(f"{prefix}*"):
        shutil.rmtree(folder)


def _configuration(offers: PortMapping) -> str:
    lines = {
        "ext_ifname": OUT,
        "listening_ip": IN,
        "enable_upnp": _yes(offers in (PortMapping.IGD, PortMapping.ALL)),
        "enable_natpmp": _yes(offers in (PortMapping.PMP, PortMapping.ALL)),  # with it comes PCP
        "upnp_table_name": "miniupnpd",
        "upnp_nat_table_name": "miniupnpd",
        "upnp_forward_chain": "miniupnpd",
        "upnp_nat_chain": "prerouting_miniupnpd",
        "upnp_nat_postrouting_chain": "postrouting_miniupnpd",
        "secure_mode": "yes",
        "notify_interval": "30",
        "system_uptime": "yes",
        "uuid": str(uuid.uuid4()),
        "min_lifetime": "1",
        "max_lifetime": "86400",
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items()) + "allow 1024-65535 0.0.0.0/0 1024-65535\n"


def _udp_ports() -> set[int]:
    """Return the ports of UDP sockets in the calling thread's namespace."""
    lines = Path("/proc/thread-self/net/udp").read_text().splitlines()[1:]
    return {int(line.split()[1].partition(":")[2], 16) for line in lines}


def _yes(value: bool) -> str:
    return "yes" if value else "no"
