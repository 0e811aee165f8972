"""The bytes of a stream while they wait, on both sides."""

import pytest

from interpeer._core.probe_memory import Incoming, Outgoing, Pools

BLOCK = 4096


@pytest.fixture
def pools():
    return Pools()


# --- sending ---


def test_written_bytes_are_copied_once_and_found_by_offset(pools):
    buffer = Outgoing(pools)
    assert buffer.append(b"abc") == 3 and buffer.append(b"") == 0 and buffer.append(b"defg") == 4
    assert (buffer.start, buffer.end) == (0, 7)
    assert buffer.at(0) == b"abcdefg" and buffer.at(5) == b"fg" and buffer.at(7) == b""
    assert pools.live == (1, 0)


def test_acknowledged_blocks_go_back_and_the_rest_stays(pools):
    buffer = Outgoing(pools)
    buffer.append(bytes(200_000))
    blocks = sum(pools.live)
    buffer.release(199_999)
    assert sum(pools.live) == 1 < blocks and buffer.at(199_999) == b"\0" and buffer.at(199_998) == b""
    buffer.release(100)
    assert buffer.start == 199_999
    buffer.release(200_000)
    assert pools.live == (0, 0)
    buffer.append(b"more")
    assert buffer.at(200_000) == b"more"


def test_lent_memory_takes_no_block_and_keeps_its_place_in_the_stream(pools):
    buffer = Outgoing(pools)
    buffer.append(b"before ")
    buffer.lend(b"lent " * 10_000)
    buffer.append(b"after")
    assert sum(pools.live) == 2
    found = b""
    while len(found) < buffer.end:
        found += buffer.at(len(found))
    assert found == b"before " + b"lent " * 10_000 + b"after"


def test_lending_nothing_leaves_nothing_behind(pools):
    buffer = Outgoing(pools)
    buffer.lend(b"")
    assert buffer.chunks == 0
    buffer.append(b"a")
    buffer.lend(b"")
    buffer.append(b"b")
    assert buffer.at(0) == b"ab"
    buffer.clear()
    assert buffer.chunks == 0 and pools.live == (0, 0)


def test_only_bytes_of_our_own_in_one_piece_are_sealed_where_they_lie(pools):
    buffer = Outgoing(pools)
    buffer.append(bytes(range(100)))
    buffer.lend(b"lent")
    assert buffer.own(0, 100) == bytes(range(100)) and buffer.own(99, 1) == b"c"
    assert buffer.own(99, 2) is None and buffer.own(100, 4) is None and buffer.own(104, 1) is None
    assert buffer.at(0) == bytes(range(100))


# --- receiving ---


def test_fragments_in_any_order_come_out_in_order(pools):
    buffer = Incoming(pools, 10)
    for offset, data in ((6, b"ghi"), (0, b"abc"), (9, b"j"), (3, b"def")):
        assert buffer.write(offset, data) == "ok"
    assert buffer.ready == 10 and buffer.gaps == 0
    assert buffer.read(4) == b"abcd" and buffer.read(100) == b"efghij" and buffer.read(1) == b""
    assert pools.live == (0, 0)


@pytest.mark.row("S3")
def test_of_overlapping_fragments_the_first_one_stays(pools):
    buffer = Incoming(pools, 10)
    buffer.write(2, b"22")
    buffer.write(6, b"66")
    buffer.write(0, b"0123456789")
    buffer.write(0, b"xxxxxxxxxx")
    assert buffer.read(10) == b"0122456689"[:10]
    buffer.write(5, b"yyyyyyy")
    assert buffer.read(10) == b"yy"


@pytest.mark.row("S2")
def test_more_gaps_than_are_kept_are_told_and_nothing_is_kept(pools):
    buffer = Incoming(pools, 3)
    for offset in (2, 4, 6):
        assert buffer.write(offset, b"x") == "ok"
    assert buffer.write(8, b"x") == "gaps"
    assert buffer.gaps == 3
    assert buffer.write(7, b"x") == "ok" and buffer.write(1, b"x") == "ok" and buffer.write(0, b"x") == "ok"
    assert buffer.ready == 3


@pytest.mark.row("S2")
def test_thousand_single_bytes_with_gaps_take_no_more_memory_than_the_window(pools):
    buffer = Incoming(pools, 1000)
    for i in range(1000):
        assert buffer.write(1 + 2 * i, b"x") == "ok"
    assert buffer.write(2001, b"x") == "gaps"
    assert pools.live == (1, 0)


@pytest.mark.parametrize("offset", [0, 1, 100_000])
def test_empty_fragment_costs_nothing(pools, offset):
    buffer = Incoming(pools, 10)
    assert buffer.write(offset, b"") == "ok"
    assert buffer.slots == 0 and pools.live == (0, 0) and buffer.ready == 0


def test_ring_of_blocks_grows_while_it_is_in_use(pools):
    buffer = Incoming(pools, 10)
    buffer.write(0, b"a" * 3000)
    assert buffer.read(2000) == b"a" * 2000
    buffer.write(40 * BLOCK, b"z" * 10)
    buffer.write(3000, b"b" * (40 * BLOCK - 3000))
    assert buffer.read(1000) == b"a" * 1000
    assert buffer.read(10**6) == b"b" * (40 * BLOCK - 3000) + b"z" * 10
    assert pools.live == (0, 0) and buffer.slots <= 4


def test_what_comes_in_order_goes_straight_to_a_reader_that_waits(pools):
    buffer = Incoming(pools, 10)
    buffer.post(10)
    buffer.write(0, b"01234")
    buffer.write(5, b"5678901234")
    assert pools.live == (1, 0)  # for what did not fit
    assert buffer.unpost() == b"0123456789" and buffer.first_unread == 10
    assert buffer.read(10) == b"01234"


def test_what_overtakes_does_not_go_to_a_reader_that_waits(pools):
    buffer = Incoming(pools, 10)
    buffer.post(10)
    buffer.write(2, b"cd")
    buffer.write(0, b"ab")
    assert buffer.unpost() == b"" and buffer.read(10) == b"abcd"
