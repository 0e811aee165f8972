"""What the commands that reach peers are told: flags over environment over config.toml over defaults.

    flag                 environment             config.toml      default
    --key FILE           INTERPEER_KEY (1)       key              "identity" in the state directory
    --listen ADDR        INTERPEER_LISTEN        listen           [::]:0: any port, both families
    --timeout S          INTERPEER_TIMEOUT       timeout          10
    --state DIR          INTERPEER_STATE         state            $XDG_STATE_HOME/interpeer
    --network NAME       INTERPEER_NETWORK       network          interpeer
    --bootstrap TICKET   INTERPEER_BOOTSTRAP     bootstrap        none; several in a list, or with commas
    --tunnel URL         INTERPEER_TUNNEL        tunnel           none; several in a list, or with commas
    --no-lan             INTERPEER_NO_LAN        lan = false      lan = true
    --give RATE          INTERPEER_GIVE          give             what `interpeer.Give` says
    --no-roles           INTERPEER_NO_ROLES      roles = false    roles = true
    --qlog DIR           INTERPEER_QLOG          qlog             none: no qlog is written

(1) the seed itself in base32, for containers; never a path, and never printed.
config.toml is in $XDG_CONFIG_HOME/interpeer. The XDG directories default to ~/.config and ~/.local/state, on Windows to
%APPDATA% and %LOCALAPPDATA%.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from interpeer._address import Address
from interpeer._cli.errors import Misuse
from interpeer._config import Give, parse_tunnel
from interpeer._driver import parse_listen, to_core
from interpeer._identity import Identity, PeerId, from_base32

DEFAULT_NETWORK = "interpeer"
MAX_NETWORK_BYTES = 64
"""What the handshake has room for."""
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Hold what a command that reaches peers was told."""

    key: Path | None = None
    seed: bytes | None = field(default=None, repr=False)
    listen: str = "[::]:0"
    timeout: float = 10.0
    """Seconds until a peer that does not answer is given up."""
    state: Path | None = None
    """The state directory that was asked for; None: the default one, if it can be had."""
    network: str = DEFAULT_NETWORK
    bootstrap: tuple[str, ...] = ()
    tunnel: tuple[str, ...] = ()
    """Where peers whose UDP is blocked can call as well."""
    lan: bool = True
    give: int | None = None
    """Bytes a second given to others; None: the library's default."""
    roles: bool = True
    qlog: Path | None = None
    """Where what happens on each connection is logged, or None."""

    def as_give(self) -> Give:
        """Return the caps as the library takes them."""
        if self.give is None:
            return Give(roles=self.roles)
        return Give(roles=self.roles, upload_bytes_per_s=self.give, relay_bytes_per_s=self.give)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of every command that reaches peers."""
    group = parser.add_argument_group("reaching peers")
    add = group.add_argument
    add("--key", metavar="FILE", help="the key file, made at first use (default: 'identity' in the state directory)")
    add("--listen", metavar="ADDR", help="address and port to listen on, such as 192.0.2.1:4433 (default: [::]:0, any)")
    add("--timeout", metavar="S", help="give a peer up that does not answer for S seconds (default: 10)")
    add("--state", metavar="DIR", help="the state directory, for one process at a time")
    add("--network", metavar="NAME", help="the network to be in: peers of another are not heard (default: interpeer)")
    add("--bootstrap", metavar="TICKET", action="append", help="a peer to know and be known by, so as to reach others through it")
    add("--tunnel", metavar="URL", action="append", help="be called there as well, as tls://0.0.0.0:443, where UDP is blocked")
    add("--no-lan", action="store_true", default=None, help="neither look for peers in the local network nor be found there")
    add("--give", metavar="RATE", help="bytes a second given to other peers, such as 50k or 10M (default: 125k are relayed)")
    add("--qlog", metavar="DIR", help="log what happens on each connection as qlog, a file each, in this folder")
    add("--no-roles", action="store_true", default=None, help="take no role for the network (with the overlay)")


def resolve(options: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Settings:
    """Put together what was said where. Raises Misuse, which names the place."""
    values: dict[str, Any] = {}
    for source in (_from_config(environ), _from_environment(environ), _from_flags(options)):
        if "key" in source or "seed" in source:
            values.pop("key", None)
            values.pop("seed", None)
        values.update(source)
    return Settings(**values)


# --- the three sources ---


def _from_flags(options: argparse.Namespace) -> dict[str, Any]:
    names = ("key", "listen", "timeout", "state", "network", "bootstrap", "tunnel", "give", "qlog", "no_lan", "no_roles")
    given = {name: getattr(options, name, None) for name in names}
    return _read({name: value for name, value in given.items() if value is not None}, lambda name: "--" + name.replace("_", "-"))


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    names = ("listen", "timeout", "state", "network", "bootstrap", "tunnel", "give", "qlog", "no_lan", "no_roles")
    given: dict[str, Any] = {name: value for name in names if (value := environ.get(f"INTERPEER_{name.upper()}"))}
    if "bootstrap" in given:
        given["bootstrap"] = re.split(r"[\s,]+", given["bootstrap"].strip())
    if "tunnel" in given:
        given["tunnel"] = re.split(r"[\s,]+", given["tunnel"].strip())
    values = _read(given, lambda name: f"INTERPEER_{name.upper()}")
    if seed := environ.get("INTERPEER_KEY"):
        values["seed"] = _seed(seed)
    return values


def _from_config(environ: Mapping[str, str]) -> dict[str, Any]:
    path = config_path(environ)
    if path is None:
        return {}
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise Misuse(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    import tomllib

    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Misuse(f"{path} is not TOML: {error}") from None
    known = ("key", "listen", "timeout", "state", "network", "bootstrap", "tunnel", "lan", "give", "roles", "qlog")
    if unknown := sorted(set(given) - set(known)):
        raise Misuse(f"{path} sets {unknown[0]!r}, which does not exist; there are {', '.join(known)}")
    return _read(given, lambda name: f"{name} in {path}")


def _read(given: Mapping[str, Any], place_of: Callable[[str], str]) -> dict[str, Any]:
    """Turn what was said into settings; say where it was said if it makes no sense."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        try:
            if name in ("no_lan", "no_roles"):
                values[name.removeprefix("no_")] = not _boolean(value)
            else:
                values[name] = _READERS[name](value)
        except (ValueError, TypeError) as error:
            raise Misuse(f"{place_of(name)}: {error}") from None
    return values


# --- one value ---


def _seed(text: str) -> bytes:
    try:
        seed = from_base32(text.strip())
        Identity.from_seed(seed)
    except ValueError:
        raise Misuse("INTERPEER_KEY is not a seed: 32 bytes, as 52 characters of lower-case base32") from None
    return seed


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"some text is needed, not {value!r}")
    return value


def _network(value: object) -> str:
    name = _text(value)
    if len(name.encode()) > MAX_NETWORK_BYTES:
        raise ValueError(f"a network's name has at most {MAX_NETWORK_BYTES} bytes")
    return name


def _path(value: object) -> Path:
    try:
        return Path(_text(value)).expanduser()
    except RuntimeError:
        raise ValueError(f"there is no home directory for {value!r}") from None


def _listen(value: object) -> str:
    text = _text(value)
    for host, port in parse_listen(text):
        to_core(host, port)  # raises ValueError for what is no address
    return text


def _timeout(value: object) -> float:
    try:
        seconds = float(value) if isinstance(value, (str, int, float)) else 0.0
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise ValueError(f"a time-out is a number of seconds, more than 0 and at most a day, not {value!r}")
    return seconds


def _rate(value: object) -> int:
    """Read bytes a second: 500000, "500k", "10M", "1.5 MB/s"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)b?(?:/s)?", str(value).strip().lower())
    if not match:
        raise ValueError(f"a rate is a number of bytes a second, such as 500k or 10M, not {value!r}")
    return int(float(match[1]) * _UNITS[match[2]])


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        raise ValueError(f"true or false is needed, not {value!r}")
    return word in ("1", "true", "yes", "on")


def _tickets(value: object) -> tuple[str, ...]:
    items: list[object] = list(value) if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownArgumentType]
    tickets = tuple(_text(item) for item in items)
    for ticket in tickets:
        PeerId(ticket) if len(ticket) == 52 else Address(ticket)  # raises ValueError
    return tickets


def _tunnels(value: object) -> tuple[str, ...]:
    items: list[object] = list(value) if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownArgumentType]
    places = tuple(_text(item) for item in items)
    for place in places:
        parse_tunnel(place)  # raises ValueError
    return places


_READERS: dict[str, Callable[[object], Any]] = {
    "key": _path,
    "listen": _listen,
    "timeout": _timeout,
    "state": _path,
    "network": _network,
    "bootstrap": _tickets,
    "tunnel": _tunnels,
    "lan": _boolean,
    "give": _rate,
    "roles": _boolean,
    "qlog": _path,
}


# --- where things are kept ---


def config_path(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return where config.toml would be; None without a home directory."""
    return _under(environ, "XDG_CONFIG_HOME", ".config", "APPDATA", "config.toml")


def default_state(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the default state directory; None without a home directory."""
    return _under(environ, "XDG_STATE_HOME", ".local/state", "LOCALAPPDATA")


def _under(environ: Mapping[str, str], xdg: str, at_home: str, on_windows: str, *names: str) -> Path | None:
    base = environ.get(xdg) or (environ.get(on_windows) if sys.platform == "win32" else None)
    if base and os.path.isabs(base):
        return Path(base, "interpeer", *names)
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return Path(home, at_home, "interpeer", *names)
