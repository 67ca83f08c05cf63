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

import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from artefacts.command import run_command
from artefacts.faults import writing
from artefacts.files import make_folder
from artefacts.litter import job_lock
from artefacts.runs import interruptible
from pipeline.flags import Job, parse_job
from pipeline.keywords import job_of
from pipeline.result import Result, result_of
from pipeline.screen import Screen
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
            _run_alone(job, screen)
    return result_of(job, since_s=screen.started_s)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 1 a gate missed, 2 bad input or environment."""

    def command() -> None:
        job = parse_job(argv)
        logging.basicConfig(
            level=logging.INFO if job.verbose else logging.WARNING, format="      %(message)s"
        )
        _run_alone(job, Screen(bars=sys.stderr.isatty(), steps=job.steps))

    debug = "--debug" in (sys.argv if argv is None else argv)
    interrupted = "interrupted; run the same command again to resume"
    return run_command(command, debug=debug, interrupted=interrupted)


def _run_alone(job: Job, screen: Screen) -> None:
    """Two builds of one engine write the same files: the second waits for the first."""
    make_folder(job.engine)
    alone = job_lock(job.engine, lambda: screen.add(f"waiting for another build of {job.engine}"))
    with ExitStack() as stack:
        with writing(job.engine):
            stack.enter_context(alone)
        run(job, screen)


if __name__ == "__main__":
    sys.exit(main())
