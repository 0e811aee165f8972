"""Peers behind a relay, for the tests of chapter 21: the node is the relay, or the relay is a peer of the node's."""

from interpeer._core import legs
from tests.spec.peer import ELSEWHERE, PEER_AT, Node, Peer

LEG, OTHER = b"\x9cleg one", b"\xb5leg two"
"""Ids of legs: in the first byte the highest bit is set."""
INNER = b"\x80" + bytes(99)
"""What could be a packet of a connection that is not ours."""
UNLIMITED = float("inf")


def number(leg):
    return int.from_bytes(leg)


class Through:
    """A node as it is seen by a peer behind a relay: the leg's id is in front of whatever they say to each other."""

    def __init__(self, node, relay, leg=LEG):
        self.__dict__.update(node=node, relay=relay, leg=leg)

    def __getattr__(self, name):
        return getattr(self.node, name)

    def __setattr__(self, name, value):
        setattr(self.node, name, value)

    def hear(self, *datagrams, source=None, **how):
        self.node.hear(*(self.leg + data for data in datagrams), source=self.relay.at, **how)

    def unwrap(self, said):
        """Return what goes to this peer."""
        return [
            type(sent)(sent.data[8:], sent.to, sent.ecn, sent.at_ns, sent.local)
            for sent in said
            if sent.to == self.relay.at and sent.data[:8] == self.leg
        ]

    def say(self, **how):
        return self.unwrap(self.node.say(**how))

    def wait(self, ns):
        return self.unwrap(self.node.wait(ns))

    def answers(self, *datagrams, source=None):
        self.hear(*datagrams)
        return [sent.data for sent in self.say()]


def relaying(bytes_per_s=UNLIMITED, burst=1 << 20, **limits):
    """Return a node that relays between two peers, whose legs are LEG and OTHER."""
    node = Node(**limits)
    a = Peer(node, at=PEER_AT).call()
    a.exchange()
    b = Peer(node, bytes([3]) * 32, at=ELSEWHERE).call()
    b.exchange()
    legs.join(a.handle, number(LEG), b.handle, number(OTHER), bytes_per_s, burst)
    return node, a, b


def behind(*, most=4, **limits):
    """Return a peer that has called the node through a relay, and the relay, which is another one of its peers."""
    node = Node(**limits)
    relay = Peer(node, at=PEER_AT).call()
    relay.exchange()
    at = legs.add(relay.handle, number(LEG))
    peer = Peer(Through(node, relay), bytes([3]) * 32, at=at).call(MAX_PATHS=most)
    return peer, relay
