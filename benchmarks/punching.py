"""Count how often two punching machines find each other, and how long it takes, between NATs in simulated time.

    python -m benchmarks punching                   every pair of kinds that needs more than a plain punch, 200 seeds each
    python -m benchmarks punching --seeds 1000 --json

The machines are those of production; NATs and links are the small model of the machine's tests (tests/models/punching.py). Twenty
flows a second of others go through each NAT. Links: 15 ms one way to each side without loss, and 37.5 ms with 5 % loss.
"""

from __future__ import annotations

import json
import statistics
import sys

from benchmarks import command
from tests.models.punching import attempt

PAIRS = (
    ("port", "port"),
    ("linux", "linux"),
    ("symmetric-seq", "port"),
    ("symmetric-seq", "linux"),
    ("symmetric-block", "port"),
    ("symmetric", "port"),
    ("symmetric", "port-random"),
    ("symmetric-ad", "port"),
    ("symmetric", "linux"),
    ("symmetric-block", "symmetric-block"),
)
EXPERIMENTS = (("symmetric-block", "symmetric-block"),)
"""Pairs that nodes do not try unless both are told to."""
LINKS = ((0.015, 0.0), (0.0375, 0.05))
WITHIN_S = 3.0
GOAL = 0.99


def main(arguments: list[str]) -> int:
    parser = command.parser("punching", __doc__)
    parser.add_argument("--seeds", type=int, default=200, help="attempts of each pair, half of them in each order (default: 200)")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each row")
    asked = parser.parse_args(arguments)
    for pair in PAIRS:
        for delay_s, loss in LINKS:
            row = measure(pair, asked.seeds, delay_s, loss)
            if asked.json:
                print(json.dumps(row), flush=True)
            else:
                print(
                    f"{' x '.join(pair):28} rtt {row['rtt_ms']:3.0f} ms loss {loss:4.0%}  direct within {WITHIN_S:.0f} s"
                    f" {row['within']:7.2%}  median {row['median_s']:.2f} s  most {row['most_s']:.2f} s"
                    f"  probes {row['probes']:5.0f}  {'reached' if row['within'] >= GOAL else 'short'}",
                    flush=True,
                )
    return 0


def measure(pair: tuple[str, str], seeds: int, delay_s: float, loss: float) -> dict[str, object]:
    """Let a pair try with many seeds, half of them the other way round."""
    outcomes = [
        attempt(
            (pair[seed % 2], pair[1 - seed % 2]), seed,
            delay_s=delay_s, loss=loss, flows_per_s=20.0, is_experimental=pair in EXPERIMENTS,
        )
        for seed in range(seeds)
    ]  # fmt: skip
    times = [outcome.seconds for outcome in outcomes if outcome.is_direct]
    return {
        "pair": pair,
        "rtt_ms": 4000 * delay_s,
        "loss": loss,
        "within": sum(seconds <= WITHIN_S for seconds in times) / seeds,
        "median_s": statistics.median(times),
        "most_s": max(times),
        "probes": statistics.mean(outcome.a.probes + outcome.b.probes for outcome in outcomes),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
