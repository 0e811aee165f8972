"""Run the command line: `python -m interpeer`."""

from interpeer._cli import main

if __name__ == "__main__":
    raise SystemExit(main())
