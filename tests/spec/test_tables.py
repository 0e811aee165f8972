"""The state tables of the specification and those of the source are the same."""

import pytest

from tests.spec.document import array, names, paragraph


@pytest.mark.parametrize(
    ("paragraph_id", "module", "table", "prefix", "input_prefix"),
    [
        pytest.param("HS-40", "answer", "TABLE", "HALF", "HALF_IN", marks=pytest.mark.spec("HS-41")),
        pytest.param("HS-57", "dial", "TABLE", "DIAL", "DIAL_IN", marks=pytest.mark.spec("HS-58")),
        pytest.param("PA-5", "path", "TABLE", "PATH", "PATH_IN", marks=pytest.mark.spec("PA-6")),
        pytest.param("ST-7", "stream", "SEND_TABLE", "SEND", "SEND_IN", marks=pytest.mark.spec("ST-8")),
        pytest.param("PU-13", "punch", "TABLE", "PUNCH", "PUNCH_IN", marks=pytest.mark.spec("PU-14")),
        pytest.param("KU-9", "rekey", "TABLE", "REKEY", "REKEY_IN", marks=pytest.mark.spec("KU-12")),
        pytest.param("ST-13", "stream", "RECV_TABLE", "RECV", "RECV_IN", marks=pytest.mark.spec("ST-14")),
    ],
)
def test_table_of_states_is_that_of_the_source(paragraph_id, module, table, prefix, input_prefix):
    head, *rows = paragraph(paragraph_id).tables()[0]
    assert head[1:] == names(module, input_prefix) and [row[0] for row in rows] == names(module, prefix)
    written = [cell if cell == "-" else f"{prefix}_{cell}" for row in rows for cell in row[1:]]
    assert written == ["-" if name == "NOT_ALLOWED" else name for name in array(module, table)]


@pytest.mark.parametrize(
    ("paragraph_id", "module", "prefix"),
    [
        pytest.param("CN-1", "conn", "CONN", marks=pytest.mark.spec("CN-2")),
        pytest.param("MT-10", "pmtud", "PMTUD", marks=pytest.mark.spec("MT-11")),
    ],
)
def test_table_of_states_and_actions_is_that_of_the_source(paragraph_id, module, prefix):
    head, *rows = paragraph(paragraph_id).tables()[0]
    assert head[1:] == names(module, f"{prefix}_IN") and [row[0] for row in rows] == names(module, prefix)
    written = []
    for row in rows:
        for cell in row[1:]:
            state, _, action = cell.partition(", ")
            written += ["NOT_ALLOWED", "DO_NOTHING"] if cell == "-" else [f"{prefix}_{state}", f"DO_{action}"]
    assert written == array(module, "TABLE")
