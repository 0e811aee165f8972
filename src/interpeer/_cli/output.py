"""What a command prints, for people and for programs.

For people: the answer on standard output, everything else on standard error. For programs (`--json`): one object, or for
commands that run long one object a line with `event`; on standard output, or on standard error where standard output
carries data. A line is written at once. Text that came from a peer is printed without its control characters.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any, TextIO, TypeAlias, final

JsonObject: TypeAlias = dict[str, Any]  # what json.dumps takes


def printable(text: str) -> str:
    """Return text in which nothing moves a terminal's cursor, breaks the line, or cannot be encoded."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def size(count: float) -> str:
    """Return a number of bytes as people write it: "1.5 MB" (a MB is 10^6 bytes).

    >>> size(999), size(1_500_000)
    ('999 B', '1.5 MB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.3g} {unit}"


def duration(seconds: float) -> str:
    """Return a time as people write it.

    >>> duration(0.0123), duration(75), duration(7300)
    ('12 ms', '1:15', '2:01:40')
    """
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@final
class Output:
    """Print what a command has to say, in the way that was asked for."""

    def __init__(self, *, is_json: bool = False, data_on_stdout: bool = False, has_color: bool = True) -> None:
        self.is_json = is_json
        self.has_color = has_color
        self.data_on_stdout = data_on_stdout
        self.has_events = False
        """Whether every line of JSON has an `event`, the last one and errors included."""

    @property
    def is_live(self) -> bool:
        """Whether a person watches, so that a line may be rewritten: standard error is a terminal, and nothing else is there."""
        if self.is_json or sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            return False
        return not self.is_mixed

    @property
    def is_mixed(self) -> bool:
        """Whether data go to a terminal, so that everything else would stand in the middle of them."""
        return self.data_on_stdout and sys.stdout is not None and sys.stdout.isatty()

    def event(self, event: str, **facts: Any) -> None:
        """Tell a program that something happened; nothing is printed for people."""
        if self.is_json:
            self._json({"event": event, **facts})

    def say(self, text: str) -> None:
        """Tell people something beside the answer; nothing is printed for programs."""
        if not self.is_json:
            _write(sys.stderr, text)

    def answer(self, text: str, **facts: Any) -> None:
        """Print what the command was called for: the text for people, the facts for programs."""
        if self.is_json:
            self._json({"ok": True, **facts})
        else:
            _write(sys.stdout, text)

    def json_result(self, facts: JsonObject) -> None:
        """Print the one object of a command whose people have been told already."""
        if self.is_json:
            self._json(facts)

    def error(self, message: str, reasons: tuple[str, ...] = ()) -> None:
        """Say in one line why the command failed."""
        if self.is_json:
            head: JsonObject = {"event": "error"} if self.has_events else {}
            self._json({**head, "ok": False, "error": message, "reasons": list(reasons)})
        else:
            _write(sys.stderr, f"interpeer: {printable(message)}")

    def note(self, event: str, message: str, **facts: Any) -> None:
        """Say on standard error, whatever carries the answer, something that does not end the command."""
        if self.is_json:
            _write(sys.stderr, json.dumps({"event": event, **facts, "message": message}))
        else:
            _write(sys.stderr, message)

    def warn(self, message: str) -> None:
        """Say what does not end the command but should be known."""
        self.note("warning", message if self.is_json else f"interpeer: {printable(message)}")

    def _json(self, facts: JsonObject) -> None:
        _write(sys.stderr if self.data_on_stdout else sys.stdout, json.dumps(facts))


def _write(file: TextIO | None, text: str) -> None:
    """Write a line at once. What standard error does not take is nothing to die of; a closed standard output is
    BrokenPipeError. Raises OSError."""
    try:
        if file is None:
            raise BrokenPipeError
        file.write(text.encode(file.encoding, "backslashreplace").decode(file.encoding) + "\n")
        file.flush()
    except (OSError, ValueError) as error:
        if file is sys.stderr:
            return
        if isinstance(error, ValueError):  # closed by ourselves
            raise BrokenPipeError from None
        raise


@final
class LogHandler(logging.Handler):
    """Put the library's log on standard error, in the way that was asked for."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        text = "\n".join(printable(line) for line in self.format(record).splitlines())
        self._output.note("log", text, level=record.levelname.lower())
