"""A twin of the forward error correction: the field bit by bit, and equations solved all anew each time."""

from __future__ import annotations

import itertools

MASK = (1 << 64) - 1


def multiply(a: int, b: int) -> int:
    """Multiply as polynomials over bits, modulo x^8 + x^4 + x^3 + x^2 + 1."""
    product = 0
    for bit in range(8):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(14, 7, -1):
        if product >> bit & 1:
            product ^= 0x11D << (bit - 8)
    return product


TIMES = [bytes(multiply(a, b) for b in range(256)) for a in range(256)]
INVERSE = [0, *(TIMES[a].index(1) for a in range(1, 256))]


def add(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in itertools.zip_longest(a, b, fillvalue=0))


def scale(data: bytes, factor: int) -> bytes:
    return data.translate(TIMES[factor])


def factor(seed: int, number: int) -> int:
    """Return the factor of message `number` in the repair with this seed (FE-6)."""
    x = ((number << 16) | seed) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return 1 + (x >> 32) * 255 // 2**32


def symbol(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def repair(messages: dict[int, bytes], seed: int) -> bytes:
    """Return the symbol of a repair over these messages."""
    total = b""
    for number, message in messages.items():
        total = add(total, scale(symbol(message), factor(seed, number)))
    return total


Equation = tuple[dict[int, int], bytes]
"""Factors by number of message, and the sum."""


def solve(equations: list[Equation]) -> dict[int, bytes]:
    """Return the symbols that the equations determine, each padded with zeros."""
    rows: list[Equation] = []
    for factors, total in equations:
        current = ({n: f for n, f in factors.items() if f}, total)
        for row in rows:
            current = without(current, row, min(row[0]))
        if current[0]:
            pivot = min(current[0])
            unit = INVERSE[current[0][pivot]]
            current = ({n: TIMES[unit][f] for n, f in current[0].items()}, scale(current[1], unit))
            rows = [without(row, current, pivot) for row in rows] + [current]
    return {min(factors): total for factors, total in rows if len(factors) == 1}


def without(row: Equation, other: Equation, number: int) -> Equation:
    """Take an unknown out of a row with another that has it with factor 1."""
    times = row[0].get(number, 0)
    if not times:
        return row
    numbers = row[0].keys() | other[0].keys()
    factors = {n: row[0].get(n, 0) ^ TIMES[times][other[0].get(n, 0)] for n in numbers}
    return {n: f for n, f in factors.items() if f}, add(row[1], scale(other[1], times))


def message(padded: bytes) -> bytes | None:
    """Return the message in a recovered symbol, or None if it is none (FE-9)."""
    n = 2 + int.from_bytes(padded[:2], "big")
    return padded[2:n] if len(padded.rstrip(b"\0")) <= n <= len(padded) else None
