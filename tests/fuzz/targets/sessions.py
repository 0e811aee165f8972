"""The whole engine: a connection on which everything is open, and a peer that has the keys and says what it likes.

Before the input counts, the handshake has been made, in either role, and on the connection are three paths, of which each side
has opened one; channels of every kind from both sides, with messages on their way, lost ones, and repairs that brought some of
them; streams and datagrams; a search for the path's MTU; and use, for which fresh keys become due. Then the input mixes
plaintexts of its own with frames that make sense, packets of all paths, places and epochs, and calls of the application.
"""

from __future__ import annotations

from collections.abc import Callable

from interpeer._core import path_handle
from tests.fuzz.source import Source
from tests.fuzz.talk import MAX_STEPS, PLACES, Talk
from tests.fuzz.targets.connections import STEPS as CONNECTION_STEPS
from tests.models import wire
from tests.spec import reference as ref
from tests.spec.peer import ELSEWHERE, MS, PEER_AT, Endpoint

ANY = bytes(16)
CAPABILITIES = ((3, 3, 0, 0, 0), (0, 2, 0, 4, 2), (2, 1, 40_000, 0, 0), (1, 7, 0, 1, 1), (4, 0, 0, 0, 0))


def feed(data: bytes) -> None:
    source = Source(data)
    talk = Talk(is_initiator=bool(source.byte(2)))
    fill(talk)
    for _ in range(MAX_STEPS):
        if not source:
            break
        STEPS[source.byte(len(STEPS))](talk, source)
    talk.end()


def fill(talk: Talk) -> None:
    """Open all that a connection can have."""
    first, second = (2, 1) if talk.is_initiator else (1, 2)
    talk.send(talk.new_id(0), talk.new_id(1), talk.new_id(2))
    talk.send(ref.path_challenge(b"question"), bytes(1000), path=first, at=ELSEWHERE)
    assert path_handle.open_path(talk.handle, PLACES[2], ANY) == (path_handle.OPENED, second)
    talk.pass_time(MS)
    for path, at in ((first, ELSEWHERE), (second, PLACES[2])):
        talk.send(ref.path_response(talk.asked.pop(path)), path=path, at=at)
        talk.send(talk.new_id(path))
    states = {figures["id"]: path_handle.STATES[figures["state"]] for figures in path_handle.paths(talk.handle)}
    assert states == dict.fromkeys((0, first, second), "active"), states
    for i, (flags, priority, deadline_us, messages, repairs) in enumerate(CAPABILITIES[:3]):
        channel = talk.handle.open_channel(CAPABILITIES[i])
        channel.send(bytes(300))
        talk.channels.append(channel)
        theirs = 2 * i + (not talk.is_initiator)
        talk.send(ref.channel_frame(theirs, 0, flags, priority, deadline_us, (messages, repairs)))
        talk.message(theirs, b"first", ordered=i < 2)
        talk.message(theirs, b"lost", is_lost=True, ordered=i < 2)
        talk.message(theirs, b"third", ordered=i < 2)
    talk.repair(2 + (not talk.is_initiator))
    while (channel := talk.handle.accept_channel()) is not None:
        talk.channels.append(channel)
    assert [len(channel.recv_many(9, False)) for channel in talk.channels[3:]] == [1, 3, 2]
    stream = talk.handle.open_stream()
    stream.write(bytes(5000))
    talk.streams.append(stream)
    talk.send(ref.stream(int(not talk.is_initiator), b"behind a gap", 100), ref.datagram(b"a datagram"))
    talk.handle.send_datagrams([b"another one"])
    talk.pass_time(0)


# --- the peer ---


def where(talk: Talk, source: Source) -> tuple[int, Endpoint]:
    """Choose the path and the place of a packet: mostly where it belongs."""
    choice, paths = source.byte(), sorted(talk.ids)
    path = paths[(choice & 15) % len(paths)]
    home = {0: PEER_AT, 1: PLACES[2], 2: ELSEWHERE} if talk.is_initiator else {0: PEER_AT, 1: ELSEWHERE, 2: PLACES[2]}
    return path, PLACES[choice >> 4 & 3] if choice >> 6 == 3 and choice >> 4 & 3 < 3 else home.get(path, PEER_AT)


def say_plaintext(talk: Talk, source: Source) -> None:
    """Say anything, on any path."""
    path, at = where(talk, source)
    talk.send(source.piece(), path=path, at=at)


def say_about_channel(talk: Talk, source: Source) -> None:
    channel, value, small, other = source.byte(16), source.number(), source.byte(), source.byte()
    frames = (
        ("channel", channel, small & 15, other & 7, other >> 5, value >> 32, small >> 4, other >> 3 & 3),
        ("max_channels", value), ("channel_max_data", channel, value), ("channel_reset", channel, small, value),
        ("channel_stop", channel, value), ("dropped", channel, 0, 0, 0, small, 1 + other),
        ("dropped", channel, small * 4, other * 2, 8 + value % 2000, small >> 4, other & 1),
    )  # fmt: skip
    path, at = where(talk, source)
    talk.send(wire.write_frame(frames[source.byte(len(frames))]), path=path, at=at)


def say_message(talk: Talk, source: Source) -> None:
    """Say the next message of a channel, or lose it."""
    channel, kind = source.byte(12), source.byte()
    talk.message(channel, bytes(source.number(1200)), is_lost=bool(kind & 1), ordered=bool(kind & 2))


def say_any_message(talk: Talk, source: Source) -> None:
    """Say a message, or a part of one, that is somewhere on a channel and has any number."""
    channel, kind, offset, number = source.byte(12), source.byte(), source.number(), source.byte()
    whole = ref.message(number, bytes(source.number(1300)), ordered=bool(kind & 1))
    if kind & 2:  # a part, by its place in the whole
        within = 8 + source.byte()
        talk.send(ref.messages(channel, whole[within:], offset + within, within, fin=bool(kind & 4)))
    else:
        talk.send(ref.messages(channel, whole, offset, fin=bool(kind & 4)))


def say_repair(talk: Talk, source: Source) -> None:
    """Say a repair that is right, or one that is not."""
    channel, kind = source.byte(12), source.byte()
    if kind & 3:
        talk.repair(channel)
    else:
        body = wire.varint(source.number()) + bytes([kind >> 2]) + source.piece()
        talk.send(wire.write_frame(("repair", channel, body)))


def acknowledge_path(talk: Talk, source: Source) -> None:
    """Acknowledge what was said on a path, or some of it, on any path."""
    of, kind = source.byte(len(talk.numbers)), source.byte()
    path, at = where(talk, source)
    if numbers := talk.numbers[of]:
        low = min(numbers) if kind & 1 else max(numbers) - min(max(numbers), kind >> 1)
        talk.send(wire.write_frame(("ack", of, 0, [(low, max(numbers))], None)), path=path, at=at)


def acknowledge_everything(talk: Talk, source: Source) -> None:
    talk.acknowledge_all()


def answer_challenge(talk: Talk, source: Source) -> None:
    path, at = where(talk, source)
    if path in talk.asked:
        talk.send(ref.path_response(talk.asked.pop(path)), path=path, at=at)


def tell_id(talk: Talk, source: Source) -> None:
    talk.send(talk.new_id(source.byte(len(talk.sequences))))


def change_keys(talk: Talk, source: Source) -> None:
    """Ask for fresh keys, turn to them, or go to the next epoch by use alone, when it is time to or not."""
    machine, now_ns = talk.machine, talk.node.now_ns
    match source.byte(3):
        case 0 if talk.is_initiator and machine.state["state"] == "idle":
            machine.ask(talk.node_key, bytes([9]) * 32, now_ns)
            talk.send(machine.write())
        case 1 if machine.state["is_turning"]:
            machine.turn(now_ns)
            talk.send(ref.ping())
        case 2:
            machine.update()
            talk.send(ref.ping())


# --- the application ---


def open_channel(talk: Talk, source: Source) -> None:
    if (channel := talk.handle.open_channel(CAPABILITIES[source.byte(len(CAPABILITIES))])) is not None:
        talk.channels.append(channel)


def accept_channel(talk: Talk, source: Source) -> None:
    if (channel := talk.handle.accept_channel()) is not None:
        talk.channels.append(channel)


def send_messages(talk: Talk, source: Source) -> None:
    if channel := talk.channel(source):
        messages = [bytes(source.number(3000)) for _ in range(1 + source.byte(4))]
        sent, _ = channel.send_many(messages, 0)
        assert 0 <= sent <= len(messages)
        talk.pass_time(0)


def receive_messages(talk: Talk, source: Source) -> None:
    if channel := talk.channel(source):
        most = source.byte()
        found = channel.recv_many(most, True)
        assert len({number for number, _ in found}) == len(found) <= most
        talk.pass_time(0)


def end_channel(talk: Talk, source: Source) -> None:
    """Finish, reset or stop a channel, change it, tell it that its reset is known, or let go of it."""
    if channel := talk.channel(source):
        match source.byte(6):
            case 0:
                channel.finish()
            case 1:
                channel.reset(source.number())
            case 2:
                channel.stop(source.number())
            case 3:
                channel.told()
            case 4:
                talk.channels.remove(channel)
            case 5:
                channel.set(CAPABILITIES[source.byte(len(CAPABILITIES))])
        del channel
        talk.pass_time(0)


def look_at_channel(talk: Talk, source: Source) -> None:
    """Read what can be told of a channel, and ask to be told of more."""
    if channel := talk.channel(source):
        ours, theirs, ranges = channel.dropped()
        assert ours >= 0 and all(start < end for start, end in ranges) and (theirs or not ranges)
        assert channel.stats()["peer_dropped"] == theirs
        channel.reading()
        channel.want_readable()
        channel.want_writable()
        channel.want_acked()
    talk.handle.channel_stats()
    talk.node.events()


def use_paths(talk: Talk, source: Source) -> None:
    """Open a path or give one up, put one aside, or choose between them in another way."""
    path = source.byte(6)
    match source.byte(5):
        case 0:
            path_handle.open_path(talk.handle, PLACES[path % len(PLACES)], ANY)
        case 1:
            path_handle.abandon_path(talk.handle, path)
        case 2:
            path_handle.set_standby(talk.handle, path, bool(source.byte(2)))
        case 3:
            path_handle.set_scheduler(talk.handle, path % len(path_handle.SCHEDULERS))
        case 4:
            path_handle.take_path_events(talk.handle)
            assert len(path_handle.paths(talk.handle)) <= 8
    talk.pass_time(0)


STEPS: tuple[Callable[[Talk, Source], None], ...] = (
    say_plaintext, say_plaintext, say_plaintext, say_about_channel, say_about_channel, say_message, say_message, say_any_message,
    say_repair, acknowledge_path, acknowledge_everything, answer_challenge, tell_id, change_keys, open_channel, accept_channel,
    send_messages, send_messages, receive_messages, end_channel, look_at_channel, use_paths, *CONNECTION_STEPS,
)  # fmt: skip
"""What a byte of the input does."""
