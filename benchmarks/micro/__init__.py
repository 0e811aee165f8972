"""What single operations of the core cost: `python -m pytest benchmarks/micro`, by pytest-benchmark.

What takes nanoseconds is done many times in one call (`interpeer._core.probe_loops`); the time of one operation is then
`ns_each` in the extra information. Compare runs of one machine with `--benchmark-autosave` and `--benchmark-compare`: names
of benchmarks do not change.
"""
