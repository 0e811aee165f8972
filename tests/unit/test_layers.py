"""Who may import whom (CONTRIBUTING.md, "Layers"). A new module of the core needs a line in this table."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "src/_core"
PYTHON = ROOT / "src/interpeer"

L0 = {"wire", "crypto", "replay", "timers", "slab", "rangeset", "table", "links", "controller"}
L1 = {"noise", "loss", "stream", "datagram", "path", "pmtud", "buffer", "protection", "cids", "fec", "trace"}
L1 |= {"cc", "pacing", "cubic", "bbr", "bbr_model", "ledbat"}  # congestion control
L1 |= {"channel", "inbox", "repairs"}
L1 |= {"relay", "early", "raw", "signals"}  # reaching peers
L1 |= {"stun"}
L1 |= {"portmap"}
L1 |= {"address_class", "natfacts", "punch_message", "retry", "spray", "spray_budget"}  # punching
L1 |= {"tunnel"}
L2 = {
    "handshake",
    "dial",
    "answer",
    "context",
    "conn",
    "channels",
    "channel_in",
    "channel_out",
    "signal_in",
    "builder",
    "delivery",
    "deadlines",
    "paths",
    "ingress",
    "compose",
    "egress",
    "rekey",
    "keys",
    "tracing",
    "shards",
    "carrier",
    "punch",
}
L3 = {"registry", "binding", "calling", "reception", "relaying", "engine"}
# what Python holds of an engine
DOORS = {"entry", "connection_handle", "path_handle", "signal_handle", "stream_handle", "channel_handle", "control", "legs"}
DOORS |= {"tunnels"}
# Within a layer, where one thing is made of another. Each is a decision: keep them few, and never both ways.
SIDEWAYS: dict[str, set[str]] = {
    "stream": {"buffer"},
    "bbr": {"bbr_model"},
    "cc": {"cubic", "bbr", "ledbat", "pacing"},
    "repairs": {"fec"},
    "channel": {"buffer", "fec", "repairs", "stream"},
    "inbox": {"buffer", "channel", "fec", "repairs", "stream"},
    "path": {"cc", "loss", "pmtud", "relay"},
    "dial": {"handshake"},
    "answer": {"handshake"},
    "conn": {"context", "rekey"},
    "tracing": {"conn"},
    "keys": {"conn", "context", "paths", "rekey", "tracing"},
    "channels": {"conn"},
    "delivery": {"channels", "conn", "tracing"},
    "paths": {"conn", "delivery"},
    "carrier": {"conn", "context", "paths"},
    "deadlines": {"carrier", "channels", "conn", "delivery", "keys", "paths"},
    "channel_in": {"channels", "conn"},
    "signal_in": {"conn"},
    "ingress": {"channel_in", "signal_in", "conn", "delivery", "keys", "paths", "rekey", "tracing"},
    "builder": {"conn"},
    "channel_out": {"builder", "channels", "conn"},
    "compose": {"builder", "channel_out", "conn", "context", "rekey"},
    "egress": {"builder", "carrier", "channels", "compose", "conn", "context", "keys", "paths", "tracing"},
    "binding": {"registry"},
    "calling": {"registry"},
    "reception": {"registry", "calling"},
    "relaying": {"registry"},
    "engine": {"registry", "binding", "calling", "reception", "relaying"},
    "connection_handle": {"channel_handle", "entry", "stream_handle"},
    "channel_handle": {"entry"},
    "stream_handle": {"entry"},
    "path_handle": {"connection_handle", "control", "entry"},
    "signal_handle": {"connection_handle", "entry"},
    "control": {"connection_handle", "entry"},
    "legs": {"connection_handle", "entry"},
    "tunnels": {"entry"},
}

ALLOWED: dict[str, set[str]] = {
    **{name: set() for name in L0},
    **{name: L0 | SIDEWAYS.get(name, set()) for name in L1},
    **{name: L0 | L1 | SIDEWAYS.get(name, set()) for name in L2},
    **{name: L0 | L1 | L2 | SIDEWAYS.get(name, set()) for name in L3},
    **{name: L0 | L1 | L2 | L3 | SIDEWAYS.get(name, set()) for name in DOORS},
    "udp": {"slab"},
    "udpsocket": {"udp", "slab"},
    "pump": L0 | {"engine", "entry", "udp", "context", "control", "shards"},
    "limit": {"udp", "crypto", "slab"},
    "probe": L0 | L1 | L2,
    "probe_cc": L0 | L1 | L2,
    "probe_channel": L0 | L1 | L2 | {"probe", "probe_memory"},
    "probe_paths": L0 | L1 | L2 | {"probe"},
    "probe_wire": L0 | L1 | L2 | {"probe"},
    "probe_memory": L0 | L1 | L2 | {"probe"},
    "probe_transport": L0 | L1 | L2 | {"probe", "probe_memory"},
    "probe_handshake": L0 | L1 | L2 | {"probe", "probe_wire"},
    "probe_rekey": L0 | L1 | L2 | {"probe", "probe_wire"},
    "probe_relay": L0 | L1 | L2 | {"probe"},
    "probe_fec": L0 | L1 | L2 | {"probe"},
    "probe_conn": L0 | L1 | L2 | {"probe", "probe_wire"},
    "probe_shards": L0 | L1 | L2 | {"probe", "engine"},
    "probe_pmtud": L0 | L1 | L2 | {"probe"},
    "probe_punch": L0 | L1 | L2,
    "probe_loops": L0 | L1 | L2 | {"probe", "engine"},
}
# Python: what the files of the top layer, and of interpeer.testing, may take from the core
TOP = {"engine", "pump", "crypto", "stun", "natfacts", "punch", "retry", "spray_budget"} | DOORS
TOP_MORE = {
    "_limit.py": {"limit"},
    "_driver.py": {"udp"},
    "doctor.py": {"udpsocket"},
    "dialects.py": {"portmap"},
}
TESTING = {"engine"} | DOORS

LOOPS = {"asyncio", "uvloop"}
SYSTEM = {"time", "random", "secrets", "os", "datetime", "socket", "select", "posix", "libc.time", "cpython.datetime"}
SYSTEM_CALLS = re.compile(r"\b(clock_gettime|gettimeofday|getrandom|getentropy|arc4random\w*|randombytes\w*|urandom|s?rand)\b")
TOUCHES_SYSTEM = {"pump", "udp", "udpsocket", "limit"}  # where time and entropy enter, and what only makes system calls

IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import\s+(\([^)]*\)|[^\n]*)|c?import\s+([^\n]*))", re.MULTILINE)


def imports(source: str) -> set[str]:
    """Return the dotted names that Cython source imports or cimports; `from a import b` gives a and a.b."""
    found = set()
    for package, names, plain in IMPORT.findall(re.sub(r"#.*", "", source)):
        listed = [re.split(r"\s+as\s+", name.strip())[0] for name in (names or plain).strip("()").split(",") if name.strip()]
        found |= {f"{package}.{name}" for name in listed} | {package} if package else set(listed)
    return found


def python_imports(source: str) -> set[str]:
    """Return the same for Python source."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def core_of(names: set[str]) -> set[str]:
    """Return the modules of the core among dotted names."""
    return {name.split(".")[2] for name in names if re.match(r"interpeer\._core\.\w", name)}


def touches(names: set[str], modules: set[str]) -> set[str]:
    return {name for name in names for module in modules if name == module or name.startswith(module + ".")}


def module_files(name: str) -> list[Path]:
    return [path for path in (CORE / f"{name}.pyx", PYTHON / f"_core/{name}.pxd") if path.exists()]


NAMES = sorted({path.stem for path in (*CORE.glob("*.pyx"), *(PYTHON / "_core").glob("*.pxd"))})


@pytest.mark.parametrize("name", NAMES)
def test_module_of_the_core_imports_only_from_below(name):
    assert name in ALLOWED, f"{name} has no place in the table: give it a layer here and in the design"
    for path in module_files(name):
        used = imports(path.read_text())
        assert core_of(used) <= ALLOWED[name] | {name}, f"{path.name} reaches up or sideways"
        python = {name for name in touches(used, {"interpeer"}) if not name.startswith("interpeer._core")}
        assert not python - (touches(python, {"interpeer.errors"}) if name in DOORS else set()), f"{path.name} imports Python"
        assert not touches(used, LOOPS), f"{path.name} knows of an event loop"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TOUCHES_SYSTEM])
def test_time_and_chance_come_in_as_arguments(name):
    for path in module_files(name):
        source = path.read_text()
        assert not touches(imports(source), SYSTEM), path.name
        if name != "crypto":  # it offers libsodium's randomness to the pump
            assert not SYSTEM_CALLS.search(re.sub(r"#.*", "", source)), path.name


def test_only_the_pump_draws_random_bytes_from_the_system():
    drawers = {path.stem for path in CORE.glob("*.pyx") if "random_bytes" in path.read_text()}
    assert drawers == {"crypto", "pump"}


def test_nothing_is_imported_in_a_circle():
    remaining = dict(ALLOWED)
    while remaining:
        lowest = {name for name, below in remaining.items() if not below & set(remaining)}
        assert lowest, f"each of these allows another: {sorted(remaining)}"
        for name in lowest:
            del remaining[name]


def test_every_module_is_built(core_modules):
    assert sorted(core_modules) == sorted(path.stem for path in CORE.glob("*.pyx")), "MODULES in setup.py and src/_core differ"
    assert len(core_modules) == len(set(core_modules))


@pytest.mark.parametrize("path", sorted(PYTHON.rglob("*.py")), ids=lambda path: str(path.relative_to(PYTHON)))
def test_python_imports_only_its_share_of_the_core(path):
    used = python_imports(path.read_text())
    if path.parent.name == "_core":
        assert path.name == "__init__.py" and core_of(used) <= {"crypto"} and not touches(used, LOOPS | SYSTEM)
    elif path.parent.name == "testing":
        real = {"time"} if path.name == "_options.py" else {"time", "socket"}  # that one has the numbers of options
        assert core_of(used) <= TESTING and not touches(used, real)
    else:
        assert core_of(used) <= TOP | TOP_MORE.get(path.name, set())


def test_importing_interpeer_loads_none_of_the_command_lines_packages():
    code = "import sys, interpeer; print(*sorted({'argparse', 'numpy', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from interpeer._core.wire cimport A, B", {"wire"}),
        ("from interpeer._core.wire cimport (\n    A,  # one\n    B)", {"wire"}),
        ("from interpeer._core cimport wire, slab as s", {"wire", "slab"}),
        ("cimport interpeer._core.wire", {"wire"}),
        ("import interpeer._core.wire as w", {"wire"}),
        ("# from interpeer._core.wire cimport A", set()),
    ],
)
def test_no_way_of_importing_is_overlooked(source, expected):
    assert core_of(imports(source)) == expected
