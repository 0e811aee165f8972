"""Bytes of a fuzzer as choices: a target takes numbers and pieces from them until nothing is left."""

from __future__ import annotations


class Source:
    """What is taken behind the end is zero and empty, so every input means something."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, n: int) -> bytes:
        """Take at most `n` bytes."""
        taken = self._data[self._at : self._at + n]
        self._at += len(taken)
        return taken

    def byte(self, below: int = 256) -> int:
        """Take a number that fits into a byte."""
        return int.from_bytes(self.take(1)) % below

    def number(self, below: int = 1 << 62) -> int:
        """Take a number in few bytes or many: the first says in how many."""
        return int.from_bytes(self.take(1 + self.byte(8))) % below

    def piece(self) -> bytes:
        """Take a length of two bytes, and as many."""
        return self.take(int.from_bytes(self.take(2)))

    def rest(self) -> bytes:
        """Take everything that is left."""
        return self.take(len(self._data))
