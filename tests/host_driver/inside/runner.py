"""The TensorRT runner: right answers, shapes, profiles, errors that leave it usable, its times."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import tensorrt as trt

from artefacts.errors import EngineError, RequestError, UnsupportedError
from engines.cuda.buffers import Buffers
from engines.cuda.driver import Cuda
from engines.tensorrt.graph_cache import SIGHTS
from tests.host_driver.control import OUT_OF_MEMORY, HostDriver
from tests.host_driver.plans import doubling, engine, profile, rows, runner


def test_right_answers_for_changing_batches(rng: np.random.Generator) -> None:
    with engine(runner()) as made:
        for batch in (3, 1, 8, 8, 8, 2, 2, 2, 8, 64):
            x = rows(rng, batch)
            assert (made({"input": x})["output"] == 2 * x).all()


def test_buffers_are_kept_between_calls(rng: np.random.Generator, driver: HostDriver) -> None:
    made = runner()
    made.run({"input": rows(rng, 8)}, copy=True)
    before = driver.counts()
    assert before.device_memory == 3  # input, output, and the memory for activations
    for batch in (1, 8, 3):
        made.run({"input": rows(rng, batch)}, copy=True)
        assert driver.counts().device_memory == before.device_memory
        assert driver.counts().pinned_memory == before.pinned_memory
    made.close()


def test_outputs_are_copies_unless_asked(rng: np.random.Generator) -> None:
    made = runner()
    first, second = rows(rng, 2), rows(rng, 2)
    kept = made.run({"input": first}, copy=True)["output"]
    lent = made.run({"input": first}, copy=False)["output"]
    made.run({"input": second}, copy=True)
    assert (kept == 2 * first).all()
    assert (lent == 2 * second).all()
    made.close()


def test_a_lent_array_outlives_the_engine(rng: np.random.Generator, driver: HostDriver) -> None:
    made = runner()
    x = rows(rng, 2)
    lent = made.run({"input": x}, copy=False)["output"]
    made.run({"input": rows(rng, 9)}, copy=False)  # grows into other memory
    made.close()
    assert (lent == 2 * x).all()
    assert driver.counts().pinned_memory == 1


@pytest.mark.parametrize("function", ["cuMemAlloc_v2", "cuMemHostAlloc"])
@pytest.mark.parametrize("call", [1, 2])
def test_no_memory_is_an_error_and_the_engine_goes_on(
    rng: np.random.Generator, driver: HostDriver, function: str, call: int
) -> None:
    made = engine(runner())
    x = rows(rng, 2)
    for _ in range(3):  # the third one from a graph
        made({"input": x})
    times = 2 if function == "cuMemAlloc_v2" else 1  # PyCUDA collects and tries once more
    driver.fail(function, OUT_OF_MEMORY, call=call, times=times)
    with pytest.raises(UnsupportedError, match=r"free, expected 800|no memory left to lock"):
        made({"input": rows(rng, 50)})
    for batch in (2, 50, 50, 50, 2, 2, 2):
        x = rows(rng, batch)
        assert (made({"input": x})["output"] == 2 * x).all()
    made.close()


def test_a_growth_that_fails_leaves_no_graph_of_freed_memory(
    rng: np.random.Generator, driver: HostDriver
) -> None:
    made = runner()
    x = rows(rng, 2)
    for _ in range(3):
        made.run({"input": x}, copy=True)
    assert driver.counts().executables == 1
    driver.fail("cuMemAlloc_v2", OUT_OF_MEMORY, times=2)
    with pytest.raises(UnsupportedError):
        made.run({"input": rows(rng, 50)}, copy=True)
    assert driver.counts().executables == 0
    assert (made.run({"input": x}, copy=True)["output"] == 2 * x).all()
    made.close()


def test_a_failed_execution_is_an_error_and_the_engine_goes_on(rng: np.random.Generator) -> None:
    fails = [True]
    execute = doubling()["IExecutionContext.execute_async_v3"]
    made = runner(IExecutionContext__execute_async_v3=lambda c, s: not fails and execute(c, s))
    x = rows(rng, 2)
    with pytest.raises(UnsupportedError, match="the execution failed on GPU 0"):
        made.run({"input": x}, copy=True)
    fails.clear()
    assert (made.run({"input": x}, copy=True)["output"] == 2 * x).all()
    made.close()


def no_dimensions(context: Any, name: str) -> Any:
    """TensorRT's answer where no shape follows: the length of this one is -1."""

    class Dims:
        def __len__(self) -> int:
            return -1

        def __getitem__(self, index: int) -> int:
            raise IndexError

    return Dims()


def test_shapes_that_the_plan_refuses(rng: np.random.Generator) -> None:
    request = {"input": rows(rng, 2)}
    cases: tuple[tuple[str, Any, type[Exception], str], ...] = (
        ("set_input_shape", False, RequestError, r"shape \(2, 4\), which the plan refuses"),
        (
            "get_tensor_shape",
            no_dimensions,
            RequestError,
            "do not fit each other .*'output'",
        ),
        (
            "get_tensor_shape",
            lambda c, n: (-1, 4),
            RequestError,
            r"'output' has shape \(-1, 4\) .*or end the model before a node whose size depends",
        ),
        ("set_tensor_address", False, UnsupportedError, "address of tensor 'input' is refused"),
        ("set_optimization_profile_async", False, UnsupportedError, "profile 0 is refused"),
    )
    for method, answer, error, said in cases:
        made = runner(**{f"IExecutionContext__{method}": answer})
        with pytest.raises(error, match=said):
            made.run(request, copy=True)
        made.close()


def test_infer_shapes_is_never_called(rng: np.random.Generator) -> None:
    made = runner()
    made.run({"input": rows(rng, 2)}, copy=True)
    touched = made._plan.trt.touched
    assert "IExecutionContext.get_tensor_shape" in touched
    assert "IExecutionContext.infer_shapes" not in touched
    made.close()


def test_the_profile_follows_the_shapes(rng: np.random.Generator) -> None:
    chosen: list[int] = []
    made = runner(
        profile(1, 4),
        profile(5, 64),
        IExecutionContext__set_optimization_profile_async=lambda c, i, s: (
            chosen.append(i) or c.values.update(active_optimization_profile=i) or True
        ),
    )
    for batch in (2, 3, 9, 60, 1):
        made.run({"input": rows(rng, batch)}, copy=True)
    assert chosen == [0, 1, 0]
    made.close()


def test_clones_share_the_plan_and_free_it_last(rng: np.random.Generator) -> None:
    freed: list[str] = []

    class Kept:
        def __del__(self) -> None:
            freed.append("engine")

    first = runner()
    first._plan._engine.values["kept"] = Kept()
    second = first.clone()
    first.close()
    gc.collect()
    assert freed == []
    x = rows(rng, 2)
    assert (second.run({"input": x}, copy=True)["output"] == 2 * x).all()
    second.close()
    gc.collect()
    assert freed == ["engine"]


def test_bytes_that_the_runtime_refuses_leave_nothing() -> None:
    with pytest.raises(EngineError, match=r"refused by TensorRT.* \(TensorRT gives no reason\)"):
        runner(Runtime__deserialize_cuda_engine=lambda r, data: None)


def test_no_context_leaves_nothing() -> None:
    old = not hasattr(trt, "ExecutionContextAllocationStrategy")
    method = f"create_execution_context{'_without_device_memory' if old else ''}"
    with pytest.raises(UnsupportedError, match="no execution context can be made"):
        runner(**{f"ICudaEngine__{method}": lambda e, *strategy: None})


def test_sizes_that_the_host_must_know_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="'input' holds sizes that the host must know"):
        runner(ICudaEngine__get_tensor_location=trt.TensorLocation.HOST)


def test_all_contexts_of_a_runner_share_one_block(
    rng: np.random.Generator, driver: HostDriver
) -> None:
    made = runner()
    for batch in (64, 8, 2, 1):
        for _ in range(SIGHTS + 1):
            x = rows(rng, batch)
            assert (made.run({"input": x}, copy=True)["output"] == 2 * x).all()
    assert driver.counts().executables == 4
    assert driver.counts().device_memory == 3
    made.close()


def test_device_times_follow_the_stages(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, driver: HostDriver
) -> None:
    """Events lie between copy in, execution and copy out; a graph is used where there is one."""
    done: list[str] = []
    for owner, name in ((Cuda, "copy_in"), (Cuda, "copy_out"), (Buffers, "stage")):
        real = getattr(owner, name)

        def spy(*given: Any, name: str = name, real: Any = real) -> Any:
            done.append(name)
            return real(*given)

        monkeypatch.setattr(owner, name, spy)
    made = engine(runner())
    x = rows(rng, 3)
    # What the host copies into pinned memory lies before the first event: it is no transfer.
    expected = ["stage", "copy_in", "copy_out"]
    times = made.device_times({"input": x})
    assert done == expected
    assert list(times) == ["h2d_ms", "compute_ms", "d2h_ms"]
    assert all(value >= 0 for value in times.values())
    for _ in range(SIGHTS + 1):
        made({"input": x})
    launches = driver.counts().launches
    made.device_times({"input": x})
    assert done[-3:] == expected
    assert driver.counts().launches == launches + 1
    assert driver.counts().events == 0
    assert (made({"input": x})["output"] == 2 * x).all()
    made.close()


def test_layer_times_leave_the_engine_as_it_was(rng: np.random.Generator) -> None:
    profilers: list[int] = []
    execute = doubling()["IExecutionContext.execute_async_v3"]

    def report(context: Any, stream: int) -> bool:
        if "profiler" in context.values:
            profilers.append(id(context))
            for name, ms in (("first", 0.5), ("second + third", len(profilers))):
                context.values["profiler"].report_layer_time(name, ms)
        return bool(execute(context, stream))

    made = engine(runner(IExecutionContext__execute_async_v3=report))
    x = rows(rng, 3)
    first, second = made.layer_times({"input": x})
    assert (first.name, first.time_ms) == ("first", 0.5)
    assert second.nodes == ("second", "third")
    assert second.time_ms == 3 + 15.5  # the median of runs 4 to 33: three warm up
    assert len(profilers) == 33
    assert (made({"input": x})["output"] == 2 * x).all()
    assert len(profilers) == 33
    with pytest.raises(RequestError, match="has shape"):
        made.layer_times({"input": x[:, :2]})
    made.close()
    with pytest.raises(RequestError, match="engine is closed"):
        made.layer_times({"input": x})


def test_an_execution_that_fails_under_the_profiler(rng: np.random.Generator) -> None:
    made = runner(IExecutionContext__execute_async_v3=False)
    for times in (made.layer_times, made.device_times):
        with pytest.raises(UnsupportedError, match="the execution failed on GPU 0"):
            times({"input": rows(rng, 2)})
    made.close()
