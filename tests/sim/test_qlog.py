"""What is written when a node is asked to: qlog files that say what has happened, and the key log."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import threading
from collections import Counter
from pathlib import Path

import pytest

import interpeer
from interpeer import _qlog, _tracer
from interpeer.testing import Link

LINK = Link(delay_s=0.02, rate_bit_per_s=20e6, queue_packets=60)
FRAMES = {name for name, _ in _qlog.FRAMES.values()}


def read(path: Path):
    """Read a file as qvis does: records behind separators, the first a header; return it and the events."""
    header, *events = (json.loads(record) for record in path.read_text().split("\x1e")[1:])
    return header, events


def both(folder: Path):
    """Return what the caller and the callee of the only connection have written."""
    (caller,) = folder.glob("*_initiator.sqlog")
    (callee,) = folder.glob("*_responder.sqlog")
    assert caller.name.split("_")[0] == callee.name.split("_")[0]
    return read(caller), read(callee)


def of(events, name):
    return [event["data"] for event in events if event["name"] == name]


def packets(events, what):
    """Return what is said of packets that were sent, received or lost, by their numbers."""
    category = "recovery" if what == "lost" else "transport"
    return {data["header"]["packet_number"]: data for data in of(events, f"{category}:packet_{what}")}


def is_probe(data):
    return data.get("is_mtu_probe_packet", False)


def transfer(sim, folder, link=LINK, size=300_000, **settings):
    """Let two nodes talk; return the caller's last figures and its node's counters."""

    async def main():
        async with sim.pair(link, qlog_dir=folder, **settings) as pair:
            here, there = await pair.connect()
            await sim.transfer(pair, size, ends=(here, there))
            receiving = asyncio.create_task(there.recv_datagram())
            while not receiving.done():  # the link may lose it
                here.send_datagram(b"one more")
                await asyncio.sleep(0.1)
            stats = here.stats()
            await here.close(5, "enough")
            await there.wait_closed()
        return stats, pair.a.counters()

    return sim.run(main())


def test_each_end_says_what_it_sent_and_the_other_what_came(sim, tmp_path):
    stats, _ = transfer(sim, tmp_path)
    (_, caller), (_, callee) = both(tmp_path)
    for sender, receiver in ((caller, callee), (callee, caller)):
        sent, received = packets(sender, "sent"), packets(receiver, "received")
        assert received and set(received) <= set(sent)
        for number, data in received.items():
            assert (data["frames"], data["raw"]) == (sent[number]["frames"], sent[number]["raw"])
    assert len(packets(caller, "sent")) == stats.packets_sent + 1  # and the one that closes
    stream = sorted((f["offset"], f["length"]) for data in packets(callee, "received").values() for f in data["frames"]
                    if f["frame_type"] == "stream")  # fmt: skip
    end = 0
    for offset, length in stream:
        assert offset <= end
        end = max(end, offset + length)
    assert end == 300_000


def test_the_file_is_what_qvis_and_others_expect(sim, tmp_path):
    transfer(sim, tmp_path, LINK.replace(loss=0.02))
    for header, events in both(tmp_path):
        assert header["qlog_version"] == "0.3" and header["qlog_format"] == "JSON-SEQ"
        common = header["trace"]["common_fields"]
        assert common["time_format"] == "relative" and isinstance(common["reference_time"], float)
        assert header["trace"]["vantage_point"]["type"] in ("client", "server")
        times = [event["time"] for event in events]
        assert times == sorted(times) and times[0] == 0
        for event in events:
            assert set(event) == {"time", "name", "data"} and event["name"].count(":") == 1
            assert "packet_size" not in event["data"].get("header", {})
            for frame in event["data"].get("frames", ()):
                assert frame["frame_type"] in FRAMES
        assert {data["header"]["packet_type"] for data in packets(events, "sent").values()} == {"1RTT"}
    assert both(tmp_path)[0][0]["trace"]["common_fields"]["ODCID"] == both(tmp_path)[1][0]["trace"]["common_fields"]["group_id"]


def test_names_and_types_are_those_that_aioquic_writes(sim, tmp_path):
    logger = pytest.importorskip("aioquic.quic.logger", reason="only ./run bench installs aioquic, to compare with")
    from aioquic.quic.packet import QuicFrameType, QuicStreamFrame

    theirs = logger.QuicLoggerTrace(is_client=True, odcid=b"12345678")
    known = {
        frame["frame_type"]: frame
        for frame in (
            theirs.encode_ack_frame([range(2)], 0.1),
            theirs.encode_stream_frame(QuicStreamFrame(data=b"x", offset=0, fin=True), 4),
            theirs.encode_ping_frame(),
            theirs.encode_datagram_frame(5),
            theirs.encode_connection_close_frame(0, None, "enough"),
            theirs.encode_connection_limit_frame(QuicFrameType.MAX_DATA, 5),
            theirs.encode_connection_limit_frame(QuicFrameType.MAX_STREAMS_BIDI, 5),
            theirs.encode_max_stream_data_frame(5, 4),
            theirs.encode_reset_stream_frame(1, 2, 4),
            theirs.encode_stop_sending_frame(1, 4),
        )
    }
    transfer(sim, tmp_path, size=3_000_000)
    ours = [frame for _, events in both(tmp_path) for data in packets(events, "sent").values() for frame in data["frames"]]
    compared = set()
    for frame in ours:
        like = known.get(frame["frame_type"], {})  # connection ids are not told: they are what a peer is followed by
        compared.add(frame["frame_type"])
        for name, value in like.items():
            assert name == "reason" or type(frame[name]) is type(value), (frame, like)
    assert compared >= {"ack", "stream", "ping", "datagram", "connection_close", "max_data", "max_stream_data"}


def test_losses_and_windows_are_those_that_stats_counts(sim, tmp_path):
    stats, _ = transfer(sim, tmp_path, LINK.replace(loss=0.03))
    (_, events), _ = both(tmp_path)
    sent, lost = packets(events, "sent"), packets(events, "lost")
    assert any(is_probe(data) for data in sent.values())  # of the MTU: that one is lost is not counted
    assert all(is_probe(data) == is_probe(sent[number]) for number, data in lost.items())
    assert sum(not is_probe(data) for data in lost.values()) == stats.packets_lost > 0
    assert {data["trigger"] for data in lost.values()} <= {"time_threshold", "reordering_threshold"}
    assert all(data["raw"] == sent[number]["raw"] for number, data in lost.items())
    figures = {}
    for data in of(events, "recovery:metrics_updated"):
        figures |= data
    assert figures["congestion_window"] == stats.window_bytes
    assert figures["min_rtt"] == pytest.approx(stats.min_rtt_s * 1000)
    assert figures["smoothed_rtt"] == pytest.approx(stats.rtt_s * 1000)
    phases = [data["new"] for data in of(events, "recovery:congestion_state_updated")]
    assert phases[0] == "slow_start" and "recovery" in phases


def test_the_end_is_told_by_both(sim, tmp_path):
    transfer(sim, tmp_path)
    (_, caller), (_, callee) = both(tmp_path)
    assert of(caller, "connectivity:connection_closed") == [{"owner": "local", "application_code": 5, "trigger": "application"}]
    assert of(callee, "connectivity:connection_closed") == [{"owner": "remote", "application_code": 5, "trigger": "application"}]
    assert [data["new"] for data in of(callee, "connectivity:connection_state_updated")][:2] == ["handshake_complete", "draining"]


def test_changes_of_key_are_told_with_their_direction(sim, tmp_path):
    transfer(sim, tmp_path, key_update_packets=32)
    (_, caller), (_, callee) = both(tmp_path)
    ours = [data for data in of(caller, "security:key_updated") if data["key_type"] == "client_1rtt_secret"]
    assert [data["generation"] for data in ours] == list(range(1, len(ours) + 1)) and len(ours) > 3
    assert {data["trigger"] for data in ours} == {"local_update"}
    theirs = [data for data in of(callee, "security:key_updated") if data["key_type"] == "client_1rtt_secret"]
    assert {data["trigger"] for data in theirs} == {"remote_update"}
    epochs = [data["header"]["interpeer_epoch"] for data in packets(callee, "received").values()]
    assert max(epochs) == theirs[-1]["generation"]


def test_corrupted_and_repeated_packets_are_told_as_dropped(sim, tmp_path):
    transfer(sim, tmp_path, LINK.replace(duplicate=0.1, corrupt=0.05))
    _, (_, callee) = both(tmp_path)
    triggers = Counter(data["trigger"] for data in of(callee, "transport:packet_dropped"))
    assert triggers["duplicate"] and triggers["payload_decrypt_error"]


def test_nobody_who_is_refused_makes_a_file(sim, tmp_path):
    async def main():
        async with sim.pair(LINK, b={"allow": ()}, qlog_dir=tmp_path, key_log=tmp_path / "keys") as pair:
            with pytest.raises(interpeer.Refused):
                await pair.a.connect(pair.b.address)

    sim.run(main())
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]
    assert "SECRET" not in (tmp_path / "keys").read_text()


def test_nothing_is_written_unless_asked_for(sim, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = threading.active_count()

    async def main():
        async with sim.pair(LINK) as pair:
            await sim.transfer(pair, 1000)
            assert threading.active_count() == threads
            assert "trace_left_out" not in pair.a.counters()

    sim.run(main())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("variable", ["INTERPEER_QLOG", "QLOGDIR"])
def test_the_environment_may_ask(sim, tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, str(tmp_path / "new" / "folder"))
    monkeypatch.setenv("INTERPEER_KEYLOG", str(tmp_path / "keys"))

    async def main():
        async with sim.pair(LINK) as pair:
            await sim.transfer(pair, 1000)

    sim.run(main())
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 2
    lines = [line.split() for line in (tmp_path / "keys").read_text().splitlines() if not line.startswith("#")]
    assert {line[0] for line in lines} == {"INTERPEER_SECRET"} and len(lines) == 4
    assert len({tuple(line) for line in lines}) == 2  # a line for each direction, told by both ends alike
    assert {(line[1], line[2]) for line in lines} == {(line[2], line[1]) for line in lines}
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o600


def test_a_key_log_that_cannot_be_is_told_when_the_node_opens(sim, tmp_path):
    async def main():
        with pytest.raises(IsADirectoryError):
            async with interpeer.Node(config=interpeer.Config(key_log=tmp_path)):
                pass

    asyncio.run(main())


def test_a_file_has_a_greatest_size(sim, tmp_path, caplog):
    _, counters = transfer(sim, tmp_path, qlog_max_bytes=20_000)
    for path in tmp_path.iterdir():
        assert path.stat().st_size <= 21_000
        assert read(path)[1][-1]["name"] == "interpeer:log_is_full"
    assert counters["trace_failures"] == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2  # once by each node


def test_a_folder_that_cannot_be_harms_nothing(sim, tmp_path, caplog):
    taken = tmp_path / "file"
    taken.write_text("")
    _, counters = transfer(sim, taken)
    assert counters["trace_failures"] == 1
    assert "no qlog file" in caplog.text


def test_a_full_disk_harms_nothing_and_is_told_once(sim, tmp_path, caplog, monkeypatch):
    def write(descriptor, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_qlog.os, "write", write)
    _, counters = transfer(sim, tmp_path)
    assert counters["trace_failures"] == 1
    assert caplog.text.count("No space left") == 2  # once by each node


def test_what_finds_no_room_is_counted_and_no_packet_is_half_told(sim, tmp_path, monkeypatch):
    """Nobody empties the trace until the end: what is left out is told, and all that is there is whole."""
    collect = _tracer.Tracer.collect
    monkeypatch.setattr(_tracer.Tracer, "collect", lambda tracer, only_if_ripe=False: None)

    async def main():
        async with sim.pair(Link(delay_s=0.001), qlog_dir=tmp_path) as pair:
            here, there = await pair.connect()
            await sim.transfer(pair, 50_000_000, ends=(here, there))
            monkeypatch.setattr(_tracer.Tracer, "collect", collect)
            next(iter(pair.a._tracers.values())).collect()
            here.send_datagram(b"one more")
            await there.recv_datagram()
        return pair.a.counters()

    counters = sim.run(main())
    assert counters["trace_left_out"] > 0
    (_, events), _ = both(tmp_path)
    (told,) = of(events, "interpeer:left_out")
    assert told["events"] == counters["trace_left_out"]
    assert all(data["frames"] for data in packets(events, "sent").values())


def test_more_connections_than_files_is_told(sim, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(_qlog, "MAX_OPEN_FILES", 2)

    async def main():
        async with sim.pair(LINK, qlog_dir=tmp_path) as pair:
            for _ in range(3):
                await sim.transfer(pair, 1000)
            assert len(pair.a.connections) == 3

    sim.run(main())
    assert len(list(tmp_path.glob("*_initiator.sqlog"))) == 2
    assert "others get none" in caplog.text


def test_a_packet_of_very_many_frames_is_cut_and_says_so(sim, tmp_path):
    async def main():
        async with sim.pair(LINK, qlog_dir=tmp_path) as pair:
            here, there = await pair.connect()
            here.send_datagrams([b"x"] * 350)
            received = 0
            while received < 350:
                received += len(await there.recv_datagrams())

    sim.run(main())
    (_, events), _ = both(tmp_path)
    (cut,) = [data for data in packets(events, "sent").values() if "interpeer_more_frames" in data]
    assert len(cut["frames"]) == 256 and cut["interpeer_more_frames"] is True


def test_what_happens_to_paths_is_told_with_its_reason(sim, tmp_path):
    async def main():
        async with sim.pair(LINK, qlog_dir=tmp_path) as pair:
            here, there = await pair.connect()
            await sim.transfer(pair, 10_000, ends=(here, there))
            pair.alice.move("11.0.3.1")
            await sim.transfer(pair, 100_000, ends=(here, there))

    sim.run(main())
    _, (_, callee) = both(tmp_path)
    told = [(data["new"], data["remote"].split()[0]) for data in of(callee, "interpeer:path_updated")]
    assert told[:2] == [("moved", "11.0.3.1"), ("proven", "11.0.3.1")]
    frames = {frame["frame_type"] for data in packets(callee, "sent").values() for frame in data["frames"]}
    assert frames >= {"path_challenge", "new_connection_id"}
