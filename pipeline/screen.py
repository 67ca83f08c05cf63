"""What a person reads while the steps run: a line a step, a bar for a long one."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

from artefacts.colour import Style, painted
from artefacts.texts import printable
from artefacts.words import counted

__all__ = ["Progress", "Screen", "open_screen"]

WARNING = "warning: "
WORTH_SAYING_S = 10.0
Progress = Callable[[int, "int | None"], None]


class Screen:
    """Prints numbered steps; bars on a terminal, plain lines elsewhere."""

    def __init__(self, *, bars: bool, steps: int, quiet: bool = False) -> None:
        self.bars = bars
        self.quiet = quiet
        self.steps = steps
        self.step = 0
        self.warnings: list[str] = []
        self.started_s = time.time() - 1.0  # file times tick more coarsely than the clock

    def start(self, title: str) -> None:
        """Announce the next step."""
        self.step += 1
        self._print(f"[{self.step}/{self.steps}] {title}", style="bold")

    def add(self, *lines: str) -> None:
        """Add lines to the step that was announced; those that warn are kept."""
        for line in lines:
            warns = line.startswith(WARNING)
            if warns:
                self.warnings.append(line.removeprefix(WARNING))
            self._print(f"      {line}", style="yellow" if warns else None)

    def tell(self, lines: Sequence[str]) -> None:
        """Lines that belong to no step."""
        for line in lines:
            self._print(line)

    def warn(self, *lines: str) -> None:
        """Add warnings; they go to standard error, where a pipe does not swallow them."""
        for line in lines:
            self._print(f"      warning: {line}", sys.stderr)

    @contextmanager
    def bar(self, unit: str) -> Iterator[Progress]:
        """Yield ``progress(done, total)``: a bar on a terminal, a line every tenth elsewhere.

        Both say how much time is left, as measured so far.
        """
        if not self.bars:
            yield self._tenths(unit)
            return
        with tqdm(unit=f" {unit}", leave=False, file=sys.stderr, dynamic_ncols=True) as shown:

            def progress(done: int, total: int | None) -> None:
                if shown.total != total:  # at once, not when the next step is done
                    shown.total = total
                    shown.refresh()
                shown.update(done - shown.n)

            yield progress

    def _tenths(self, unit: str) -> Progress:
        last, started_s = 0, time.monotonic()

        def progress(done: int, total: int | None) -> None:
            nonlocal last
            tenth = done * 10 // total if total else 0
            if total and tenth > last:
                last = tenth
                left_s = (time.monotonic() - started_s) * (total - done) / done
                left = f", {_about(left_s)} left" if left_s >= WORTH_SAYING_S else ""
                self.add(f"{done} of {total} {unit}{left}")

        return progress

    def _print(
        self, line: str, stream: TextIO | None = None, *, style: Style | None = None
    ) -> None:
        if self.quiet:
            return
        to = stream or sys.stdout
        line = printable(line)  # it may quote files of others; what paints it is ours
        said = painted(line, style, to) if style else line
        if not self.bars:
            print(said, file=to, flush=True)
            return
        with tqdm.external_write_mode(file=to):  # a line stands above the bar, not in it
            print(said, file=to, flush=True)


def _about(duration_s: float) -> str:
    """``about 40 s``, ``about 3 minutes``: no finer than an estimate is."""
    if duration_s < 90:
        return f"about {round(duration_s, -1):.0f} s"
    return f"about {counted(round(duration_s / 60), 'minute')}"


def open_screen(*, steps: int, silent: bool, verbose: bool) -> Screen:
    """A command's screen: bars on a terminal, and warnings of libraries, or all of their log."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="      %(message)s"
    )
    return Screen(bars=sys.stderr.isatty() and not silent, steps=steps, quiet=silent)
