"""The end of every command: done, one sentence, or interrupted; never a trace unless asked for."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from artefacts.colour import painted
from artefacts.errors import BuilderError
from artefacts.runs import interruptible
from artefacts.texts import bounded, printable, shortened

__all__ = ["dying_of_interrupts", "run_command", "say"]

INTERRUPTED = 130  # as shells report a SIGINT
CLOSED_PIPE = 141  # likewise SIGPIPE


def run_command(
    step: Callable[[], int | None],
    *,
    debug: bool,
    interrupted: str = "interrupted",
    ended: Callable[[int, str | None], None] | None = None,
) -> int:
    """Run a command and say how it ended.

    Args:
        step: the command; its exit code, or None for 0.
        debug: show the trace of an error.
        interrupted: what to say after Ctrl-C.
        ended: told the exit code and the sentence of the error, if any, unless interrupted.

    Returns:
        The exit code: 1 a gate missed, 2 bad input, environment or a fault of this program.
    """
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # while libraries were imported
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interruptible():
            code, error = _run(step, debug=debug)
            if ended is not None:
                last, _ = _run(lambda: ended(code, error), debug=debug)
                code = code or last
            return code
    except KeyboardInterrupt:
        sys.stderr.write(f"{interrupted}\n")
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has read enough; nothing is left to flush to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE


def _run(step: Callable[[], int | None], *, debug: bool) -> tuple[int, str | None]:
    """The exit code, and the sentence that was printed where there was an error."""
    try:
        return step() or 0, None
    except BrokenPipeError:
        raise
    except Exception as err:
        if debug:
            traceback.print_exc()
        sentence = printable(bounded(_sentence(err)))
        sys.stderr.write(f"{painted('error:', 'red', sys.stderr)} {sentence}\n")
        return (err.exit_code if isinstance(err, BuilderError) else 2), sentence


@contextmanager
def dying_of_interrupts() -> Iterator[None]:
    """Within it, Ctrl-C ends the process: importing libraries takes seconds, and traces name them.

    Where somebody else listens for it, nothing changes.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def say(text: str) -> None:
    """Print lines that may quote files of others."""
    sys.stdout.write(f"{printable(text)}\n")


def _sentence(err: Exception) -> str:
    if isinstance(err, BuilderError):
        return str(err)
    if isinstance(err, MemoryError):
        return (
            "memory is exhausted, expected room for the model and its samples; use fewer samples, "
            "a smaller batch or another machine"
        )
    if isinstance(err, OSError):
        where = f"{err.filename}: " if err.filename else ""
        return (
            f"the system refused ({where}{err.strerror or err}), expected files and folders that "
            "may be read and written; check them, or make room"
        )
    return (
        f"this program has a fault ({type(err).__name__}: {shortened(str(err))}), expected none; "
        "run it again with --debug and report what it says"
    )
