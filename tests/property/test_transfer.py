"""The parsers of files/1 against whatever a peer may send: what they take round-trips, all else is a ProtocolError (F7)."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from interpeer._transfer import names
from interpeer._transfer import protocol as p
from interpeer.errors import ProtocolError

PARTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=40).filter(
    lambda part: part not in (".", "..") and len(part.encode()) <= names.MAX_PART_BYTES
)
NAMES = st.lists(PARTS, min_size=1, max_size=5).map("/".join).filter(lambda name: not name.lower().startswith(".interpeer-"))
TIMES = st.integers(-(1 << 63), (1 << 63) - 1)
FILES = st.builds(p.Entry, st.sampled_from([p.FILE, p.EXECUTABLE]), st.integers(0, p.MAX_SIZE), TIMES, NAMES)
FOLDERS = st.builds(p.Entry, st.just(p.FOLDER), st.just(0), TIMES, NAMES)


def parse_listing(data):
    count, size = p.parse_listing_head(data[: p.LISTING_HEAD.size])
    assert size <= p.MAX_LISTING_BYTES
    return p.parse_entries(data[p.LISTING_HEAD.size :][:size], count)


def is_below_no_file(entries):
    files = {entry.name for entry in entries if entry.kind != p.FOLDER}
    return not any(entry.name.startswith(f"{name}/") for entry in entries for name in files)


@given(st.lists(st.one_of(FILES, FOLDERS), max_size=8, unique_by=lambda entry: entry.name).filter(is_below_no_file))
def test_listing_round_trips(entries):
    assert parse_listing(p.write_listing(entries)) == entries


@given(st.lists(FILES, min_size=1, max_size=4), st.data())
def test_listing_that_is_cut_or_changed_is_refused_or_is_safe(entries, data):
    whole = bytearray(p.write_listing(entries))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(p.LISTING_HEAD.size, len(whole)))])
    try:
        parsed = parse_listing(cut)
    except ProtocolError:
        return
    assert all(is_within(entry.name) for entry in parsed)
    assert len({entry.name for entry in parsed}) == len(parsed)


@given(st.binary(max_size=200), st.integers(0, 5))
def test_noise_is_no_listing_or_a_safe_one(body, count):
    try:
        parsed = p.parse_entries(body, count)
    except ProtocolError:
        return
    assert all(is_within(entry.name) for entry in parsed)


def is_within(name):
    """Whether joining a name to a folder stays in it."""
    return os.path.normpath(os.path.join("/folder", name)).startswith("/folder/") and "\0" not in name


@pytest.mark.row("F7")
@given(st.binary(max_size=300))
@example(b"..")
@example(b"a/../b")
@example(b"/absolute")
@example(b"a//b")
@example(b"a/")
@example(b"nul\0")
@example(b"\xff\xfe")
@example(b"x" * 256)
@example(b"/".join([b"x" * 250] * 17))
@example(b"/".join([b"x"] * 129))
def test_name_that_is_taken_stays_within_the_folder(raw):
    name = names.decode(raw)
    assert names.encode(name) == raw
    try:
        names.check(name)
    except ValueError:
        return
    assert is_within(name) and all(len(part) <= names.MAX_PART_BYTES for part in raw.split(b"/"))


@pytest.mark.row("F7")
@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/../../x", "/x", "a//b", "a/", "a\0", "x" * 256, "/".join(["x"] * 129), "ü" * 128]
)
def test_names_that_lead_elsewhere_or_cannot_be_are_refused_everywhere(name):
    for on_windows in (False, True):
        with pytest.raises(ValueError, match="it (has|is)"):
            names.check(name, on_windows=on_windows)


@pytest.mark.row("F7")
@pytest.mark.parametrize(
    "name", ["CON", "con.txt", "a/NUL", "com1", "lpt¹.x", "aux .c", "a:b", "C:\\x", "a?", "end.", "end ", "a\x1b"]
)
def test_names_that_windows_takes_for_something_else_are_refused_there(name):
    names.check(name, on_windows=False)
    with pytest.raises(ValueError, match="Windows"):
        names.check(name, on_windows=True)


@pytest.mark.row("F7")
def test_folder_of_partial_files_cannot_be_sent_into():
    for name in (names.PARTIAL_FOLDER, names.PARTIAL_FOLDER.upper(), f"{names.PARTIAL_FOLDER}/x"):
        with pytest.raises(ValueError, match="not complete"):
            names.check(name)


@pytest.mark.parametrize(
    "entries",
    [
        [p.Entry(p.FILE, 1, 0, "a"), p.Entry(p.FILE, 2, 0, "a")],
        [p.Entry(p.FILE, 1, 0, "a"), p.Entry(p.FOLDER, 0, 0, "a")],
        [p.Entry(p.FILE, 1, 0, "a"), p.Entry(p.FILE, 2, 0, "a/b")],
        [p.Entry(p.FILE, 2, 0, "a/b/c"), p.Entry(p.EXECUTABLE, 1, 0, "a")],
        [p.Entry(p.FOLDER, 1, 0, "a")],
        [p.Entry(4, 1, 0, "a")],
        [p.Entry(p.FILE, p.MAX_SIZE + 1, 0, "a")],
    ],
)
def test_listing_that_contradicts_itself_is_refused(entries):
    with pytest.raises(ProtocolError):
        parse_listing(p.write_listing(entries))


ENTRIES = [p.Entry(p.FOLDER, 0, 0, "d"), p.Entry(p.FILE, 5 * p.CHUNK_BYTES - 1, 0, "d/a"), p.Entry(p.FILE, 0, 0, "d/b")]


@given(st.integers(1, 2), st.booleans(), st.integers(0, 5))
def test_request_round_trips(index, is_question, digests):
    digests = min(digests, ENTRIES[index].chunks)
    head = p.write_request(index, is_question=is_question, digests=digests)
    assert len(head) == 1 + p.rest_of_request(head[0])
    assert p.parse_request(head, ENTRIES, index - 1) == p.Request(index, is_question, digests)


@given(st.integers(0, (1 << 32) - 1))
def test_done_round_trips(failures):
    assert p.parse_request(p.write_done(failures), ENTRIES, 2) == p.Done(failures)


@given(st.binary(min_size=1, max_size=12), st.integers(-1, 2))
def test_noise_is_no_request_or_one_that_can_be_answered(head, previous):
    try:
        asked = p.parse_request(head, ENTRIES, previous)
    except ProtocolError:
        return
    if isinstance(asked, p.Request):
        assert previous < asked.index < len(ENTRIES)
        assert asked.digests <= ENTRIES[asked.index].chunks and ENTRIES[asked.index].kind != p.FOLDER


@given(st.binary(min_size=p.DIGEST_BYTES, max_size=p.DIGEST_BYTES), st.integers(0, (1 << 32) - 1), st.text(max_size=2000))
def test_answers_round_trip(digest, number, text):
    assert p.parse_answer(p.write_chunk_header(digest)) == p.Chunk(digest)
    assert p.parse_answer(p.write_found(number, number)) == p.Found(number, number)
    failed = p.write_failed(text)
    answer = p.parse_answer(failed[: p.HEADER_BYTES])
    assert answer == p.Failed(len(failed) - p.HEADER_BYTES) and answer.text_bytes <= p.MAX_TEXT_BYTES


@given(st.binary(max_size=2 * p.HEADER_BYTES))
def test_noise_is_no_answer_or_a_bounded_one(header):
    try:
        answer = p.parse_answer(header)
    except ProtocolError:
        return
    assert len(header) == p.HEADER_BYTES
    assert not isinstance(answer, p.Failed) or answer.text_bytes <= p.MAX_TEXT_BYTES


@given(st.integers(0, p.MAX_SIZE))
def test_chunks_cover_a_file_exactly(size):
    chunks = p.chunks_in(size)
    assert p.bytes_in(chunks, size) == size
    assert chunks == 0 or p.bytes_in(chunks - 1, size) < size
