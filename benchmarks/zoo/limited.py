"""A command in a process of its own, with limits on time and memory."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.machine.peak_memory import peak_bytes

__all__ = ["Ended", "run_limited"]

_LOOK_S = 0.1
_WAITING = 4  # seconds on the clock for each of the processor, on a busy machine


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; negative for a signal.
        stopped: which limit ended it, if any.
        seconds: that it took.
        peak_bytes: largest resident memory that was seen.
        errors: what it wrote to stderr.
    """

    code: int
    stopped: Literal["", "time", "memory"]
    seconds: float
    peak_bytes: int
    errors: str


def run_limited(
    command: Sequence[str | Path],
    *,
    folder: Path,
    limit_s: float,
    limit_bytes: int,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run a command in a folder until it ends or a limit ends it.

    Memory is resident memory: runtimes reserve addresses that they never touch, so a limit on
    addresses would refuse what fits. Time is the processor's, so that a busy machine refuses no
    more than an idle one; four times as long on the clock ends what waits for something.

    Args:
        command: program and arguments.
        folder: where it runs.
        limit_s: processor seconds that it may take.
        limit_bytes: memory that it may hold.
        environment: variables on top of those of this process.
    """
    start, peak, stopped = time.monotonic(), 0, ""
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            env=os.environ | (environment or {}),
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        allowed = int(limit_s) + 1
        resource.prlimit(process.pid, resource.RLIMIT_CPU, (allowed, allowed + 5))
        while process.poll() is None:
            time.sleep(_LOOK_S)
            peak = max(peak, peak_bytes(process=str(process.pid)))
            late = time.monotonic() - start > _WAITING * limit_s
            if late or peak > limit_bytes:
                stopped = "time" if late else "memory"
                process.kill()
                process.wait()
        if process.returncode == -signal.SIGXCPU:
            stopped = "time"
        errors.seek(0)
        return Ended(
            code=process.returncode,
            stopped=stopped,  # type: ignore[arg-type]
            seconds=time.monotonic() - start,
            peak_bytes=peak,
            errors=errors.read(),
        )
