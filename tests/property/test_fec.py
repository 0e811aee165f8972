"""The decoder beside a twin that solves all equations anew after each input, and what random losses cost."""

import random

from hypothesis import given, note
from hypothesis import strategies as st

from interpeer._core import probe_fec
from interpeer._core.probe_fec import Decoder, Encoder
from tests.models import gf256

SIZE = 24


class Twin:
    """Forgets nothing, but takes nothing that lies behind the window and tells nothing of it."""

    def __init__(self, window):
        self.window, self.base, self.messages, self.equations = window, 0, {}, []

    def add(self, number, message):
        if number >= self.base:
            self.base = max(self.base, number - self.window + 1)
            self.messages[number] = message

    def repair(self, first, count, seed, symbol):
        if first >= self.base:
            self.base = max(self.base, first + count - self.window)
            self.equations.append(({n: gf256.factor(seed, n) for n in range(first, first + count)}, symbol))

    def solved(self):
        """Return the missing messages that can be told now, and know them from now on."""
        equations = []
        for factors, total in self.equations:
            for n in factors.keys() & self.messages.keys():
                total = gf256.add(total, gf256.scale(gf256.symbol(self.messages[n]), factors[n]))
            equations.append(({n: f for n, f in factors.items() if n not in self.messages}, total))
        found = {n: gf256.message(total) for n, total in gf256.solve(equations).items()}
        self.messages |= found
        return sorted((n, message) for n, message in found.items() if n >= self.base)


@given(
    sender=st.integers(1, 12),
    receiver=st.integers(1, 16),
    script=st.lists(st.tuples(st.sampled_from("mmmMMr"), st.booleans(), st.binary(max_size=SIZE - 2)), max_size=60),
    late=st.lists(st.integers(0, 5), max_size=8),
)
def test_decoder_knows_what_its_equations_tell(sender, receiver, script, late):
    """Messages, some of them lost; repairs; and some of both overtaken by others."""
    encoder, decoder, twin = Encoder(sender, SIZE), Decoder(receiver, SIZE), Twin(receiver)
    inputs = []
    for kind, arrives, message in script:
        if kind in "mM":
            number = encoder.add(message)
            if arrives or kind == "m":
                inputs.append(("add", number, message))
        elif (body := encoder.repair()) is not None:
            inputs.append(("repair", body))
    for at in late:
        if len(inputs) > at:
            inputs.append(inputs.pop(-1 - at))
    for name, *arguments in inputs:
        if name == "add":
            decoder.add(*arguments)
            twin.add(*arguments)
        else:
            first, count, seed, symbol = probe_fec.parse_repair(*arguments)
            decoder.repair(*arguments)
            if count <= receiver and not all(n in twin.messages for n in range(first, first + count)):
                twin.repair(first, count, seed, symbol)
        recovered = decoder.poll()
        note(f"{name} {arguments} gives {recovered}")
        expected = twin.solved()
        assert recovered == expected and decoder.state["base"] == twin.base


def test_as_many_repairs_as_losses_suffice_but_for_one_time_in_256(seed):
    """Any pattern of losses, repairs in place of messages: what fails is what a random matrix fails, 1/256 + 1/256^2 + ..."""
    draw, failed, tries = random.Random(seed), 0, 3000
    for _ in range(tries):
        window = draw.randrange(2, 33)
        lost = set(draw.sample(range(window), draw.randrange(2, window + 1)))
        first = draw.randrange(1 << 40)  # other factors each time
        encoder, decoder = Encoder(window, SIZE, first), Decoder(window, SIZE, first)
        messages = [draw.randbytes(draw.randrange(SIZE - 1)) for _ in range(window)]
        for i, message in enumerate(messages):
            number = encoder.add(message)
            if i not in lost:
                decoder.add(number, message)
        recovered = []
        for _ in lost:
            decoder.repair(encoder.repair())
            recovered += decoder.poll()
        failed += len(recovered) < len(lost)
        assert all(message == messages[number - first] for number, message in recovered)
        while len(recovered) < len(lost):  # one more makes up for it, or the next
            decoder.repair(encoder.repair())
            recovered += decoder.poll()
    assert failed < tries * 3 / 256, f"{failed} of {tries}"
