"""The search for a path's MTU: its table, the sizes it tries, and what makes a black hole (docs/spec, chapter 15)."""

import pytest

from interpeer._core.probe_pmtud import INPUT_NAMES, STATE_NAMES, Search, transition

SECOND = 10**9
TEN_MINUTES = 600 * SECOND
NOW = 5 * SECOND
RESOLUTION, WORTH, PER_WINDOW = 16, 8, 8
ETHERNET, JUMBO, MOST = 1472, 8972, 65_507

ALLOWED = {
    ("off", "hole"): "off",
    ("base", "start"): "searching",
    ("base", "hole"): "base",
    ("searching", "acked"): "searching",
    ("searching", "lost"): "searching",
    ("searching", "failed"): "searching",
    ("searching", "found"): "complete",
    ("searching", "hole"): "base",
    ("complete", "start"): "searching",
    ("complete", "hole"): "base",
}


class Path:
    """A search on a path that carries packets of so many bytes, over which full packets flow without end."""

    def __init__(self, carries, **settings):
        self.search, self.carries, self.now, self.number = Search(**settings), carries, NOW, 0
        self.tried = []

    def poll(self, **window):
        self.search.send(self.search.bytes, WORTH)
        return self.search.poll(self.now, **window)

    def step(self):
        """Send the probe that is due, if there is one, and tell what became of it; return its size."""
        size = self.poll()
        if size is not None:
            self.number += 1
            self.tried.append(size)
            self.search.sent(self.number, self.now + SECOND)
            assert self.poll() is None, "one at a time"
            (self.search.probe_acked if size <= self.carries else self.search.probe_lost)(self.number)
        return size

    def settle(self):
        """Search until there is nothing left to try; return the sizes that were tried."""
        self.tried = []
        while self.step() is not None:
            pass
        return self.tried

    def fall(self):
        """Lose packets until it makes a black hole; return how many."""
        for n in range(1, 10):
            self.number += 1
            if self.search.lost(self.number, self.search.bytes, self.number + 1):
                return n
        raise AssertionError("it never does")


@pytest.mark.parametrize("event", INPUT_NAMES)
@pytest.mark.parametrize("state", STATE_NAMES)
def test_every_input_in_every_state(state, event):
    assert transition(state, event) == ALLOWED.get((state, event))


# --- what is tried ---


@pytest.mark.parametrize(
    ("carries", "is_ipv4", "tried"),
    [
        (1472, True, [1472, *[8972] * 3, *[1488] * 3]),
        (1452, False, [1452, *[8952] * 3, *[1468] * 3]),
        (8972, True, [1472, 8972, *[65_507] * 3, *[8988] * 3]),
        (65_507, True, [1472, 8972, 65_507]),
        (65_488, False, [1452, 8952, 65_488, *[65_507] * 3, *[65_504] * 3]),
    ],
)
def test_well_known_sizes_are_tried_first_and_one_more_settles_them(carries, is_ipv4, tried):
    path = Path(carries, is_ipv4=is_ipv4)
    assert path.settle() == tried
    assert path.search.bytes == carries and path.search.state == "complete"


@pytest.mark.parametrize("is_ipv4", [True, False])
@pytest.mark.parametrize("carries", [1200, 1201, 1215, 1216, 1217, 1252, 1372, 1400, 1451, 1453, 1480, 2000, 4324, 9000, 40_000])
def test_any_other_size_is_found_to_within_a_few_bytes(carries, is_ipv4):
    path = Path(carries, is_ipv4=is_ipv4)
    sizes = list(dict.fromkeys(path.settle()))
    assert carries - RESOLUTION < path.search.bytes <= carries
    assert len(sizes) <= 16
    assert all(path.tried.count(size) == (1 if size <= carries else 3) for size in sizes)


@pytest.mark.parametrize("ceiling", [1217, 1400, 1472, 3000, 16_384, 65_506])
@pytest.mark.parametrize("bound", ["most", "ceiling"])
def test_nothing_above_the_ceiling_is_tried_and_the_ceiling_itself_is(ceiling, bound):
    path = Path(MOST, **{bound: ceiling})
    assert max(path.settle()) == ceiling == path.search.bytes


def test_a_peer_that_takes_less_than_the_base_size_gets_less():
    search = Search(base=1400, most=1300)
    assert (search.state, search.bytes) == ("off", 1300)


@pytest.mark.parametrize(("base", "ceiling"), [(1200, 1200), (1200, 1000), (9000, 1500)])
def test_where_no_more_is_wanted_nothing_is_tried_and_nothing_is_a_black_hole(base, ceiling):
    path = Path(MOST, base=base, ceiling=ceiling)
    assert path.settle() == [] and path.search.state == "off" and not path.search.is_due
    assert not any(path.search.lost(n, base, n + 1) for n in range(100))
    assert path.search.bytes == base


# --- when ---


def test_a_probe_waits_for_full_packets():
    search = Search()
    for n in (1199, 40, 1000, 1) * 100:
        search.send(n)
        assert not search.is_due and search.poll(NOW) is None
    search.send(1200, WORTH - 1)
    assert search.poll(NOW) is None
    search.send(1200)
    assert search.poll(NOW) == ETHERNET == search.poll(NOW), "until it has been sent"
    search.sent(1, NOW + SECOND)
    search.probe_acked(1)
    search.send(1200, 100)
    assert search.poll(NOW) is None, "they are not full any more"


def test_a_datagram_that_does_not_fit_is_reason_enough():
    path = Path(ETHERNET)
    path.search.want()
    sizes = []
    while (size := path.search.poll(NOW)) is not None:
        sizes.append(size)
        path.search.sent(len(sizes), NOW + SECOND)
        (path.search.probe_acked if size <= path.carries else path.search.probe_lost)(len(sizes))
    assert path.search.bytes == ETHERNET and len(sizes) == 7
    assert not path.search.is_due, "it was tried, and that is all"


@pytest.mark.parametrize("size", [JUMBO, MOST])
def test_a_probe_of_more_than_two_packets_is_a_small_part_of_the_window(size):
    path = Path(MOST)
    while path.poll() != size:
        path.step()
    assert path.poll(window=PER_WINDOW * size - 1) is None
    assert path.poll(window=PER_WINDOW * size) == size


def test_a_small_step_needs_no_window():
    path = Path(1400)
    while path.poll(window=1) is not None:
        path.step()
    assert 1400 - RESOLUTION < path.search.bytes <= 1400


def test_a_path_is_searched_again_after_ten_minutes():
    path = Path(ETHERNET)
    path.settle()
    path.carries = JUMBO
    path.now += TEN_MINUTES - 1
    assert path.settle() == []
    path.now += 1
    path.settle()
    assert path.search.bytes == JUMBO


def test_the_ten_minutes_are_counted_from_the_end_of_the_search():
    path = Path(ETHERNET)
    path.settle()
    path.now += 3 * TEN_MINUTES
    assert path.step() is not None


# --- the fate of probes ---


def test_a_probe_is_tried_three_times():
    path = Path(1200)
    for tries in range(3):
        assert path.step() == ETHERNET, tries
    assert path.step() < ETHERNET


def test_a_probe_that_is_given_up_has_no_deadline_any_more():
    search = Search()
    search.send(1200, WORTH)
    assert search.deadline_ns == 0
    search.poll(NOW)
    search.sent(7, NOW + SECOND)
    assert search.deadline_ns == NOW + SECOND and not search.is_due
    search.probe_lost(7)
    assert search.deadline_ns == 0


def test_news_of_another_probe_than_the_last_changes_nothing():
    search = Search()
    search.send(1200, WORTH)
    search.probe_acked(0)  # before there is one
    search.probe_lost(0)
    assert search.poll(NOW) == ETHERNET
    search.sent(7, NOW + SECOND)
    search.probe_acked(6)
    search.probe_lost(6)
    assert (search.bytes, search.deadline_ns) == (1200, NOW + SECOND)
    search.probe_lost(7)
    search.probe_acked(7)  # late
    assert search.bytes == 1200


def test_a_size_that_the_interface_refuses_is_not_tried_again():
    path = Path(MOST)
    assert path.step() == ETHERNET and path.poll() == JUMBO
    path.search.sent(50, NOW + SECOND)
    assert not path.search.refused(JUMBO, 51)
    assert path.search.deadline_ns == 0 and path.search.bytes == ETHERNET
    path.carries = ETHERNET
    assert path.settle() == [ETHERNET + RESOLUTION] * 3


# --- black holes ---


def test_three_large_packets_lost_in_a_row_are_a_black_hole():
    path = Path(ETHERNET)
    path.settle()
    assert path.fall() == 3
    assert (path.search.state, path.search.bytes) == ("base", 1200)


def test_losses_of_packets_that_pass_anywhere_are_none():
    path = Path(ETHERNET)
    path.settle()
    assert not any(path.search.lost(100 + n, 1200, 101 + n) for n in range(100))
    assert path.search.bytes == ETHERNET


def test_a_large_packet_that_arrives_ends_the_row():
    path = Path(ETHERNET)
    path.settle()
    for n in range(100, 200, 10):
        assert not path.search.lost(n, 1472, n + 4) and not path.search.lost(n + 1, 1472, n + 4)
        path.search.acked(n + 2, 1201)
    assert path.search.bytes == ETHERNET


def test_a_small_packet_that_arrives_does_not_end_it():
    path = Path(ETHERNET)
    path.settle()
    for n, is_hole in ((100, False), (110, False), (120, True)):
        assert path.search.lost(n, 1472, n + 4) is is_hole
        path.search.acked(n + 2, 1200)


def test_what_was_lost_before_something_that_arrived_is_lost_by_chance():
    path = Path(ETHERNET)
    path.settle()
    path.search.acked(500, 1472)
    assert not any(path.search.lost(n, 1472, 501) for n in range(400, 500))
    assert path.search.lost(501, 1472, 504) is path.search.lost(502, 1472, 504) is False
    assert path.search.lost(503, 1472, 504) is True


def test_what_was_on_its_way_into_the_black_hole_makes_no_second_one():
    path = Path(MOST)
    path.settle()
    assert path.search.lost(100, 1472, 200) is path.search.lost(101, 1472, 200) is False
    assert path.search.lost(102, 1472, 200) is True
    path.step()
    assert not any(path.search.lost(n, 1472, 200) for n in range(103, 200))
    assert path.search.state == "searching"


def test_a_probe_that_was_on_its_way_is_forgotten():
    path = Path(JUMBO)
    assert path.step() == ETHERNET and path.poll() == JUMBO
    path.search.sent(90, NOW + SECOND)
    path.fall()
    path.search.probe_acked(90)
    path.search.probe_lost(90)
    assert (path.search.bytes, path.search.deadline_ns) == (1200, 0)


def test_the_first_search_after_a_black_hole_begins_with_what_was_there_before():
    path = Path(JUMBO)
    path.settle()
    path.fall()
    assert path.step() == JUMBO == path.search.bytes, "it was chance"
    path.settle()
    path.fall()
    path.now += SECOND
    path.poll()
    path.now += SECOND
    path.carries = 1300
    path.settle()
    assert path.tried[:4] == [JUMBO] * 3 + [ETHERNET] and 1300 - RESOLUTION < path.search.bytes <= 1300


def test_a_black_hole_that_comes_back_makes_the_search_wait_longer_and_longer():
    path = Path(ETHERNET)
    path.settle()
    waits = []
    for _ in range(16):
        path.fall()
        path.poll()
        before = path.now
        while path.step() is None:
            path.now += SECOND // 2
        waits.append((path.now - before) / SECOND)
        path.settle()
        assert path.search.bytes == ETHERNET
    assert waits == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600, 600, 600]


def test_ten_quiet_minutes_make_up_for_it():
    path = Path(ETHERNET)
    path.settle()
    path.fall()
    path.settle()
    path.now += TEN_MINUTES
    path.settle()
    path.fall()
    assert path.step() == ETHERNET


@pytest.mark.parametrize("refused", [1201, 1300, ETHERNET])
def test_a_path_falls_back_at_once_when_the_interface_refuses_its_packets(refused):
    path = Path(ETHERNET)
    path.settle()
    assert path.search.refused(refused, 100)
    assert (path.search.state, path.search.bytes) == ("base", 1200)
    assert not any(path.search.lost(n, 1472, 200) for n in range(100)), "they were refused, too"


@pytest.mark.parametrize("refused", [1, 68, 1199, 1200])
def test_a_path_never_falls_below_its_base_size(refused):
    path = Path(ETHERNET)
    path.settle()
    assert not path.search.refused(refused, 100)
    assert path.search.bytes == ETHERNET
    path.fall()
    assert not path.search.refused(refused, 200) and path.search.bytes == 1200
