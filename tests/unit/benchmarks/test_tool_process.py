"""A tool in a process of its own: what it costs, and why it has no result."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.peers.tool_process import ToolRun, run_tool


def python(program: str, limit_processor_s: int = 60, **environment: str) -> ToolRun:
    return run_tool(
        [sys.executable, "-c", program],
        environment=environment,
        limit_processor_s=limit_processor_s,
    )


def test_memory_is_the_processs_own() -> None:
    small = python("pass")
    large = python("held = b'1' * (64 << 20)")
    assert not small.failure
    assert not large.failure
    assert 48 < large.peak_mb - small.peak_mb < 96


def test_processor_seconds_are_not_those_of_the_clock() -> None:
    run = python("import time; time.sleep(0.3)")
    assert run.processor_s < run.seconds


def test_a_tool_has_one_core() -> None:
    assert python("import os; print(len(os.sched_getaffinity(0)))").output.split() == ["1"]


def test_what_it_is_told_comes_in() -> None:
    assert python("import os; print(os.environ['TOLD'])", TOLD="this").output.strip() == "this"


def test_what_a_tool_leaves_where_it_runs_goes_with_it() -> None:
    run = python("import os; open('left.csv', 'w'); print(os.path.abspath('left.csv'))")
    assert run.output.strip().endswith("left.csv")
    assert not Path(run.output.strip()).exists()


def test_a_tool_ends_at_its_processor_seconds() -> None:
    run = python("while True: pass", limit_processor_s=1)
    assert run.failure == "over 1 processor s"
    assert 0.5 < run.processor_s < 2


def test_a_failure_is_what_was_said_last_and_no_bar() -> None:
    run = python("print('50%|##  | 1/2'); raise ValueError('no shape')")
    assert run.failure == "ValueError: no shape"
    bar = "import sys; sys.stderr.write('ValueError: no\\n10%|# | 1/9 3.2it/s'); sys.exit(1)"
    assert python(bar).failure == "ValueError: no"


def test_a_silent_failure_has_its_code() -> None:
    assert python("import os; os._exit(7)").failure == "exit code 7"
