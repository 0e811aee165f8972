"""What the tests of channels do with a peer: open one, and look at what it says of them."""

from tests.spec.peer import MS
from tests.spec.reference import channel_frame

RELIABLE, UNORDERED, ONCE = (3, 3, 0, 0, 0), (1, 3, 0, 0, 0), (2, 3, 0, 0, 0)
HUGE = 2**59


def accepted(peer):
    return list(iter(peer.handle.accept_channel, None))


def opened(peer, *frames):
    """Let the peer open channel 0 (of 2 n + p) and return our end of it."""
    peer.send(channel_frame(0), *frames)
    (channel,) = accepted(peer)
    peer.node.say()
    return channel


def taken(channel):
    return channel.recv_many(100, False)


def of_kind(kind, frames):
    return [frame for frame in frames if frame.kind == kind]


def lose(peer):
    """Let what is on its way be lost: packets behind it are acknowledged."""
    peer.node.say()
    numbers = []
    for _ in range(4):
        peer.handle.send_datagram(b"x")
        numbers += [packet.counter for packet in peer.packets(peer.node.wait(MS))]
    peer.acknowledge(*numbers[-3:])
