"""Who a peer is: its id, and the key behind one's own (an Ed25519 key, of which only the seed is stored)."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import final

from interpeer._core import control
from interpeer._host import random_bytes
from interpeer.errors import IdentityFileError

SEED_BYTES = 32
_MAGIC = b"interpeer identity 1\n"  # a key file: this line, the seed in base32, and its digest: a flipped bit is no new identity
_CHECK_BYTES = 5
_ID_CHARACTERS = 52


def to_base32(data: bytes) -> str:
    """Encode bytes as lower-case base32 without padding (RFC 4648)."""
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


def from_base32(text: str) -> bytes:
    """Decode what `to_base32` has made; raise ValueError for anything else, non-canonical endings included."""
    data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    if to_base32(data) != text:
        raise ValueError("not base32 in its one canonical, lower-case form")
    return data


@final
class PeerId:
    """Name a peer by its public key.

    `str()` gives 52 lower-case base32 characters, and `PeerId(str)` parses them. Raises ValueError for anything that
    is not the id of a key that can be dialled.

    >>> identity = Identity.from_seed(bytes(32))
    >>> PeerId(str(identity.id)) == identity.id
    True
    """

    __slots__ = ("_key",)
    _key: bytes

    def __init__(self, key: str | bytes | PeerId) -> None:
        self._key = _key_of(key)

    @classmethod
    def _of_proved(cls, key: bytes) -> PeerId:
        """Make the id of a key that a handshake has proved to be usable, without checking it again (50 us)."""
        peer_id = object.__new__(cls)
        peer_id._key = key
        return peer_id

    def __bytes__(self) -> bytes:
        return self._key

    def __str__(self) -> str:
        return to_base32(self._key)

    def __repr__(self) -> str:
        return f"PeerId({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, PeerId) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __lt__(self, other: object) -> bool:
        return self._key < other._key if isinstance(other, PeerId) else NotImplemented


def _key_of(given: str | bytes | PeerId) -> bytes:
    if isinstance(given, PeerId):
        return bytes(given)
    if isinstance(given, str):
        if len(given) != _ID_CHARACTERS:
            raise ValueError(f"a peer id has {_ID_CHARACTERS} characters, not {len(given)}")
        try:
            key = from_base32(given)
        except ValueError:
            raise ValueError("a peer id is made of the characters a-z and 2-7") from None
    elif isinstance(given, bytes):
        key = given
    else:
        raise TypeError(f"a peer id is made from str or bytes, not {type(given).__name__}")
    if not control.is_usable_identity(key):
        raise ValueError("this is not the id of a usable key: it is not on the curve, or of small order")
    return key


@final
class Identity:
    """Hold the key that a node proves who it is with.

    Make one with `generate`, `from_seed` or `load`. The seed never shows in `repr()`, logs or pickles; whoever has it is
    the peer.

    >>> Identity.generate().id != Identity.generate().id
    True
    """

    __slots__ = ("_is_stored", "_seed", "id")

    id: PeerId
    """The peer id that belongs to this key."""

    def __init__(self, seed: bytes, *, is_stored: bool) -> None:
        if not isinstance(seed, bytes):
            raise TypeError(f"a seed is bytes, not {type(seed).__name__}")
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
        self._seed = seed
        self._is_stored = is_stored
        self.id = PeerId(control.identity_of(seed))

    @classmethod
    def generate(cls) -> Identity:
        """Make a fresh identity from the operating system's randomness; nothing is written anywhere."""
        return cls(random_bytes(SEED_BYTES), is_stored=False)

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """Make the identity of a 32-byte seed, for keys that are kept elsewhere (a secret store, an environment variable)."""
        return cls(seed, is_stored=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Identity:
        """Read a key file.

        Raises IdentityFileError, with the reason, for a file that is missing, damaged, not a plain file, or readable by
        others (POSIX): such a file is never used, and never replaced."""
        path = Path(path)
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        except FileNotFoundError:
            raise IdentityFileError(f"there is no key file {path}") from None
        except OSError as error:
            raise IdentityFileError(f"the key file {path} cannot be opened: {error.strerror}") from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise IdentityFileError(f"the key file {path} is not a plain file")
            if os.name == "posix" and stat.S_IMODE(status.st_mode) & 0o077:
                raise IdentityFileError(
                    f"the key file {path} is open to others (mode {stat.S_IMODE(status.st_mode):o}): "
                    f"make it private with chmod 600, or make a new key if it may have been copied"
                )
            content = os.read(descriptor, 256)
        finally:
            os.close(descriptor)
        try:
            seed = from_base32(content.removeprefix(_MAGIC).partition(b"\n")[0].decode("ascii"))
        except ValueError:
            seed = b""
        if len(seed) != SEED_BYTES or content != _format(seed):
            raise IdentityFileError(f"the key file {path} is damaged: {len(content)} bytes that are not a key")
        return cls(seed, is_stored=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a key file, mode 0600, all of it or nothing.

        Raises IdentityFileError if the file exists already (it is never replaced) or cannot be written."""
        path = Path(path)
        temporary = None
        try:
            descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_format(self._seed))
                file.flush()
                os.fsync(descriptor)
            os.link(temporary, path)  # unlike rename, it refuses to replace
            sync_directory(path.parent)
        except FileExistsError:
            raise IdentityFileError(f"the key file {path} exists already, and is not replaced") from None
        except OSError as error:
            raise IdentityFileError(f"the key file {path} cannot be written: {error.strerror}") from None
        finally:
            if temporary is not None:
                os.unlink(temporary)
        self._is_stored = True

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes. Whoever has them is this peer."""
        return self._seed

    @property
    def is_stored(self) -> bool:
        """Whether the key outlives the process, so that a restarted node can tell its old peers that it has forgotten them."""
        return self._is_stored

    def __repr__(self) -> str:
        return f"Identity(id={str(self.id)!r})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("an identity is not pickled: it is a secret; pass a key file's path, or its seed on purpose")

    def __eq__(self, other: object) -> bool:
        return self._seed == other._seed if isinstance(other, Identity) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)


def _format(seed: bytes) -> bytes:
    check = hashlib.blake2b(seed, digest_size=_CHECK_BYTES, person=b"interpeer key").digest()
    return _MAGIC + f"{to_base32(seed)}\n{to_base32(check)}\n".encode("ascii")


def sync_directory(path: Path) -> None:
    """Make a new name durable, where directories can be opened."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
