"""The loads of interpeer, and what it is compared with, one at a time: two processes on loopback, started anew for each run.

The loads themselves are in `interpeer._bench`, since `interpeer bench` has a part of them, too; the table of
`python -m benchmarks` runs all of them in turn. `benchmarks/README.md` says what each figure means.
"""

from benchmarks.table import Load, Scale, own_loads
from interpeer._bench.end import Facts
from interpeer._bench.figures import median_of


def loads(scale: Scale) -> dict[str, Load]:
    """Return every load by its name; those that this system cannot measure are missing."""
    return {load.name: load for load in own_loads(scale)}


def measure(load: Load, scale: Scale) -> Facts:
    """Return the median figures of a load over the runs of a scale. Raises EndFailed or LoadBroken."""
    runs = [load.run() for _ in range(1 if load.only_once else scale.rounds)]
    named = {key: value for key, value in runs[0].items() if isinstance(value, str)}
    return named | median_of([{key: value for key, value in run.items() if key not in named} for run in runs])
