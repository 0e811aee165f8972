"""Chapter 3 of the specification: several shards behind one address."""

import random

import pytest

from interpeer._core import control
from tests.unit.test_shards import INIT, MS, OPEN, Net, S, Side, heard, say, shard_of, to_any, to_wrong


@pytest.mark.spec("PK-42")
@pytest.mark.parametrize("shards", [1, 2, 5])
def test_every_connection_id_names_its_shard(shards):
    node, peer = Side(1, 1, shards), Side(2, 2, 1)
    net = Net(node, peer)
    for _ in range(2 * shards):
        node.call(peer, net.now_ns)
    for engine, exchange in zip(node.engines, node.exchanges, strict=True):
        control.add_entropy(engine, node.chance.randbytes(4096))
        inits = [data for data, *_ in exchange.transmit(net.now_ns)]
        assert len(inits) == 2
        for init in inits:
            assert init[0] == INIT and init[2] & 0x80
            assert (init[2] ^ init[3]) & 0x7F == node.engines.index(engine)


@pytest.mark.spec("PK-43")
@pytest.mark.parametrize("shards", [2, 5])
def test_what_comes_to_the_wrong_shard_is_answered_by_the_right_one(shards):
    node, peer = Side(1, 1, shards, to_wrong, is_stored=True), Side(2, 2, 1)
    net = Net(node, peer)
    here = [peer.call(node, net.now_ns) for _ in range(2 * shards)]
    net.run(50 * MS)
    assert len(node.incoming) == 2 * shards
    for end in here:
        say(end, b"hello")
    net.run(50 * MS)
    assert [heard(end) for end in node.incoming] == [b"hello"] * (2 * shards)
    assert node.counter("resets_sent") == node.counter("dropped_unknown") == 0


@pytest.mark.spec("PK-44")
def test_a_reset_finds_its_connection_in_any_shard(seed):
    chance = random.Random(seed)
    node, peer = Side(1, 1, 4, to_any(chance)), Side(2, 2, 1, is_stored=True)
    net = Net(node, peer)
    ends = [node.call(peer, net.now_ns) for _ in range(8)]
    net.run(50 * MS)
    assert [end.state for end in ends] == [OPEN] * 8
    net.sides[2] = Side(2, 2, 1, is_stored=True)
    for end in ends:
        end.send_datagram(bytes(100))
    net.run(50 * MS)
    assert node.counter("resets_received") == 8 and not any(end.is_open for end in ends)


@pytest.mark.spec("PK-45")
@pytest.mark.parametrize("offset_ms", [0, 15])
@pytest.mark.parametrize("late", ["node", "peer"])
@pytest.mark.parametrize("keys", [(1, 2), (2, 1)])
def test_calls_that_cross_are_one_session_in_any_shards(offset_ms, late, keys):
    for others in range(4):  # connections that there are, so that calls begin in each of the shards
        node, peer = Side(keys[0], 1, 4), Side(keys[1], 2, 1)
        net = Net(node, peer, delay_ns=20 * MS)
        for i in range(others):
            node.call(Side(10 + i, 10 + i, 1), net.now_ns)
        first, second = (peer, node) if late == "node" else (node, peer)
        ends = [first.call(second, net.now_ns)]
        net.run(offset_ms * MS)
        if late == "node":
            net.run(10 * MS)
        ends.append(second.call(first, net.now_ns))
        net.run(4 * S)
        assert [end.state for end in ends] == [OPEN, OPEN]
        assert not node.incoming and not peer.incoming and peer.counter("connections") == 1


@pytest.mark.spec("PK-46")
def test_shards_together_send_no_more_resets_than_one_node_may(seed):
    chance = random.Random(seed)
    node = Side(1, 1, 4, is_stored=True)
    for _ in range(2000):
        stray = b"\x80" + chance.randbytes(99)
        node.exchanges[shard_of(stray, 4)].receive([(stray, node.address, 0)], S)
    for _ in node.engines:
        node.turn(S)
    assert 60 <= node.counter("resets_sent") <= 100
