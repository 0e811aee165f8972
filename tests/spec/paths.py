"""A peer with several paths, and what the tests of chapter 14 ask of it."""

from interpeer._core import path_handle
from tests.spec import reference as ref
from tests.spec.peer import ELSEWHERE, MS, Node, Peer, endpoint

QUESTION = b"question"
THIRD = endpoint("203.0.113.77", 7007)
ANY = bytes(16)
HUGE = 2**62 - 1
PATH_FRAMES = [ref.NEW_CONNECTION_ID, ref.RETIRE_CONNECTION_ID, ref.PATH_ABANDON, ref.PATH_STATUS]


def calling(*, most=4, **limits):
    """Return a peer that has called the node; each has given the other ids for path 0 and for the next of both sides."""
    peer = Peer(Node(**limits)).call(MAX_PATHS=most)
    peer.send(peer.new_cid(0, 1), peer.new_cid(1, 0), peer.new_cid(2, 0))
    settle(peer)
    return peer


def settle(peer):
    """Acknowledge what the node says until it is quiet; return the frames that say something."""
    return [frame for frame in peer.exchange() if frame.kind != ref.PING]


def paths(peer):
    return {figures["id"]: figures for figures in path_handle.paths(peer.handle)}


def states(peer):
    """Return the state of each path by its id."""
    return {path: path_handle.STATES[figures["state"]] for path, figures in paths(peer).items()}


def preferred(peer):
    return next(path for path, figures in paths(peer).items() if figures["is_preferred"])


def challenge_in(peer, said):
    """Return what the node asks in what it has said."""
    return next(frame.data for frame in peer.frames(said) if frame.kind == ref.PATH_CHALLENGE)


def accepted(peer, path=2, source=ELSEWHERE):
    """Let the peer open a path and prove where it is."""
    peer.send(ref.path_challenge(QUESTION), bytes(1000), path=path, source=source)
    asked = challenge_in(peer, peer.node.say())
    peer.node.now_ns += 20 * MS
    peer.send(ref.path_response(asked), path=path, source=source)
    peer.send(peer.new_cid(path, 1), peer.new_cid(path + 2, 0))
    assert states(peer)[path] == "active"
    settle_all(peer)
    return peer


def settle_all(peer, rounds=6):
    """Acknowledge all that is said on any path, a few times; return the frames."""
    frames = []
    for _ in range(rounds):
        frames += peer.frames(peer.node.wait(10 * MS))
        peer.node.now_ns += 10 * MS
        if any(peer.received_on.values()):
            peer.acknowledge_all()
    return frames


def opening(peer, to=ELSEWHERE):
    """Let the node open a path; return its id."""
    result, path = path_handle.open_path(peer.handle, to, ANY)
    assert result == path_handle.OPENED
    return path


def proven_opening(peer, to=ELSEWHERE):
    """Let the node open a path, and answer its challenge."""
    path = opening(peer, to)
    said = [sent for sent in peer.node.say() if sent.to == to]
    peer.node.now_ns += 20 * MS
    peer.send(ref.path_response(challenge_in(peer, said)), path=path, source=to)
    peer.send(peer.new_cid(path, 1), peer.new_cid(path + 2, 0))
    settle_all(peer)
    assert states(peer)[path] == "active"
    return path


def paths_of(peer, said):
    """Return on which paths the node has sent frames of streams."""
    found = set()
    for sent in said:
        opened = peer.open(sent.data)
        if any(frame.kind == ref.STREAM for frame in ref.read_frames(opened.payload)):
            found.add(opened.path)
    return found
