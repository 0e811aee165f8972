"""What the tests of the specification have: nothing of the core may be left in a node once everybody has let go of it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from interpeer._core import control
from tests.spec.peer import NODES, SECOND


@pytest.fixture(autouse=True)
def engines_are_empty_at_the_end(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test after which a node still holds a connection, a stream, a block or a timer."""
    failed_before = request.session.testsfailed
    yield
    nodes = NODES.copy()
    NODES.clear()
    if request.session.testsfailed > failed_before:
        return  # its traceback keeps handles alive
    gc.collect()
    for node in nodes:
        node.wait(600 * SECOND)  # longer than any idle time-out and any three probe time-outs here
        left = {name: count for name, count in control.live_objects(node.engine).items() if count}
        assert not left, f"left behind in a node: {left}"
