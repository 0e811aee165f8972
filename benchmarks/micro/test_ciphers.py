"""Sealing and opening, per cipher: the AEAD alone, and whole packets with header, mask and replay window."""

import pytest

from interpeer._core.probe import available_suites
from interpeer._core.probe_loops import Protecting, Sealing

PACKET_BYTES = 1200
ciphers = pytest.mark.parametrize("cipher", available_suites())
sizes = pytest.mark.parametrize("size", [64, PACKET_BYTES])


@ciphers
@sizes
def test_seal(repeat, cipher, size):
    repeat(Sealing(cipher, size).seal)


@ciphers
@sizes
def test_open(repeat, cipher, size):
    repeat(Sealing(cipher, size).open)


@ciphers
def test_protect_and_unprotect(repeat, cipher):
    repeat(Protecting(cipher, PACKET_BYTES).run)
