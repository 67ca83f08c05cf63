"""Runs of onnxruntime that Ctrl-C stops, and that do not last for ever.

Python hears of a signal only between its own instructions, and an endless Loop in a model never
comes back to them. So a thread listens to what the system writes on a signal, and tells the runs.
"""

from __future__ import annotations

import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from artefacts.errors import ModelError
from artefacts.libraries import require

__all__ = ["LONGEST_S", "interruptible", "stoppable"]

LONGEST_S = 3600.0  # of one run, on one sample or batch
_TICK_S = 1.0

_lock = threading.Lock()
_running: dict[int, tuple[Any, float]] = {}  # its options, and when it is over at the latest
_stopped = threading.Event()


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it, Ctrl-C ends runs; where somebody else listens for signals, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    listening, written = socket.socketpair()
    written.setblocking(False)
    others = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    if others != -1:
        signal.set_wakeup_fd(others)
    _stopped.clear()
    thread = threading.Thread(target=_listen, args=(listening,), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        if others == -1:
            signal.set_wakeup_fd(-1)
        written.close()  # which the thread hears
        thread.join()
        listening.close()


@contextmanager
def stoppable(limit_s: float = LONGEST_S) -> Iterator[Any]:
    """Yield onnxruntime's options for one run, which Ctrl-C or the limit stop.

    Raises:
        ModelError: it was still running after ``limit_s``.
    """
    options = require("onnxruntime", extra="cpu").RunOptions()
    end_s = time.monotonic() + limit_s
    options.terminate = _stopped.is_set()
    with _lock:
        _running[id(options)] = (options, end_s)
    try:
        yield options
    finally:
        with _lock:
            del _running[id(options)]
        if options.terminate and not _stopped.is_set():
            raise ModelError(
                f"model was still running after {limit_s:g} s on one sample, expected an end; does "
                "a Loop of it ever stop?"
            )


def _listen(listening: socket.socket) -> None:
    while True:
        ready = select.select([listening], [], [], _TICK_S)[0]
        heard = listening.recv(64) if ready else b"-"
        if not heard:
            return
        if signal.SIGINT in heard:
            _stopped.set()
        with _lock:
            for options, end_s in _running.values():
                if _stopped.is_set() or time.monotonic() > end_s:
                    options.terminate = True
