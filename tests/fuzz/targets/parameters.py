"""Transport parameters: read as the twin reads them; what was understood is written and read back unchanged."""

from interpeer._core import probe_wire
from tests.models import wire


def feed(data: bytes) -> None:
    read = probe_wire.read_parameters(data)
    assert read == wire.read_parameters(data)
    if read is None or not (read["suites"] or read["refusal"]):
        return
    written = probe_wire.encode_parameters(read)
    if written is not None:
        names = ("refusal", "reason") if read["refusal"] else tuple(read)  # a refusal is written alone
        again = probe_wire.read_parameters(written)
        assert again is not None and all(again[name] == read[name] for name in names)
