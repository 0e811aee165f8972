"""What the package shows: names, errors, settings, waiting."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from types import FunctionType

import pytest

import interpeer
from interpeer import errors, testing
from interpeer._waiting import Opening, Waiters


def test_all_names_what_there_is():
    assert sorted(interpeer.__all__) == interpeer.__all__
    assert all(hasattr(interpeer, name) for name in interpeer.__all__)
    public = {name for name, value in vars(interpeer).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert public == set(interpeer.__all__) - {"blocking", "__version__"}


@pytest.mark.parametrize("module", [interpeer, interpeer.blocking, testing], ids=lambda module: module.__name__)
def test_everything_public_has_a_docstring(module):
    without = [name for name in module.__all__ if not inspect.getdoc(getattr(module, name))]
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing):
            without += [name] * (thing.__doc__ is None)
            for member, value in vars(thing).items():
                if not member.startswith("_") and isinstance(value, (FunctionType, classmethod, staticmethod, property)):
                    without += [f"{name}.{member}"] * (not inspect.getdoc(getattr(thing, member)))
    assert without == []


def test_the_tree_of_errors_is_as_it_is_drawn():
    drawn = [line.split("──")[-1].split()[0] for line in (errors.__doc__ or "").splitlines() if "──" in line]
    classes = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert set(drawn) == classes - {"InterpeerError"}
    assert all(issubclass(getattr(errors, name), interpeer.InterpeerError) for name in classes)
    assert issubclass(interpeer.TimedOut, TimeoutError)
    assert issubclass(interpeer.ResetByPeer, ConnectionResetError)
    assert issubclass(interpeer.Refused, ConnectionRefusedError)
    assert issubclass(interpeer.LocalError, RuntimeError)
    assert issubclass(interpeer.DatagramTooLarge, ValueError)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pump": "elsewhere"},
        {"packet_bytes": 1199},
        {"packet_bytes": 65_508},
        {"key_update_packets": 10, "key_limit_packets": 9},
        {"backlog": 0},
        {"max_streams": 0},
        {"idle_timeout_s": -1},
        {"ciphers": ()},
        {"ciphers": ("rot13",)},
        {"ciphers": "aegis-256"},
        {"ciphers": ("aes-256-gcm",) * 9},
        {"max_stream_window_bytes": 1 << 41},
        {"stream_window_bytes": 0},
        {"send_buffer_bytes": 0},
        {"connection_window_bytes": -1},
        {"connect_timeout_s": 0},
        {"connect_timeout_s": 1e-12},
        {"idle_timeout_s": float("nan")},
        {"idle_timeout_s": float("inf")},
        {"keep_alive_s": 1e300},
        {"max_ack_delay_s": float("nan")},
        {"max_ack_delay_s": 17},
        {"spin_s": float("nan")},
        {"spin_s": 1.1},
        {"backlog": 1 << 40},
        {"skip_every": 1 << 40},
        {"max_connections": 1 << 33},
        {"max_streams": 1 << 40},
        {"key_limit_packets": 1 << 70},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError):
        interpeer.Config(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: interpeer.Config(idle_timeout_s="1"),
        lambda: interpeer.Config(packet_bytes=1200.5),
        lambda: interpeer.Config(max_streams=True),
        lambda: interpeer.Config(bundle="no"),
        lambda: interpeer.Config(pump=1),
        lambda: interpeer.Config(ciphers=1),
        lambda: interpeer.Give(roles=1),
        lambda: interpeer.Give(relay_bytes_per_s="1M"),
        lambda: interpeer.Node(config=5),
        lambda: interpeer.Node(config={}),
        lambda: interpeer.Node(network=5),
        lambda: interpeer.Node(give=5),
        lambda: interpeer.Node(lan="no"),
        lambda: interpeer.Node(bootstrap="one"),
        lambda: interpeer.Node(bootstrap=[5]),
        lambda: interpeer.Node(listen=[5]),
        lambda: interpeer.Node(protocols=(5,)),
        lambda: interpeer.blocking.Node(config=5),
    ],
)
def test_settings_of_the_wrong_type_are_refused_when_they_are_made(wrong):
    with pytest.raises(TypeError):
        wrong()


def test_what_cannot_be_given_or_bootstrapped_from_is_refused():
    with pytest.raises(ValueError, match="relay_bytes_per_s"):
        interpeer.Give(relay_bytes_per_s=-1)
    with pytest.raises(ValueError):
        interpeer.Node(bootstrap=["garbage"])
    assert interpeer.Give(relay_bytes_per_s=0, upload_bytes_per_s=None).relay_bytes_per_s == 0


def test_every_setting_reaches_the_core_or_python():
    config = interpeer.Config()
    changed = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, bool):
            changed[field.name] = not value
        elif isinstance(value, (int, float)):
            changed[field.name] = value * 2 if value else 1
    changed["max_paths"] = 2  # of 4 at most
    limits = config.core_limits()
    in_python = {"backlog", "spin_s", "bundle", "qlog_max_bytes", "port_mapping"}
    for name, value in changed.items():
        other = interpeer.Config(**{name: value, **({"key_limit_packets": value * 2} if name == "key_update_packets" else {})})
        assert other.core_limits() != limits or name in in_python, name


def test_waiters_wake_everybody_and_forget_the_cancelled():
    async def main():
        waiters = Waiters(asyncio.get_running_loop())
        tasks = [asyncio.ensure_future(waiters.wait(1, lambda: False)) for _ in range(3)]
        other = asyncio.ensure_future(waiters.wait(2, lambda: False))
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        waiters.wake(1)
        await asyncio.gather(*tasks[1:])
        assert not other.done()
        await waiters.wait(4, lambda: True)
        waiters.wake(-1)
        await other
        assert not waiters._futures

    asyncio.run(main())


def test_an_opening_can_be_closed_unused_and_thrown_into():
    async def opened():
        await asyncio.sleep(0)

    Opening(opened()).close()
    opening = Opening(opened())
    opening.send(None)
    with pytest.raises(ZeroDivisionError):
        opening.throw(ZeroDivisionError())
