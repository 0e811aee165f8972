"""`demo`, `bench` and `doctor`: what they print is complete, true to its form, and said when it cannot be measured."""

from __future__ import annotations

import json
import re

import pytest

from interpeer import _sodium
from interpeer._bench import demonstration, table
from interpeer._bench.process import EndFailed
from interpeer._cli import main, nat_demo
from interpeer._cli.output import Output
from interpeer._version import __version__

pytestmark = pytest.mark.usefixtures("homeless")
BENCH_FIELDS = """cipher limit_gbit stream_gbit stream_of_limit tls_gbit stream_of_tls cpu_s_per_gb limit_cpu_s_per_gb
    messages_per_s messages_single_per_s ping_p50_us raw_ping_p50_us handshakes_per_s handshakes_in_a_row_per_s
    bytes_per_idle_connection"""


@pytest.fixture
def _short(monkeypatch):
    monkeypatch.setattr("interpeer._cli.commands.demo.MOVE_S", 0.1)
    monkeypatch.setattr("interpeer._cli.commands.demo.TLS_S", 0.1)
    monkeypatch.setattr(table, "QUICK", (1, 0.05))
    monkeypatch.setattr(table, "PINGS", 100)


@pytest.mark.usefixtures("_short")
def test_demonstration_moves_data_and_tells_it_in_one_object(capsys):
    assert main(["demo", "--json"]) == 0
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert printed.err == "" and told["ok"] is True
    assert told["bytes"] >= demonstration.BLOCK_BYTES and told["bytes"] % demonstration.BLOCK_BYTES == 0
    assert told["gbit_per_s"] == pytest.approx(8e-9 * told["bytes"] / told["seconds"])
    assert told["times_tls"] == pytest.approx(told["gbit_per_s"] / told["tls_gbit_per_s"])
    assert told["loop"] in ("uvloop", "asyncio") and told["cipher"] and told["path"].startswith("lan 127.0.0.1:")


def test_demonstration_without_tls_says_why_there_is_no_comparison(capsys, monkeypatch):
    def broken(*_):
        raise EndFailed("no certificate could be made")

    monkeypatch.setattr("interpeer._cli.commands.demo.tls_bulk", broken)
    monkeypatch.setattr("interpeer._cli.commands.demo.MOVE_S", 0.05)
    assert main(["demo"]) == 0
    printed = capsys.readouterr().out
    assert "every byte compared" in printed and "not compared with TLS over TCP: no certificate could be made" in printed
    assert printed.index("next:") > printed.index("every byte compared")


def test_demonstration_that_fails_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr("interpeer._cli.commands.demo.tls_bulk", lambda *_: {"tls_gbit": 1.0})
    monkeypatch.setattr(demonstration, "__name__", "interpeer._bench.nonsense")
    assert main(["demo", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False and told["error"].startswith("the demonstration failed: ")


@pytest.mark.parametrize(
    ("direct_s", "line"),
    [
        (0.35, "direct after 350 ms: over TLS\n  no better path: 192.0.2.1:1: no answer"),
        (None, "relayed: over TLS\n  not direct: 192.0.2.1:1: no answer"),
    ],
)
def test_demonstration_behind_nats_says_why_there_is_no_better_path(capsys, direct_s, line):
    times = {"connected_s": 0.1, "first_byte_s": 0.2, "direct_s": direct_s}
    nat_demo._tell({"ok": True, "detail": "over TLS", "reasons": ["192.0.2.1:1: no answer"], **times}, Output())
    assert capsys.readouterr().out == f"connected in 100 ms, first byte after 200 ms\n{line}\n"


@pytest.mark.system  # for its length: it starts two processes for each of eleven rows
@pytest.mark.usefixtures("_short")
def test_bench_measures_every_figure(capsys):
    assert main(["bench", "--quick", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True and told["left_out"] == {}
    missing = [name for name in BENCH_FIELDS.split() if not told[name]]
    assert missing == ([] if table.RESIDENT.exists() else ["bytes_per_idle_connection"])
    assert told["stream_of_limit"] == pytest.approx(told["stream_gbit"] / told["limit_gbit"])
    assert told["cipher"] == table.preferred_cipher()


def rows(*, failing=()):
    """Return rows that measure nothing, in the order of their runs."""

    def row(name, **facts):
        def run():
            if name in failing:
                raise EndFailed(f"the server of {name} died")
            return facts

        return table.Row(name, run)

    return [
        row("the limit", limit_gbit=10.0, limit_cpu_s_per_gb=0.5),
        row("the stream", gbit=6.0, cpu_s_per_gb=0.75, cipher="aegis-256"),
        row("idle", kb_per_connection=[7.0, 8.0]),
    ]


def test_bench_is_printed_as_a_table_with_ratios(capsys, monkeypatch):
    monkeypatch.setattr(table, "make_rows", lambda seconds: rows())
    assert main(["bench"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"one encrypted stream, Gbit/s +6\.00\n", printed)
    assert "the stream reaches 60% of it" in printed and "the stream takes 1.5 times as much" in printed
    assert re.search(r"bytes per idle connection and end +8,000\n", printed)


def test_row_that_fails_is_left_out_and_told(capsys, monkeypatch):
    monkeypatch.setattr(table, "make_rows", lambda seconds: rows(failing=["the limit"]))
    assert main(["bench", "--quick", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False and told["stream_gbit"] == 6.0 and told["limit_gbit"] is told["stream_of_limit"] is None
    assert told["left_out"] == {"the limit": "the server of the limit died"}
    assert told["reasons"] == ["the limit: the server of the limit died"]


def test_runs_take_turns_and_the_median_counts(monkeypatch):
    order, values = [], iter([1.0, 9.0, 5.0])
    first = table.Row("first", lambda: order.append("first") or {"gbit": next(values)})
    second = table.Row("second", lambda: order.append("second") or {})
    once = table.Row("once", lambda: order.append("once") or {}, only_once=True)
    monkeypatch.setattr(table, "make_rows", lambda seconds: [first, second, once])
    measured = table.measure(is_quick=True, on_run=lambda *_: None)
    assert order == ["first", "second", "once", "first", "second", "first", "second"]
    assert measured.figures["stream_gbit"] == 5.0 and measured.spreads["stream_gbit"] == (1.0, 9.0)


def test_doctor_tells_what_works_and_changes_nothing(capsys, tmp_path):
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True and told["version"] == __version__
    here = ("python", "loop", "libsodium", "pysodium", "ipv4", "ipv6", "buffers", "clock", "config", "state", "key", "lan")
    for name in (*here, "nat", "udp", "port_mapping", "mtu"):
        assert told[name]["status"] in ("ok", "warning") and told[name]["text"], name
        assert (told[name]["status"] == "ok") or told[name]["advice"], name
    assert {"mapping", "filtering", "hairpin", "lifetime_s", "reflexive"} <= told["nat"].keys()
    assert told["nat"]["mapping"] == "unknown" and told["udp"]["works"] is None and told["ipv6"]["works_outside"] is None
    assert "--bootstrap" in told["nat"]["advice"] and "--bootstrap" in told["udp"]["advice"]
    assert told["libsodium"]["path"] == _sodium.path() and told["ipv4"]["echo"] is True
    assert list(tmp_path.iterdir()) == []


def test_doctor_names_what_is_broken_and_exits_1(capsys, tmp_path):
    (tmp_path / "key").write_text("damaged")
    (tmp_path / "key").chmod(0o600)
    assert main(["doctor", "--key", str(tmp_path / "key"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False and told["key"]["status"] == "broken"
    assert len(told["reasons"]) == 1 and "damaged" in told["reasons"][0] and told["error"] == told["reasons"][0]


def test_doctor_reads_as_a_list(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"ok +python +CPython|ok +python +PyPy", lines[0])
    assert all(re.match(r"(ok|warning|broken) +\w+ |\s+\S", line) for line in lines)
