"""Connection ids: those that a peer has given us, how many and which; those that we have given it."""

import pytest

from interpeer._core.probe_paths import OwnIds, PeersIds

MOST = 24
TOKEN = bytes(range(16))
UNSENT, SENT, LINGERING = range(3)


@pytest.fixture
def ids():
    return PeersIds()


def filled(ids):
    """Fill the table: four ids for each of six paths."""
    for n in range(MOST):
        assert ids.add(n // 4, n % 4, 100 + n, TOKEN) == "ok"
    return ids


def test_there_is_room_for_so_many_and_it_is_made_as_it_is_needed(ids):
    sizes = set()
    for n in range(MOST):
        assert ids.capacity >= n and ids.add(0, n, 1 + n) == "ok"
        sizes.add(ids.capacity)
    assert sizes == {4, 8, 16, 24}
    assert ids.add(0, MOST, 1 + MOST) == "too many" and ids.capacity == MOST
    assert ids.add(0, MOST - 1, MOST) == "ok", "one that is there already needs no room"
    assert [ids.find(0, n) for n in range(MOST)] == [(1 + n, False) for n in range(MOST)]


def test_the_same_again_changes_nothing_whatever_became_of_it(ids):
    for state in ("spare", "used", "retiring", "retired"):
        ids.add(1, 0, 7, TOKEN)
        ids.move(1, 0, state)
        for _ in range(3 * MOST):
            assert ids.add(1, 0, 7, TOKEN) == "ok"
        assert ids.in_state(state) == (1, 0) and ids.capacity == 4


@pytest.mark.parametrize(
    ("path", "sequence", "cid", "token"),
    [(1, 0, 8, TOKEN), (1, 0, 7, bytes(16)), (1, 0, 7, TOKEN[:15] + b"!"), (1, 1, 7, TOKEN), (2, 0, 7, TOKEN)],
    ids=["another id", "no token", "another token", "another number", "another path"],
)
def test_one_number_has_one_id_and_one_id_one_number(ids, path, sequence, cid, token):
    ids.add(1, 0, 7, TOKEN)
    assert ids.add(path, sequence, cid, token) == "conflict"
    assert ids.find(1, 0) == (7, True)
    if (path, sequence) != (1, 0):
        assert ids.find(path, sequence) is None


def test_a_place_that_is_free_is_used_again(ids):
    filled(ids)
    ids.move(3, 2, "free")
    assert ids.find(3, 2) is None
    assert ids.add(9, 9, 999) == "ok" and ids.find(9, 9) == (999, False), "without the token of who was there before"
    assert ids.add(3, 2, 998) == "too many"


def test_a_place_whose_token_the_engine_still_knows_is_not_used(ids):
    filled(ids)
    ids.watch(3, 2, True)
    ids.move(3, 2, "free")
    assert ids.add(9, 9, 999) == "too many"
    ids.move(3, 1, "free")
    assert ids.add(9, 9, 999) == "ok"


def test_the_spare_id_with_the_lowest_number_is_used_first_in_whatever_order_they_came(ids):
    for sequence in (2**32 - 1, 7, 3, 5):
        ids.add(4, sequence, sequence + 1)
    ids.add(2, 0, 1)
    found = []
    while (sequence := ids.spare(4)) is not None:
        found.append(sequence)
        ids.move(4, sequence, "used")
    assert found == [3, 5, 7, 2**32 - 1] and ids.spare(2) == 0 and ids.spare(3) is None


def test_an_empty_table_has_nothing(ids):
    assert ids.capacity == 0 and ids.spare(0) is None and ids.find(0, 0) is None and ids.in_state("used") is None


def test_of_our_own_those_count_that_the_peer_has_not_given_up():
    own = OwnIds([(0, 0, LINGERING), (0, 1, SENT), (0, 2, UNSENT), (2, 0, SENT), (3, 0, LINGERING)])
    assert [own.count(path) for path in range(4)] == [2, 0, 1, 0]
    assert own.has(0, 0) and own.has(0, 2) and own.has(3, 0) and not own.has(0, 3) and not own.has(1, 0)
    assert OwnIds([]).count(0) == 0 and not OwnIds([]).has(0, 0)
