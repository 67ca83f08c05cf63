"""CUDA graphs: which shapes get one, when they go, and what a failed capture leaves: nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engines.cuda.driver import Cuda
from engines.tensorrt import graph_cache as graphs
from tests.host_driver.control import HostDriver
from tests.host_driver.plans import doubling, engine, profile, rows, runner


def test_a_shape_that_comes_again_is_captured_and_launched(
    rng: np.random.Generator, driver: HostDriver
) -> None:
    made = runner()
    for _ in range(5):
        x = rows(rng, 2)
        assert (made.run({"input": x}, copy=True)["output"] == 2 * x).all()
    assert (driver.counts().executables, driver.counts().launches) == (1, 3)
    assert driver.counts().graphs == 0  # what was captured is gone once it is executable
    made.close()


def test_batches_that_take_turns_are_captured(rng: np.random.Generator, driver: HostDriver) -> None:
    made = runner()
    made.run({"input": rows(rng, 8)}, copy=True)
    for _ in range(4):
        for batch in (8, 1):
            x = rows(rng, batch)
            assert (made.run({"input": x}, copy=True)["output"] == 2 * x).all()
    assert driver.counts().executables == 2
    assert driver.counts().launches >= 5
    made.close()


def test_more_shapes_than_graphs_do_not_push_each_other_out(
    rng: np.random.Generator, driver: HostDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    captures: list[int] = []
    capture = Cuda.capture
    monkeypatch.setattr(Cuda, "capture", lambda *g: (captures.append(1), capture(*g))[1])
    made = runner()
    for _ in range(3 * graphs.FADING):
        for batch in range(graphs.LIMIT + 2, 0, -1):
            made.run({"input": rows(rng, batch)}, copy=True)
    assert driver.counts().executables == graphs.LIMIT
    assert len(captures) == graphs.LIMIT
    # Traffic that changes for good gets its graph all the same.
    for _ in range(2 * graphs.FADING):
        made.run({"input": rows(rng, 1)}, copy=True)
    launches = driver.counts().launches
    made.run({"input": rows(rng, 1)}, copy=True)
    assert driver.counts().launches == launches + 1
    assert driver.counts().executables == graphs.LIMIT
    made.close()


def test_a_moved_buffer_makes_graphs_stale(rng: np.random.Generator, driver: HostDriver) -> None:
    made = runner()
    for _ in range(2):
        made.run({"input": rows(rng, 2)}, copy=True)
    assert driver.counts().executables == 1
    made.run({"input": rows(rng, 9)}, copy=True)
    assert driver.counts().executables == 0
    x = rows(rng, 2)
    assert (made.run({"input": x}, copy=True)["output"] == 2 * x).all()
    made.close()


@pytest.mark.parametrize(
    "function",
    ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"],
)
def test_a_plan_that_cannot_be_captured_still_runs(
    rng: np.random.Generator, driver: HostDriver, function: str
) -> None:
    made = runner()
    driver.fail(function, 900)
    for _ in range(4):
        x = rows(rng, 2)
        assert (made.run({"input": x}, copy=True)["output"] == 2 * x).all()
    assert driver.counts().launches == 0
    made.close()


def while_capturing(answer: Any) -> dict[str, Any]:
    """An execution that, the third time (which is recorded), does something else."""
    execute, times = doubling()["IExecutionContext.execute_async_v3"], []

    def enqueue(context: Any, stream: int) -> bool:
        times.append(1)
        if len(times) != 4:
            return bool(execute(context, stream))
        execute(context, stream)
        return bool(answer())

    return {"IExecutionContext__execute_async_v3": enqueue}


def test_an_execution_that_is_false_while_recorded(
    rng: np.random.Generator, driver: HostDriver
) -> None:
    made = runner(**while_capturing(lambda: False))
    for _ in range(4):
        x = rows(rng, 2)
        assert (made.run({"input": x}, copy=True)["output"] == 2 * x).all()
    assert (driver.counts().launches, driver.counts().graphs) == (0, 0)
    made.close()


def test_an_exception_while_recorded_ends_the_recording(rng: np.random.Generator) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    made = runner(**while_capturing(fail))
    made.run({"input": rows(rng, 2)}, copy=True)
    with pytest.raises(KeyboardInterrupt):
        made.run({"input": rows(rng, 2)}, copy=True)
    x = rows(rng, 2)
    assert (made.run({"input": x}, copy=True)["output"] == 2 * x).all()
    made.close()


def test_warm_up_captures_every_shape_of_the_profiles(
    rng: np.random.Generator, driver: HostDriver
) -> None:
    ranges = (profile(1, 4), profile(5, 64))
    with engine(runner(*ranges), *ranges) as made:
        made.warm_up()
        assert driver.counts().executables == 4
        launches = driver.counts().launches
        for batch in (1, 4, 5, 64):
            x = rows(rng, batch)
            assert (made({"input": x})["output"] == 2 * x).all()
        assert driver.counts().launches == launches + 4
