"""Packets sealed and opened: layout, masks, epochs, replays, forgeries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpeer._core import probe, probe_wire
from tests.models import protection

SECRET = bytes(range(32))
CID = 1 << 63 | 0x0123456789ABCD
SUITES = [probe.SUITES[name] for name in probe.available_suites()]
suites = pytest.mark.parametrize("suite", SUITES)


@pytest.fixture(params=SUITES)
def ends(request):
    """Both ends of one direction."""
    return probe_wire.Sealer(request.param, SECRET), probe_wire.Opener(request.param, SECRET)


def numbers(opener):
    """Everything that must not change when a packet is refused."""
    return opener.window_state, opener.epoch, opener.has_previous


@suites
@given(
    payload=st.binary(max_size=60),
    cid=st.integers(2**63, 2**64 - 1),
    path=st.integers(0, 2**32 - 1),
    counter=st.integers(0, 2**56 - 1),
    epoch=st.integers(0, 5),
)
def test_packet_is_laid_out_as_specified(suite, payload, cid, path, counter, epoch):
    sealer, opener = probe_wire.Sealer(suite, SECRET), probe_wire.Opener(suite, SECRET)
    for _ in range(epoch):
        sealer.update()
        opener.update()
    packet = sealer.protect(payload, cid, path, counter)
    assert packet == protection.protect(suite, SECRET, payload, cid, path, counter, epoch=epoch)
    assert opener.unprotect(packet, path) == (payload, counter, False)


@pytest.mark.row("P7")
def test_empty_payload_is_a_packet(ends):
    sealer, opener = ends
    assert opener.unprotect(sealer.protect(b"", CID, 0, 0), 0) == (b"", 0, False)


@pytest.mark.row("P7")
def test_payload_may_fill_a_whole_datagram(ends):
    sealer, opener = ends
    payload = bytes(i % 251 for i in range(65507 - 16 - 32))
    assert opener.unprotect(sealer.protect(payload, CID, 0, 2**56 - 1), 0) == (payload, 2**56 - 1, False)


@pytest.mark.row("P15")
def test_packet_too_short_for_the_masks_sample_is_dropped(ends):
    sealer, opener = ends
    packet = sealer.protect(b"some payload", CID, 0, 0)
    before = numbers(opener)
    for n in range(len(packet)):
        result = opener.unprotect(packet[:n], 0)
        assert result in ({"short"} if n < 32 else {"forged", "reserved"}), n
    assert numbers(opener) == before
    assert opener.unprotect(packet, 0) == (b"some payload", 0, False)


@pytest.mark.row("P1")
def test_packet_is_taken_once(ends):
    sealer, opener = ends
    packets = [sealer.protect(b"%d" % i, CID, 0, i) for i in range(100)]
    assert [opener.unprotect(packet, 0)[0] for packet in packets] == [b"%d" % i for i in range(100)]
    assert {opener.unprotect(packet, 0) for packet in packets} == {"replay"}
    assert opener.forged == 0


@pytest.mark.row("P2")
@pytest.mark.parametrize("newest", [8192, 8193, 8255, 8256, 10**6, 2**56 - 1])
def test_packet_older_than_the_window_is_dropped(ends, newest):
    sealer, opener = ends
    opener.unprotect(sealer.protect(b"", CID, 0, newest), 0)
    oldest = newest - 8191
    assert opener.unprotect(sealer.protect(b"old", CID, 0, oldest), 0) == (b"old", oldest, False)
    assert opener.unprotect(sealer.protect(b"old", CID, 0, oldest), 0) == "replay"
    assert opener.unprotect(sealer.protect(b"older", CID, 0, oldest - 1), 0) == "replay"


@pytest.mark.row("P3")
def test_forged_packet_moves_nothing_even_with_a_number_far_ahead(ends):
    sealer, opener = ends
    opener.unprotect(sealer.protect(b"", CID, 0, 5), 0)
    before = numbers(opener)
    for counter in (6, 7, 9000, 2**56 - 1):
        packet = bytearray(sealer.protect(bytes(16), CID, 0, counter))
        packet[-1] ^= 1  # outside the mask's sample, so that the number is read as it was written
        assert opener.unprotect(bytes(packet), 0) == "forged"
    assert numbers(opener) == before
    assert opener.forged == 4
    assert opener.unprotect(sealer.protect(b"next", CID, 0, 6), 0) == (b"next", 6, False)


@pytest.mark.row("P4")
@suites
def test_packet_of_the_other_direction_does_not_open(suite):
    """Each direction has its own secret, so that an end's own packets are of no use to it."""
    opener = probe_wire.Opener(suite, bytes(32))
    dropped = {opener.unprotect(probe_wire.Sealer(suite, SECRET).protect(b"x", CID, 0, i), 0) for i in range(50)}
    assert dropped <= {"forged", "reserved"}


@pytest.mark.row("P5")
def test_packet_opens_on_its_path_and_for_its_connection_only(ends):
    sealer, opener = ends
    packet = sealer.protect(b"x", CID, 3, 0)
    assert opener.unprotect(packet, 4) == "forged"
    assert opener.unprotect((CID + 1).to_bytes(8, "big") + packet[8:], 3) == "forged"
    assert opener.unprotect(packet, 3) == (b"x", 0, False)


@pytest.mark.row("P6")
@suites
def test_of_256_flag_bytes_those_of_this_epoch_and_the_next_are_defined(suite):
    opener = probe_wire.Opener(suite, SECRET)
    for flags in range(256):
        packet = protection.protect(suite, SECRET, b"", CID, 0, flags, epoch=flags & 1, flags=flags)
        expected = {0: (b"", 0, False), 1: (b"", 1, True)}.get(flags, "reserved")
        assert opener.unprotect(packet, 0) == expected, flags
    assert opener.epoch == 0 and opener.forged == 0


@pytest.mark.row("P1")
def test_every_flipped_bit_of_a_packet_is_noticed(ends):
    sealer, opener = ends
    packet = sealer.protect(b"payload", CID, 0, 100)
    before = numbers(opener)
    for bit in range(8 * len(packet)):
        forged = bytearray(packet)
        forged[bit // 8] ^= 1 << bit % 8
        assert opener.unprotect(bytes(forged), 0) in {"forged", "reserved"}, bit
    assert numbers(opener) == before
    assert opener.unprotect(packet, 0) == (b"payload", 100, False)


# --- key updates ---


@pytest.mark.row("P12")
def test_packets_overtaken_by_an_update_are_still_read(ends):
    sealer, opener = ends
    old = [sealer.protect(b"old %d" % i, CID, 0, i) for i in range(3)]
    sealer.update()
    assert (sealer.epoch, sealer.sealed) == (1, 0)
    new = [sealer.protect(b"new %d" % i, CID, 0, i) for i in range(3, 6)]
    assert opener.unprotect(old[0], 0) == (b"old 0", 0, False)
    assert opener.unprotect(new[1], 0) == (b"new 4", 4, True)
    opener.update()
    assert opener.unprotect(old[1], 0) == (b"old 1", 1, False)
    assert opener.unprotect(new[0], 0) == (b"new 3", 3, False)
    opener.forget_previous()
    assert opener.unprotect(old[2], 0) == "reserved"
    assert opener.unprotect(new[2], 0) == (b"new 5", 5, False)


@pytest.mark.row("P12")
def test_packets_of_the_epoch_before_the_last_are_lost(ends):
    sealer, opener = ends
    old = sealer.protect(b"old", CID, 0, 0)
    for _ in range(2):
        sealer.update()
        opener.update()
    assert opener.unprotect(old, 0) == "reserved"
    assert opener.unprotect(sealer.protect(b"new", CID, 0, 1), 0) == (b"new", 1, False)


@pytest.mark.row("P12")
def test_garbage_of_the_next_epoch_does_not_advance(ends):
    sealer, opener = ends
    sealer.update()
    before = numbers(opener)
    for i in range(10):
        packet = bytearray(sealer.protect(bytes(16), CID, 0, i))
        packet[-1 - i] ^= 0x40  # outside the mask's sample
        assert opener.unprotect(bytes(packet), 0) == "forged"
    assert numbers(opener) == before and opener.epoch == 0


@pytest.mark.row("P12")
def test_epochs_go_round_and_each_has_a_key_of_its_own(ends):
    sealer, opener = ends
    seen = set()
    for epoch in range(9):
        packet = sealer.protect(bytes(8), CID, 0, epoch)
        seen.add(packet[16:])
        result = opener.unprotect(packet, 0)
        assert result == (bytes(8), epoch, epoch > 0)
        if epoch:
            opener.update()
        sealer.update()
    assert len(seen) == 9


@pytest.mark.row("P12")
def test_packet_two_epochs_ahead_is_not_tried(ends):
    """Two bits of the epoch tell apart the last, this and the next; what is beyond is not even decrypted."""
    sealer, opener = ends
    sealer.update()
    sealer.update()
    assert opener.unprotect(sealer.protect(b"x", CID, 0, 0), 0) == "reserved"
    sealer.update()
    assert opener.unprotect(sealer.protect(b"x", CID, 0, 0), 0) == "reserved"
    assert opener.forged == 0


def test_packets_under_a_key_are_counted(ends):
    sealer, _ = ends
    for i in range(5):
        sealer.protect(b"x", CID, 0, i)
    assert sealer.sealed == 5
