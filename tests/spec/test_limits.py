"""Chapters 10 and 12 of the specification: error codes and limits are those of the source."""

import re

from interpeer import Config
from tests.spec.document import INTERFACE, constants, paragraph
from tests.spec.reference import SUITES


def rows(paragraph_id: str) -> list[list[str]]:
    return paragraph(paragraph_id).tables()[0][1:]


def test_every_limit_has_the_value_of_the_source():
    values = constants()
    for name, value, reason in rows("LM-1"):
        assert values[name] == int(value), name
        assert reason


def test_no_limit_of_what_strangers_and_peers_can_cause_is_left_out():
    modules = ("wire", "handshake", "answer", "dial", "reception", "registry", "stream", "path", "paths", "cids", "replay")
    modules += ("stun", "binding", "natfacts", "punch", "retry", "spray", "spray_budget")
    limits = {name for name in constants(*modules) if name.startswith(("MAX_", "LEAST_", "GATE_")) or "_PER_" in name}
    listed = {name for name, *_ in rows("LM-1")}
    assert limits - listed == {"MAX_UDP_PAYLOAD_ACCEPTED"}, "it is what UDP can carry, and bounds nothing"


def test_every_setting_has_its_default():
    config = Config()
    limits = config.core_limits()  # where a default depends on the rest of the settings
    for name, value in rows("LM-2"):
        default = getattr(config, name)
        assert (limits.get(name, limits.get(name.removesuffix("_bytes"))) if default is None else default) == float(value), name


def test_every_error_code_is_that_of_the_source():
    source = (INTERFACE / "wire.pxd").read_text()
    codes = {name: int(value, 16) for name, value in re.findall(r"^    CODE_(\w+) = (0x[0-9A-F]+)", source, re.MULTILINE)}
    assert {name: int(code, 16) for code, name, _ in rows("ER-1")} == codes


def test_frames_and_parameters_have_the_numbers_of_the_source():
    values = constants()
    for kind, name, *_ in rows("HS-24"):
        assert values[f"PARAM_{name}"] == int(kind, 16)
    for kind, name, *_ in rows("FR-9"):
        first = re.search(r"0x[0-9A-F]+", kind)
        assert first and values[f"FRAME_{name.upper()}"] == int(first[0], 16)
    suites = {int(number): (int(key), int(nonce), int(tag)) for number, _, key, nonce, tag, _ in rows("PK-18")}
    assert suites == SUITES
