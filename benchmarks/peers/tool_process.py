"""A tool in a process of its own: what it costs, and where it is ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ToolRun", "run_tool"]

# Between this process and the tool, because a child counts its parent's memory as its own peak.
_BETWEEN = """
import json, os, resource, sys
limit, report, *command = sys.argv[1:]
cores = sorted(os.sched_getaffinity(0))
os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})
resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit)))
_, status, used = os.wait4(os.posix_spawn(command[0], command, os.environ), 0)
with open(report, "w") as file:
    json.dump(
        {
            "code": os.waitstatus_to_exitcode(status),
            "processor_s": used.ru_utime + used.ru_stime,
            "peak_mb": used.ru_maxrss / 1024,
        },
        file,
    )
"""
_LONGEST = 160  # of a reason, which stands in a table's cell
_PROGRESS = ("it/s", "s/it", "%|")  # of bars, which say nothing of a failure


@dataclass(frozen=True, kw_only=True)
class ToolRun:
    """What a tool took.

    Attributes:
        seconds: from its start to its end, loading its libraries included.
        processor_s: of it and of its children, on one core.
        peak_mb: the largest resident memory of one of them.
        failure: why there is no result; empty where it ended well.
        output: what it printed last.
    """

    seconds: float
    processor_s: float
    peak_mb: float
    failure: str = ""
    output: str = ""


def run_tool(
    command: Sequence[object], *, environment: Mapping[str, str], limit_processor_s: int
) -> ToolRun:
    """Run a command on one core until it ends or has used its processor seconds.

    One core, because threads that wait for each other use processor seconds, too, and more of
    them on a busy machine; and processor seconds, because those of the clock are the machine's.

    Args:
        command: a program and its arguments, with absolute paths: it runs in an empty folder.
        environment: beside this process's own.
        limit_processor_s: of each of its processes.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report, said = Path(folder) / "report.json", Path(folder) / "said.txt"
        between = [sys.executable, "-c", _BETWEEN, str(limit_processor_s), str(report)]
        with said.open("wb") as file:
            subprocess.run(
                [*between, *(str(word) for word in command)],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=folder,  # some tools leave files where they run
                check=True,
            )
        found = json.loads(report.read_text())
        output = said.read_text(errors="replace").replace("\r", "\n")
    return ToolRun(
        seconds=time.perf_counter() - start,
        processor_s=found["processor_s"],
        peak_mb=found["peak_mb"],
        failure=_failure(found["code"], output, limit_processor_s),
        output=output[-2000:],
    )


def _failure(code: int, output: str, limit_processor_s: int) -> str:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):  # the second where the first is not heeded
        return f"over {limit_processor_s} processor s"
    if code == 0:
        return ""
    lines = [line.strip() for line in output.splitlines()]
    told = [line for line in lines if line and not any(mark in line for mark in _PROGRESS)]
    return textwrap.shorten(told[-1], _LONGEST) if told else f"exit code {code}"
