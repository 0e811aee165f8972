"""What a node is told, checked: each function returns what it means, or raises TypeError or ValueError."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import UnionType

from interpeer._address import Address, Endpoint
from interpeer._identity import Identity, PeerId
from interpeer._state import StateDirectory

Allow = Callable[[PeerId], bool]
Target = PeerId | Address | str


def check_kind(name: str, value: object, kind: type | UnionType) -> None:
    """See that a setting is of a type."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {getattr(kind, '__name__', kind)}, not {type(value).__name__}")


def words(name: str, given: Iterable[str]) -> tuple[str, ...]:
    """Return several words."""
    found = tuple(given)
    for word in found:
        check_kind(name, word, str)
    return found


def targets(given: Iterable[Target]) -> tuple[Target, ...]:
    """Return peers to bootstrap from."""
    if isinstance(given, str):
        raise TypeError("bootstrap is several targets, not one: put it in a list")
    found = tuple(given)
    for target in found:
        resolve(target)
    return found


def open_identity(given: Identity | str | os.PathLike[str] | None, state: StateDirectory | None) -> Identity:
    """Return a node's key: that given, that of a key file or of the state directory, made at first use, or a fresh one."""
    if isinstance(given, Identity):
        return given
    if given is None:
        if state is None:
            return Identity.generate()
        given = state.path / "identity"
    path = Path(given)
    if path.exists() or path.is_symlink():
        return Identity.load(path)
    identity = Identity.generate()
    identity.save(path)
    return identity


def check_allow(given: Iterable[PeerId] | Allow | None) -> frozenset[PeerId] | Allow | None:
    """Return whom to let in."""
    if given is None:
        return None
    if not callable(given):
        return frozenset(PeerId(peer) for peer in given)
    if inspect.iscoroutinefunction(given) or inspect.iscoroutinefunction(type(given).__call__):
        raise TypeError("allow is a plain function, not async def: it is asked in the middle of a handshake and answers at once")
    return given


def resolve(target: Target) -> tuple[PeerId, tuple[Endpoint, ...]]:
    """Return whom to call and where."""
    if isinstance(target, str):
        target = PeerId(target) if len(target) == 52 else Address(target)
    if isinstance(target, PeerId):
        return target, ()
    if isinstance(target, Address):
        return target.peer_id, target.endpoints
    raise TypeError(f"a target is a PeerId, an Address or a str, not {type(target).__name__}")


def address_of(target: Target) -> Address:
    """Return a target as an address, which may have no endpoint."""
    if isinstance(target, Address):
        return target
    peer_id, endpoints = resolve(target)
    return Address.of(peer_id, endpoints) if not isinstance(target, str) or len(target) == 52 else Address(target)


def why_no_address(endpoints: tuple[Endpoint, ...]) -> tuple[str, ...]:
    """Say of each address why it cannot be called."""
    if not endpoints:
        return ("the id alone is known, and the node has no network to look its address up in",)
    return tuple(f"{one}: this node has no socket of that family" for one in endpoints if one.transport == "udp")
