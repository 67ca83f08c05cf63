#!/usr/bin/env python3
"""ONNX model and samples in; a measured INT8 engine out.

    from build_engine import build
    result = build("model.onnx", "out/model.int8.engine", calib_data="samples/", target="cpu")

Five steps: prepare, calibrate, quantize, build, verify. Each leaves a file beside the engine.
"""

from __future__ import annotations

import signal

if __name__ == "__main__":  # the imports take seconds: Ctrl-C ends them without a trace
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from artefacts.command import run_command
from artefacts.machine import print_every_character
from artefacts.runs import interruptible
from artefacts.texts import printable_json
from pipeline.flags import parse_job
from pipeline.keywords import job_of
from pipeline.result import Result, result_of, summary_json
from pipeline.screen import Screen, open_screen
from pipeline.steps import run

__all__ = ["Result", "build", "main"]


def build(onnx: str | Path, engine: str | Path, *, show: bool = False, **options: Any) -> Result:
    """Build a measured engine: all that the command does, with the same defaults.

    Args:
        onnx: the model.
        engine: the engine to write; artefacts lie beside it.
        show: print what the command prints.
        options: every flag of the command by its name with underscores, ``max_drop=0.5``. Samples
            (``calib_data``, ``eval_data``) may be paths, an array (N, ...), a dict of arrays with
            one row a sample, an iterable of dicts or a function that gives one; ``preprocess`` a
            path, a dict or a ``calibrators.Preprocess``.

    Returns:
        The engine, its files, placement, accuracy and promise; ``result.load()`` runs it.

    Raises:
        InputError: an option is unknown or does not fit.
        GateMissedError: a promise is missed, or the engine differs from its graph; files stay.
        BuilderError: whatever else the user can mend, in one sentence.
    """
    with job_of(onnx, engine, options) as job:
        screen = Screen(bars=show and sys.stderr.isatty(), steps=job.steps, quiet=not show)
        with interruptible():
            run(job, screen)
    return result_of(job.paths, since_s=screen.started_s)


def main(argv: Sequence[str] | None = None, prog: str = "build_engine.py") -> int:
    """Run the command; 0 done, 1 a gate missed, 2 bad input or environment."""
    print_every_character()
    words = list(sys.argv[1:] if argv is None else argv)
    job, screen = None, None

    def command() -> None:
        nonlocal job, screen
        job = parse_job(words, prog)
        silent = job.show.quiet or job.show.json
        screen = open_screen(steps=job.steps, silent=silent, verbose=job.show.verbose)
        run(job, screen)

    def tell(code: int, error: str | None) -> None:
        if "--json" in words:
            print(printable_json(summary_json(job, screen, code, error)))

    interrupted = "interrupted; run the same command again to resume"
    return run_command(command, debug="--debug" in words, interrupted=interrupted, ended=tell)


if __name__ == "__main__":
    sys.exit(main())
