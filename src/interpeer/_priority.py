"""How urgent streams and channels are."""

MOST_URGENT, LEAST_URGENT = 3, -4


def check_priority(priority: int) -> None:
    """Raise ValueError for a priority that there is not."""
    if not LEAST_URGENT <= priority <= MOST_URGENT:
        raise ValueError(f"a priority is from {LEAST_URGENT} (least urgent) to {MOST_URGENT}, not {priority}")
