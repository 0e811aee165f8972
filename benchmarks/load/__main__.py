"""python -m benchmarks.load [NAME ...] [--quick] [--rounds N] [--json]"""

import argparse
import json
import sys

from benchmarks.load import loads, measure
from benchmarks.table import Scale
from interpeer._bench.end import Facts
from interpeer._bench.figures import LoadBroken
from interpeer._bench.process import EndFailed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description="Measure single loads on this machine.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; default: all but the long ones. --list names them")
    parser.add_argument("--list", action="store_true", help="name the loads that there are")
    parser.add_argument("--quick", action="store_true", help="shorter runs")
    parser.add_argument("--rounds", type=int, help="take the median of as many runs (default: 5, quick 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each load")
    asked = parser.parse_args(arguments)
    if asked.rounds is not None and asked.rounds < 1:
        parser.error("--rounds is at least 1")
    scale = Scale.of(is_quick=asked.quick, rounds=asked.rounds)
    there_are = loads(scale)
    if unknown := set(asked.names) - set(there_are):
        parser.error(f"no load {', '.join(sorted(unknown))}; there are {', '.join(there_are)}")
    if asked.list:
        print("\n".join(there_are))
        return 0
    code = 0
    for name in asked.names or [name for name, load in there_are.items() if not load.only_once]:
        facts: Facts = {"load": name}
        try:
            facts |= measure(there_are[name], scale)
        except (EndFailed, LoadBroken, OSError) as error:
            facts["left_out"] = str(error)
            code = 1
        print(json.dumps(facts) if asked.json else "  ".join(f"{key} {value}" for key, value in facts.items()), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
