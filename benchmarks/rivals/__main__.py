"""python -m benchmarks.rivals [RIVAL ...] [--load LOAD] [--seconds S] [--runs N] [--json]"""

import argparse
import json
from typing import Any

from benchmarks.rivals import RIVALS, RUNS, compare
from interpeer._bench.end import Facts
from interpeer._bench.loads import PARTS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals", description="Measure the rivals on this machine.")
    parser.add_argument("rivals", nargs="*", metavar="RIVAL", help=f"one or more of {', '.join(RIVALS)}; default: all")
    parser.add_argument("--load", action="append", choices=PARTS, help="may be repeated; default: all")
    parser.add_argument("--seconds", type=float, default=2.0, help="of every part of a load (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=RUNS, help="take the median of as many (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each rival and load")
    options = parser.parse_args()
    if unknown := set(options.rivals) - set(RIVALS):
        parser.error(f"no rival {', '.join(sorted(unknown))}; there are {', '.join(RIVALS)}")
    for load in options.load or PARTS:
        for result in compare(options.rivals or RIVALS, load, options.seconds, options.runs):
            print(json.dumps(result) if options.json else _line(result), flush=True)


def _line(result: Facts) -> str:
    head = f"{result['rival']:16}{result['load']:11}"
    if "left_out" in result:
        return f"{head} left out: {result['left_out']}"
    keys = [key for key in result if key not in ("rival", "load", "version", "seconds", "spread", "runs")]
    return head + "  ".join(f"{key} {_number(result[key])}" for key in keys)


def _number(value: Any) -> str:
    return " + ".join(f"{half:.4g}" for half in value) if isinstance(value, list) else f"{value:.4g}"


if __name__ == "__main__":
    main()
