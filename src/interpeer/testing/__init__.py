"""Test a program that uses interpeer: a whole network in one process, in simulated time, the same in every run.

A test is a coroutine::

    from interpeer.testing import Link, SimNet, run

    async def main():
        net = SimNet(Link(delay_s=0.05, loss=0.1))
        alice, bob = net.host("alice"), net.host("bob")
        bob.start(your_service())
        await alice.start(your_program())

    run(main(), seed=1)

The engine is the one of production: only sockets, clock and entropy are replaced. docs/testing.md tells how to use it.
"""

from interpeer.testing._clock import SimClock
from interpeer.testing._errors import Amplified, Deadlock, OutOfTime, SimulationError
from interpeer.testing._link import Link, Wire, WireStats
from interpeer.testing._loop import SimLoop, run
from interpeer.testing._machine import Host
from interpeer.testing._natkind import Allocation, Dependence, NatBehaviour, NatKind
from interpeer.testing._net import SimNet
from interpeer.testing._packet import Fate, Packet
from interpeer.testing._router import Router
from interpeer.testing._tcpflow import TcpFlow
from interpeer.testing._traffic import Traffic

__all__ = [
    "Allocation",
    "Amplified",
    "Deadlock",
    "Dependence",
    "Fate",
    "Host",
    "Link",
    "NatBehaviour",
    "NatKind",
    "OutOfTime",
    "Packet",
    "Router",
    "SimClock",
    "SimLoop",
    "SimNet",
    "SimulationError",
    "TcpFlow",
    "Traffic",
    "Wire",
    "WireStats",
    "run",
]
