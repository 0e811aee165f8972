"""How the commands of this package explain themselves: by what stands at the head of their module."""

from __future__ import annotations

import argparse


def parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """Return a parser for `python -m benchmarks NAME`; the first line of `doc` says what it is for, the rest how."""
    about, _, more = (doc or "").partition("\n")
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}".rstrip(),
        description=about,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
