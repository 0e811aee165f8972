"""Forward error correction: the arithmetic, repairs over a window, and the recovery of what was lost.

`gbit_s` counts the bytes of the messages that a repair is made of, or of all messages of a window that is completed."""

import pytest

from benchmarks.micro.conftest import MANY
from interpeer._core import probe_fec
from interpeer._core.probe_fec import Correcting

MESSAGE_BYTES = 1150


@pytest.fixture(params=probe_fec.available_variants())
def variant(request):
    before = probe_fec.chosen()
    probe_fec.choose(request.param)
    yield request.param
    probe_fec.choose(before)


def note_rate(benchmark, bytes_each):
    """Note the rate at which bytes were worked on; `ns_each` is known."""
    if "ns_each" in benchmark.extra_info:
        benchmark.extra_info["gbit_s"] = round(bytes_each * 8 / benchmark.extra_info["ns_each"], 2)


def test_multiply_a_buffer(repeat, benchmark, variant):
    repeat(lambda n: probe_fec.multiply_buffers(n, MESSAGE_BYTES))
    note_rate(benchmark, MESSAGE_BYTES)


def test_cover_a_message(repeat):
    repeat(Correcting(32, MESSAGE_BYTES).add)


@pytest.mark.parametrize("window", [8, 32, 64])
def test_make_a_repair(repeat, benchmark, window):
    repeat(Correcting(window, MESSAGE_BYTES).repair)
    note_rate(benchmark, window * MESSAGE_BYTES)


@pytest.mark.parametrize("lost", [1, 3, 8])
def test_recover_in_a_window(repeat, benchmark, lost):
    """A window of 32 messages, some of them lost, as many repairs made and used; `ns_each` is one that comes back."""
    correcting = Correcting(32, MESSAGE_BYTES)
    repeat(lambda n: correcting.recover(n // lost, lost), MANY // lost * lost)
    note_rate(benchmark, 32 * MESSAGE_BYTES / lost)
