"""How a command ends other than well, and with which exit code."""

from __future__ import annotations

from interpeer.errors import InterpeerError, Unreachable

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


class CommandError(Exception):
    """Say in one line what failed and what to do; `reasons` has a line for each way that was tried."""

    exit_code = FAILED

    def __init__(self, message: str, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.reasons = reasons


class Misuse(CommandError):
    """Say in one line what cannot be meant: a wrong option, ticket, setting."""

    exit_code = MISUSED


def explain(error: BaseException) -> tuple[str, tuple[str, ...]]:
    """Return in one line what went wrong, and the reasons, if there are several."""
    if isinstance(error, CommandError):
        return str(error), error.reasons
    if isinstance(error, Unreachable):
        return str(error), error.reasons
    if isinstance(error, OSError) and not isinstance(error, InterpeerError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror, ()
    if isinstance(error, (InterpeerError, OSError, ImportError)) and str(error):
        return str(error), ()
    return f"this is a defect of interpeer, please report it: {type(error).__name__}: {error} (-v shows where)", ()
