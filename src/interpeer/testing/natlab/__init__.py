"""A laboratory for programs that go through NATs: hosts in Linux network namespaces, behind NATs of named kinds, on this machine.

    from interpeer.testing import Link, NatKind
    from interpeer.testing.natlab import Lab

    with Lab("demo") as lab:
        server = lab.host("server")
        a = lab.host("a", NatKind.PORT, link=Link(delay_s=0.015))
        b = lab.host("b", NatKind.SYMMETRIC)
        service = server.popen(["python3", "service.py"])
        print(a.run(["python3", "client.py", server.address]).stdout)
        a.flush()                       # the router reboots

Real kernels, real sockets, any program; nothing leaves the machine. It needs Linux, root, iproute2, nftables and conntrack.
The tests measure each kind from outside and hold it against `NatKind`. docs/natlab.md tells how to use it.
"""

from interpeer.testing.natlab._lab import Lab
from interpeer.testing.natlab._machine import Host, Machine, Router
from interpeer.testing.natlab._namespace import LabError
from interpeer.testing.natlab._network import Internet, Lan, Network
from interpeer.testing.natlab._rules import Ipv6
from interpeer.testing.natlab._upnp import PortMapping

__all__ = ["Host", "Internet", "Ipv6", "Lab", "LabError", "Lan", "Machine", "Network", "PortMapping", "Router"]
