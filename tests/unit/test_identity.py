"""Identities, peer ids, key files."""

from __future__ import annotations

import os
import stat
import sys

import pytest

import interpeer
from interpeer import Identity, IdentityFileError, PeerId

SEED = bytes(range(32))


def test_an_id_is_52_characters_and_comes_back():
    peer_id = Identity.from_seed(SEED).id
    text = str(peer_id)
    assert len(text) == 52
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyz234567")
    assert PeerId(text) == peer_id == PeerId(bytes(peer_id)) == PeerId(peer_id)
    assert hash(PeerId(text)) == hash(peer_id)
    assert repr(peer_id) == f"PeerId('{text}')"


@pytest.mark.parametrize("wrong", ["", "a", "A" * 52, "1" * 52, "a" * 51, "a" * 53, "ü" * 52, "b" * 51 + "z"])
def test_what_is_no_id_is_refused(wrong):
    with pytest.raises(ValueError):
        PeerId(wrong)


@pytest.mark.parametrize("wrong", [None, 7, ["a"], bytearray(32)])
def test_an_id_of_another_type_is_refused(wrong):
    with pytest.raises(TypeError):
        PeerId(wrong)


@pytest.mark.row("H6")
@pytest.mark.parametrize(
    "key",
    [
        bytes(32),  # of small order
        b"\x01" + bytes(31),  # the neutral element
        bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),  # of order 2
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),  # of order 8
        b"\x02" + bytes(31),  # on no curve
        bytes(31),
    ],
)
def test_keys_that_cannot_be_dialled_are_no_ids(key):
    with pytest.raises(ValueError):
        PeerId(key)


def test_a_key_file_is_private_and_comes_back(tmp_path):
    path = tmp_path / "key"
    identity = Identity.generate()
    identity.save(path)
    assert Identity.load(path) == identity
    assert Identity.load(str(path)).is_stored
    assert os.listdir(tmp_path) == ["key"]
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_file_is_never_replaced(tmp_path):
    path = tmp_path / "key"
    first = Identity.generate()
    first.save(path)
    with pytest.raises(IdentityFileError, match="not replaced"):
        Identity.generate().save(path)
    assert Identity.load(path) == first
    assert os.listdir(tmp_path) == ["key"]


@pytest.mark.row("F1")
def test_damaged_key_files_are_refused_and_left_alone(tmp_path):
    path = tmp_path / "key"
    Identity.from_seed(SEED).save(path)
    good = path.read_bytes()
    damaged = [b"", good[:-2], good + b"x", good[:-1], b"x" + good, bytes(32), good.upper(), good * 10]
    damaged += [good[:i] + bytes([good[i] ^ bit]) + good[i + 1 :] for i in range(len(good)) for bit in (1, 2, 128)]
    damaged += [b"interpeer identity 1\n\n3nhajet4\n"]  # the right check, of no seed at all
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(IdentityFileError, match="damaged"):
            Identity.load(path)
        assert path.read_bytes() == content


@pytest.mark.row("F1")
@pytest.mark.skipif(os.name != "posix", reason="file modes and special files are POSIX's")
def test_key_files_that_others_can_read_and_odd_files_are_refused(tmp_path):
    path = tmp_path / "key"
    Identity.from_seed(SEED).save(path)
    for mode in (0o644, 0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(IdentityFileError, match="chmod 600"):
            Identity.load(path)
    path.chmod(0o600)
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name in ("link", "fifo", "."):
        with pytest.raises(IdentityFileError):
            Identity.load(tmp_path / name)
    with pytest.raises(IdentityFileError, match="there is no key file"):
        Identity.load(tmp_path / "missing")


@pytest.mark.row("F3")
def test_a_folder_that_is_missing_is_told(tmp_path):
    with pytest.raises(IdentityFileError, match="cannot be written"):
        Identity.generate().save(tmp_path / "no" / "folder" / "key")


@pytest.mark.row("F3")
@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's full disk")
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    real = os.fsync

    def full(descriptor):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IdentityFileError, match="No space left"):
        Identity.generate().save(tmp_path / "key")
    monkeypatch.setattr(os, "fsync", real)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("seed", [b"", bytes(31), bytes(33)])
def test_a_seed_of_another_size_is_refused(seed):
    with pytest.raises(ValueError, match="32 bytes"):
        Identity.from_seed(seed)


def test_identities_differ_and_seeds_decide():
    assert Identity.generate() != Identity.generate()
    assert Identity.from_seed(SEED) == Identity.from_seed(SEED)
    assert Identity.from_seed(SEED).seed == SEED
    assert not Identity.generate().is_stored
    assert Identity.from_seed(SEED).is_stored


def test_a_node_makes_its_key_file_once_and_locks_its_state(tmp_path):
    import asyncio

    async def main():
        ids = []
        for settings in ({"identity": tmp_path / "key"}, {"state_dir": tmp_path / "state"}):
            for _ in range(2):
                async with interpeer.Node(listen="127.0.0.1:0", **settings) as node:
                    ids.append(node.id)
        assert ids[0] == ids[1] != ids[2] == ids[3]
        async with interpeer.Node(listen="127.0.0.1:0", state_dir=tmp_path / "state"):
            with pytest.raises(interpeer.StateLockedError, match="another process"):
                async with interpeer.Node(listen="127.0.0.1:0", state_dir=tmp_path / "state"):
                    pass
        async with interpeer.Node(listen="127.0.0.1:0") as node:
            assert node.id not in ids

    asyncio.run(main())
    assert sorted(p.name for p in (tmp_path / "state").iterdir()) == ["identity", "lock"]
