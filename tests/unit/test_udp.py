"""The words that switch abilities of the udp layer off."""

import pytest

from interpeer._core.udp import WORDS, parse_disabled


def test_no_words_disable_nothing():
    assert parse_disabled("") == parse_disabled(" , ") == 0


def test_each_word_is_a_bit_of_its_own():
    assert sorted(parse_disabled(word).bit_count() for word in WORDS) == [1] * len(WORDS)
    assert parse_disabled(" gso, gro ,gso") == parse_disabled("gso") + parse_disabled("gro")
    assert parse_disabled(",".join(WORDS)) == sum(WORDS.values())


@pytest.mark.parametrize("words", ["goo", "gso;gro", "GSO", "gso,all"])
def test_unknown_word_is_refused_with_the_known_ones(words):
    with pytest.raises(ValueError, match="expected some of gso, gro"):
        parse_disabled(words)
