"""The command line: `interpeer COMMAND`.

`main` parses, runs one command, and turns whatever ends it into one line and an exit code: 0 done, 1 failed, 2 misuse,
130 interrupted. Each command is a module of `interpeer._cli.commands`; what it needs beyond the library it imports when it
runs. Nothing of this is loaded by `import interpeer`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from types import FrameType
from typing import Any

from interpeer._cli.errors import DONE, FAILED, INTERRUPTED, CommandError, explain
from interpeer._cli.output import LogHandler, Output
from interpeer._run import loop_factory
from interpeer._version import __version__
from interpeer.errors import InterpeerError

_QUIET_SIGNALS = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    _fill_standard_descriptors()
    words = list(sys.argv[1:] if arguments is None else arguments)
    output = Output(is_json="--json" in words)
    try:
        return _end(_dispatch, words, output)
    finally:
        _close_stdout()


def _dispatch(words: list[str], output: Output) -> int:
    if words == ["--version"]:  # without the grammar of all commands
        return _version(output)
    from interpeer._cli.parser import COMMANDS, LONG_RUNNING, command, parse

    for word in words[:1]:  # misuse is told where and how everything else would be
        output.data_on_stdout = word in COMMANDS and command(word).DATA_ON_STDOUT
        output.has_events = word in LONG_RUNNING
    options = parse(words)
    output.has_color = not getattr(options, "no_color", False) and not os.environ.get("NO_COLOR")
    _log_to(output, getattr(options, "verbose", 0))
    if options.version:
        return _version(output)
    if options.completion:
        from interpeer._cli.completion import script

        output.answer(script(options.completion).rstrip("\n"), script=script(options.completion))
        return DONE
    chosen = command(options.command)
    output.data_on_stdout = chosen.DATA_ON_STDOUT
    output.has_events = options.command in LONG_RUNNING
    return chosen.run(options, output)


def _version(output: Output) -> int:
    output.answer(f"interpeer {__version__}", version=__version__)
    return DONE


def _log_to(output: Output, verbosity: int) -> None:
    if verbosity:
        logger = logging.getLogger("interpeer")
        logger.addHandler(LogHandler(output))
        logger.setLevel(logging.INFO if verbosity == 1 else logging.DEBUG)


# --- how a command ends ---


def _end(run: Any, words: list[str], output: Output) -> int:
    """Run, and return an exit code whatever happens."""
    for number in _QUIET_SIGNALS:
        signal.signal(number, _interrupt)
    try:
        try:
            return int(run(words, output))
        except (BrokenPipeError, KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:
            if not isinstance(error, (CommandError, InterpeerError, OSError, ImportError)):
                logging.getLogger("interpeer").info("where it went wrong", exc_info=error)
            _tell(error, output)
            return error.exit_code if isinstance(error, CommandError) else FAILED
    except BrokenPipeError:  # whoever read standard output has gone away, which is no news to anybody
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as leaving:  # argparse's --help
        return leaving.code if isinstance(leaving.code, int) else DONE


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _tell(error: Exception, output: Output) -> None:
    message, reasons = explain(error)
    try:
        output.error(message, reasons)
    except BrokenPipeError:
        raise
    except OSError:  # the answer's place is what is full or broken: people are told in any case
        Output().error(message)


def _fill_standard_descriptors() -> None:
    """Open the null device where standard input, output or error is closed: else a socket gets its number, and our data."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _close_stdout() -> None:
    """Flush standard output; if that fails, let the interpreter not try again and complain."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def run_async(work: Coroutine[Any, Any, int]) -> int:
    """Run a command's coroutine on the fastest loop; the first signal cancels it, a second one ends the process."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_supervise(work))


async def _supervise(work: Coroutine[Any, Any, int]) -> int:
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    is_interrupted = False

    def interrupt() -> None:
        nonlocal is_interrupted
        if is_interrupted:
            os._exit(INTERRUPTED)
        is_interrupted = True
        task.cancel()

    try:
        for number in (signal.SIGINT, *_QUIET_SIGNALS):
            loop.add_signal_handler(number, interrupt)
    except NotImplementedError:  # Windows: Runner turns Ctrl-C into KeyboardInterrupt
        pass
    try:
        return await task
    except asyncio.CancelledError:
        if not is_interrupted:
            raise
        return INTERRUPTED
