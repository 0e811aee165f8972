"""The cases of the QUIC interop runner: `python -m benchmarks interop`."""
