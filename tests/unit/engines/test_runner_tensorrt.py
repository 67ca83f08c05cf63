"""The TensorRT runner's bookkeeping: NVIDIA's class signatures, the host's memory as the GPU's."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from artefacts.errors import EngineError, RequestError, UnsupportedError
from engines import Manifest, Profile, TensorSpec, graphs, plan, runner_tensorrt
from engines.buffers import Buffers
from engines.dlpack import CUDA, DeviceArray
from engines.engine import Engine
from engines.plan import Plan
from engines.runner_tensorrt import TensorrtRunner
from tests.contract.host_cuda import HostCuda, at_address, doubling
from tests.contract.surface import Surface

trt = pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")

HASH = "0" * 64
Floats = NDArray[np.float32]
SPEC: dict[str, Any] = {"dtype": "float32", "shape": (None, 4)}


def profile(low: int, high: int) -> Profile:
    return Profile(min={"input": (low, 4)}, opt={"input": (low, 4)}, max={"input": (high, 4)})


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[HostCuda]]:
    """The GPU: counts start at zero and must end there."""
    for module in (plan, runner_tensorrt):
        monkeypatch.setattr(module, "Cuda", HostCuda)
    for name in ("live", "graphs", "launches", "contexts"):
        monkeypatch.setattr(HostCuda, name, 0)
    yield HostCuda
    gc.collect()
    assert (HostCuda.live, HostCuda.graphs, HostCuda.contexts) == (0, 0, 0)


def runner(*profiles: Profile, **answers: Any) -> TensorrtRunner:
    named = {key.replace("__", "."): value for key, value in answers.items()}
    made = Plan(
        Surface(trt, doubling() | named),
        b"plan",
        (TensorSpec(name="input", **SPEC),),
        (TensorSpec(name="output", **SPEC),),
        profiles or (profile(1, 64),),
        device=0,
    )
    return TensorrtRunner(made)


def engine(made: TensorrtRunner) -> Engine:
    manifest = Manifest(
        engine_sha256=HASH,
        engine_bytes=4,
        target="tensorrt",
        precision="fp32",
        onnx={"name": "m.onnx", "sha256": HASH, "external": {}},
        library={"name": "tensorrt", "version": "0"},
        device={"name": "host"},
        inputs=(TensorSpec(name="input", **SPEC),),
        outputs=(TensorSpec(name="output", **SPEC),),
        profiles=(profile(1, 64),),
        options={},
        build={},
        coverage=None,
        passport={},
    )
    return Engine(made, manifest)


def rows(rng: np.random.Generator, batch: int) -> Floats:
    return rng.standard_normal((batch, 4)).astype(np.float32)


def on_gpu(memory: Floats, device: int = 0) -> DeviceArray:
    return DeviceArray(memory.ctypes.data, memory.shape, "float32", (CUDA, device))


def test_right_answers_for_changing_batches(rng: np.random.Generator) -> None:
    with engine(runner()) as made:
        for batch in (3, 1, 8, 8, 8, 2, 2, 2, 8, 64):
            x = rows(rng, batch)
            assert (made({"input": x})["output"] == 2 * x).all()


def test_a_shape_that_comes_twice_is_captured_and_launched(rng: np.random.Generator) -> None:
    made = runner()
    for _ in range(5):
        x = rows(rng, 2)
        assert (made.run({"input": x}, copy=True)["output"] == 2 * x).all()
    assert (HostCuda.graphs, HostCuda.launches) == (1, 3)
    made.close()


def test_graphs_are_bounded_and_the_oldest_goes(rng: np.random.Generator) -> None:
    made = runner()
    made.run({"input": rows(rng, 40)}, copy=True)  # buffers large enough from the start
    for batch in range(1, graphs.LIMIT + 4):
        for _ in range(2):
            made.run({"input": rows(rng, batch)}, copy=True)
        assert HostCuda.graphs == min(batch, graphs.LIMIT)
    before = HostCuda.launches
    made.run({"input": rows(rng, graphs.LIMIT + 3)}, copy=True)
    assert HostCuda.launches == before + 1
    made.run({"input": rows(rng, 1)}, copy=True)
    assert HostCuda.launches == before + 1
    made.close()


def test_a_moved_buffer_makes_graphs_stale(rng: np.random.Generator) -> None:
    made = runner()
    for _ in range(2):
        made.run({"input": rows(rng, 2)}, copy=True)
    assert HostCuda.graphs == 1
    made.run({"input": rows(rng, 9)}, copy=True)
    assert HostCuda.graphs == 0
    x = rows(rng, 2)
    assert (made.run({"input": x}, copy=True)["output"] == 2 * x).all()
    made.close()


def test_a_plan_that_cannot_be_captured_still_runs(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HostCuda, "can_capture", False)
    made = runner()
    for _ in range(4):
        x = rows(rng, 2)
        assert (made.run({"input": x}, copy=True)["output"] == 2 * x).all()
    assert HostCuda.launches == 0
    made.close()


def test_buffers_are_kept_between_calls(rng: np.random.Generator) -> None:
    made = runner()
    made.run({"input": rows(rng, 8)}, copy=True)
    for batch in (1, 8, 3):
        made.run({"input": rows(rng, batch)}, copy=True)
        assert HostCuda.live == 2
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


def test_gpu_tensors_are_read_where_they_lie(rng: np.random.Generator) -> None:
    with engine(runner()) as made:
        for _ in range(3):
            memory = rows(rng, 5)
            found = made({"input": on_gpu(memory)})["output"]
            assert (found == 2 * memory).all()
        assert HostCuda.live == 1  # the output's; the input needed none
        assert HostCuda.launches == 0


def test_outputs_on_the_gpu_have_an_owner(rng: np.random.Generator) -> None:
    with engine(runner()) as made:
        first, second = rows(rng, 2), rows(rng, 2)
        kept = made({"input": first}, on_device=True)["output"]
        assert kept.__dlpack_device__() == (CUDA, 0)
        made({"input": second}, on_device=True)
        assert (at_address(kept.address, kept.shape) == 2 * first).all()
        chained = made({"input": kept})["output"]
        assert (chained == 4 * first).all()
    # The engine is closed; the array still has its memory and the context to free it in.
    assert (at_address(kept.address, kept.shape) == 2 * first).all()
    assert (HostCuda.live, HostCuda.contexts) == (1, 1)
    del kept
    gc.collect()
    assert HostCuda.live == 0


def test_lent_outputs_on_the_gpu_use_graphs(rng: np.random.Generator) -> None:
    with engine(runner()) as made:
        for _ in range(4):
            x = rows(rng, 2)
            lent = made({"input": x}, copy=False, on_device=True)["output"]
            assert (at_address(lent.address, lent.shape) == 2 * x).all()
        assert HostCuda.launches == 2


def test_wrong_gpu_tensors_are_given_back(rng: np.random.Generator) -> None:
    from engines import dlpack

    memory = rows(rng, 2)
    with engine(runner()) as made:
        cases = [
            (on_gpu(memory, device=3), "tensor is on GPU 3, expected GPU 0"),
            (DeviceArray(1, (2, 4), "float16", (CUDA, 0)), "dtype float16, expected float32"),
            (DeviceArray(1, (2, 5), "float32", (CUDA, 0)), r"shape \(2, 5\), expected \(any, 4\)"),
            (DeviceArray(1, (99, 4), "float32", (CUDA, 0)), r"shapes input \(99, 4\), expected"),
        ]
        for tensor, said in cases:
            with pytest.raises(RequestError, match=said):
                made({"input": tensor})
            assert dlpack._EXPORTED == {}
        assert (made({"input": memory})["output"] == 2 * memory).all()


def test_no_memory_is_an_error_and_the_engine_goes_on(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = runner()
    x = rows(rng, 2)
    made.run({"input": x}, copy=True)
    monkeypatch.setattr(HostCuda, "limit_bytes", 64)
    with pytest.raises(UnsupportedError, match="too little free"):
        made.run({"input": rows(rng, 50)}, copy=True)
    assert (made.run({"input": x}, copy=True)["output"] == 2 * x).all()
    made.close()


def test_a_failed_execution_is_an_error_and_the_engine_goes_on(rng: np.random.Generator) -> None:
    fails = [True]
    execute = doubling()["IExecutionContext.execute_async_v3"]
    made = runner(
        IExecutionContext__execute_async_v3=lambda c, s: not fails and execute(c, s),
    )
    x = rows(rng, 2)
    with pytest.raises(UnsupportedError, match="the execution failed on GPU 0"):
        made.run({"input": x}, copy=True)
    fails.clear()
    assert (made.run({"input": x}, copy=True)["output"] == 2 * x).all()
    made.close()


def test_shapes_that_the_plan_refuses(rng: np.random.Generator) -> None:
    made = runner(IExecutionContext__set_input_shape=False)
    with pytest.raises(RequestError, match=r"shape \(2, 4\), which the plan refuses"):
        made.run({"input": rows(rng, 2)}, copy=True)
    made.close()
    made = runner(IExecutionContext__infer_shapes=["input"])
    with pytest.raises(RequestError, match=r"leaves the shapes of \['input'\] open"):
        made.run({"input": rows(rng, 2)}, copy=True)
    made.close()
    made = runner(IExecutionContext__get_tensor_shape=lambda c, n: (-1, 4))
    with pytest.raises(UnsupportedError, match=r"'output' has shape \(-1, 4\), which depends on"):
        made.run({"input": rows(rng, 2)}, copy=True)
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
    with pytest.raises(EngineError, match=r"refused by TensorRT-RTX .*gives no reason"):
        runner(Runtime__deserialize_cuda_engine=lambda r, data: None)


def test_no_context_leaves_nothing() -> None:
    with pytest.raises(UnsupportedError, match="no execution context can be made"):
        runner(ICudaEngine__create_execution_context=lambda e: None)


def test_device_times_follow_the_stages(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events lie between copy in, execution and copy out; a graph is used where there is one."""
    done: list[str] = []
    for name in ("mark", "copy_in", "copy_out"):
        real = getattr(HostCuda, name)

        def spy(*given: Any, name: str = name, real: Any = real) -> Any:
            done.append(name)
            return real(*given)

        monkeypatch.setattr(HostCuda, name, spy)
    stage = Buffers.stage
    monkeypatch.setattr(Buffers, "stage", lambda *given: (done.append("stage"), stage(*given)))
    made = engine(runner())
    x = rows(rng, 3)
    # What the host copies into pinned memory lies before the first event: it is no transfer.
    expected = ["stage", "mark", "copy_in", "mark", "mark", "copy_out", "mark"]
    times = made.device_times({"input": x})
    assert done == expected
    assert list(times) == ["h2d_ms", "compute_ms", "d2h_ms"]
    for _ in range(3):
        made({"input": x})
    launches = HostCuda.launches
    made.device_times({"input": x})
    assert done[-7:] == expected
    assert HostCuda.launches == launches + 1
    assert (made({"input": x})["output"] == 2 * x).all()
    made.close()


def test_layer_times_leave_the_engine_as_it_was(rng: np.random.Generator) -> None:
    profilers: list[int] = []
    answers = doubling()
    execute = answers["IExecutionContext.execute_async_v3"]

    def report(context: Any, stream: int) -> bool:
        if "profiler" in context.values:
            profilers.append(id(context))
            for name, ms in (("first", 0.5), ("second + third", len(profilers))):
                context.values["profiler"].report_layer_time(name, ms)
        return bool(execute(context, stream))

    made = engine(
        runner(
            IExecutionContext__execute_async_v3=report,
            EngineInspector__get_engine_information='{"Layers": ["first", "second + third"]}',
        )
    )
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
