"""The first two minutes on a GPU: what works there, and everything that was seen, in one JSON file.

    make gpu-smoke
    python3 -m tests.gpu.smoke out/gpu-smoke.json    # where TensorRT and PyCUDA are at hand

Each stage runs in a process of its own, so that one that crashes ends nothing else. No stage needs
pytest. The file is to be sent back: it can be kept as a fixture, for tests of what reads it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.gpu.smoke_machine import Seen
from tests.gpu.smoke_stages import STAGES, SkippedError

LIMIT_S = 600
KEPT_OUTPUT = 4000


def observe(command: list[str], answer: Path) -> Seen:
    """Run a stage in its own process; how it ended and what it saw, whatever happened to it."""
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=LIMIT_S,
            check=False,
            env=environment,
        )
        code, said = done.returncode, done.stdout
    except subprocess.TimeoutExpired as err:
        code, said = None, str(err.stdout or "")
    seen = json.loads(answer.read_text()) if answer.is_file() else {}
    outcome = {0: "passed", 3: "skipped", None: "timed out"}.get(code, "failed")
    if code is not None and code < 0:
        outcome = f"crashed: {signal.Signals(-code).name}"
    seconds = round(time.perf_counter() - start, 1)
    return {"outcome": outcome, "seconds": seconds, "seen": seen, "said": said[-KEPT_OUTPUT:]}


def run_stage(name: str, answer: Path) -> int:
    """In its own process: 0 passed, 3 skipped; a failure shows its trace."""
    stage = next(each for each in STAGES if each.__name__ == name)
    with tempfile.TemporaryDirectory() as folder:
        try:
            seen = stage(Path(folder))
        except SkippedError as err:
            print(err)  # noqa: T201 - the parent process reads it
            return 3
    answer.write_text(json.dumps(seen, default=str))
    return 0


def main(words: list[str]) -> int:
    """Run all stages, or those named; 0 where none failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.smoke", description=__doc__)
    parser.add_argument("json", type=Path, help="where to write what was seen")
    parser.add_argument("--only", nargs="+", choices=[stage.__name__ for stage in STAGES])
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.stage:
        return run_stage(given.stage, given.json)
    report: Seen = {}
    given.json.parent.mkdir(parents=True, exist_ok=True)
    for stage in STAGES:
        name = stage.__name__
        if given.only and name not in given.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder, "seen.json")
            command = [sys.executable, "-m", "tests.gpu.smoke", str(answer), "--stage", name]
            report[name] = observe(command, answer)
        last = report[name]["said"].strip().splitlines()[-1:]
        why = "" if report[name]["outcome"] == "passed" else f"  {' '.join(last)}"
        print(f"{name:18} {report[name]['outcome']} ({report[name]['seconds']} s){why}")  # noqa: T201
        given.json.write_text(json.dumps(report, indent=1))
    bad = [name for name, found in report.items() if found["outcome"] not in ("passed", "skipped")]
    print(f"\nsend back: {given.json} (all that was seen, also where all stages passed)")  # noqa: T201
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
