"""Progress and cancelling of a TensorRT build."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tqdm import tqdm

from engines.built import Report

__all__ = ["cancellable", "create_monitor", "show_progress"]


@contextmanager
def show_progress(what: str, *, wanted: bool) -> Iterator[Report]:
    """A bar over the builder's outermost phase, naming the innermost; only on a terminal."""
    hidden = not (wanted and sys.stderr.isatty())
    with tqdm(desc=what, unit=" steps", leave=False, disable=hidden) as bar:

        def report(phase: str, parent: str | None, done: int, total: int) -> None:
            if parent is None:
                bar.total = total
                bar.update(done - bar.n)
            else:
                bar.set_postfix_str(phase)

        yield report


def create_monitor(trt: Any, report: Report) -> Any | None:
    """An ``IProgressMonitor`` that reports and can be cancelled; ``None`` before TensorRT 9.

    Set ``.cancelled`` and the builder stops at its next step. An error in ``report`` also stops
    it, and waits in ``.error``: an exception must not cross the builder's C++ frames.
    """
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # base exists at run time only
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self.error: BaseException | None = None
            self.phases: dict[str, tuple[str | None, int]] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases[phase_name] = (parent_phase, num_steps)
            self.tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.tell(phase_name, step + 1)
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            # The last step of a phase is not announced by itself.
            self.tell(phase_name, self.phases[phase_name][1])
            del self.phases[phase_name]

        def tell(self, phase_name: str, done: int) -> None:
            parent, total = self.phases[phase_name]
            try:
                report(phase_name, parent, done, total)
            except BaseException as err:  # stored and raised again by ``cancellable``
                self.error = err
                self.cancelled = True

    return Monitor()


@contextmanager
def cancellable(monitor: Any | None) -> Iterator[None]:
    """Turn Ctrl-C during a build into cancelling it, then raise what stopped it.

    Python's own handler would raise inside a callback that C++ called. Signals can only be
    handled in the main thread; elsewhere, and without a monitor, nothing changes.
    """
    if monitor is None:
        yield
        return
    interrupted = False

    def cancel(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = monitor.cancelled = True

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, cancel) if in_main else None
    try:
        yield
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)
        if monitor.error is not None:
            raise monitor.error
        if interrupted:
            raise KeyboardInterrupt
