"""One target under the fuzzer, in a process of its own: python -m tests.fuzz.one TARGET OPTIONS-OF-LIBFUZZER..."""

import sys

import atheris

from tests.fuzz.targets import load


def main() -> None:
    with atheris.instrument_imports(include=["interpeer", "ipaddress", "numpy.lib", "tomllib"]):
        feed = load(sys.argv[1])
    atheris.Setup([sys.argv[0], *sys.argv[2:]], feed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
