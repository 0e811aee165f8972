"""What a node learns about its own addresses and the NATs in front of it: STUN transactions, and what they tell together."""

from interpeer._nat._discover import discover, mapping_lifetime, newest_port
from interpeer._nat._hooks import Hooks, How, Prober, Server, Socket
from interpeer._nat._judge import prefix
from interpeer._nat._node_hooks import NodeHooks
from interpeer._nat._report import Behaviour, NatReport
from interpeer._nat._transactions import Result, RoundTrips, State, Transactions

__all__ = [
    "Behaviour",
    "Hooks",
    "How",
    "NatReport",
    "NodeHooks",
    "Prober",
    "Result",
    "RoundTrips",
    "Server",
    "Socket",
    "State",
    "Transactions",
    "discover",
    "mapping_lifetime",
    "newest_port",
    "prefix",
]
