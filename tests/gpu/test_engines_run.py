"""The runner on a real GPU: graphs, threads, DLPack beside torch, errors that leave it usable."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import engines
import engines.environment
from artefacts.cuda import cuda_context
from artefacts.errors import EngineError, RequestError, UnsupportedError
from engines import BuildOptions, Profile
from tests.engine_models import convnet, save

Floats = NDArray[np.float32]


def images(rng: np.random.Generator, batch: int) -> Floats:
    return rng.uniform(-3, 3, (batch, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def path(trt: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    low, opt, high = ({"input": (n, 3, 8, 8)} for n in (1, 4, 16))
    options = BuildOptions(
        target="tensorrt", precision="int8", profiles=(Profile(min=low, opt=opt, max=high),)
    )
    model = save(convnet(np.random.default_rng()), folder)
    engines.build(model, folder / "m.engine", options)
    return folder / "m.engine"


def test_graphs_give_what_the_first_call_gave(path: Path, rng: np.random.Generator) -> None:
    with engines.load(path) as engine:
        for batch in (1, 4, 7, 16, 4, 1):
            x = images(rng, batch)
            calls = [engine({"input": x})["output"] for _ in range(5)]
            for later in calls[1:]:
                np.testing.assert_array_equal(later, calls[0])
        assert len(engine._runner._graphs) > 0  # type: ignore[union-attr]


def test_warm_up_and_batches_in_any_order(path: Path, rng: np.random.Generator) -> None:
    x = images(rng, 16)
    with engines.load(path) as engine:
        engine.warm_up()
        whole = engine({"input": x})["output"]
        for batch in (1, 3, 16, 2):
            parts = [engine({"input": x[i : i + batch]})["output"] for i in range(0, 16, batch)]
            np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-2, atol=1e-2)


def test_wrong_requests_leave_it_usable(path: Path, rng: np.random.Generator) -> None:
    x = images(rng, 2)
    with engines.load(path) as engine:
        before = engine({"input": x})["output"]
        for wrong in (images(rng, 17), x.astype(np.float64), x[:, :2]):
            with pytest.raises(RequestError):
                engine({"input": wrong})
            np.testing.assert_array_equal(engine({"input": x})["output"], before)


def test_clones_in_threads(path: Path, rng: np.random.Generator) -> None:
    inputs = [images(rng, 1 + i) for i in range(6)]
    wrong: list[int] = []
    with engines.load(path) as engine:
        expected = [engine({"input": x})["output"] for x in inputs]

        def work(index: int) -> None:
            with engine.clone() as mine:
                answers = [mine({"input": inputs[index]})["output"] for _ in range(100)]
            wrong.extend(index for answer in answers if (answer != expected[index]).any())

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
    assert wrong == []


def test_torch_tensors_in_and_out(path: Path, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    x = images(rng, 4)
    with engines.load(path) as engine:
        expected = engine({"input": x})["output"]
        for _ in range(3):
            tensor = torch.from_numpy(x).cuda() * 1.0  # still being computed when it is handed over
            found = torch.from_dlpack(engine({"input": tensor}, on_device=True)["output"])
            assert found.is_cuda
            np.testing.assert_array_equal(found.cpu().numpy(), expected)
        with pytest.raises(RequestError, match="contiguous"):
            engine({"input": torch.from_numpy(x).cuda().transpose(2, 3)})


def test_torch_goes_on_after_the_engine_is_closed(path: Path, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    before = torch.ones(4, device="cuda")
    with engines.load(path) as engine:
        kept = torch.from_dlpack(engine({"input": images(rng, 1)}, on_device=True)["output"])
    assert torch.isfinite(kept).all()
    assert (before + 1 == 2).all()


def test_loading_a_hundred_times_keeps_memory_flat(path: Path) -> None:
    context = cuda_context()
    engines.load(path).close()
    with context.current():
        free, _ = context.driver.mem_get_info()
    for _ in range(100):
        engines.load(path).close()
    with context.current():
        assert free - context.driver.mem_get_info()[0] < 16 << 20


def test_a_gpu_that_is_not_there(path: Path) -> None:
    with pytest.raises(UnsupportedError):
        engines.load(path, device=99)


def test_a_damaged_plan(path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / path.name
    damaged.write_bytes(path.read_bytes()[:-8])
    (tmp_path / f"{path.name}.json").write_bytes(Path(f"{path}.json").read_bytes())
    with pytest.raises(EngineError):
        engines.load(damaged)


def test_rtx_plans_run_where_their_gpu_is(
    rtx: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    facts = engines.environment.gpu_facts()
    assert facts is not None
    name = "SM" + facts["compute_capability"].replace(".", "")
    if not hasattr(rtx.ComputeCapability, name):
        pytest.skip(f"TensorRT-RTX has no code for {name}")
    shape = {"input": (4, 3, 8, 8)}
    options = BuildOptions(
        target="tensorrt-rtx",
        precision="int8",
        profiles=(Profile(min=shape, opt=shape, max=shape),),
        compute_capabilities=(facts["compute_capability"],),
    )
    engines.build(save(convnet(rng), tmp_path), tmp_path / "m.engine", options)
    with engines.load(tmp_path / "m.engine") as engine:
        assert np.isfinite(engine({"input": images(rng, 4)})["output"]).all()


def test_layers_are_timed_by_the_profiler(path: Path, rng: np.random.Generator) -> None:
    x = {"input": images(rng, 4)}
    with engines.load(path) as engine:
        before = engine(x)["output"]
        times = engine.layer_times(x)
        np.testing.assert_array_equal(engine(x)["output"], before)
    assert all(time.time_ms > 0 for time in times)
    named = {node: time.precision for time in times for node in time.nodes}
    assert named["conv1_node"] == named["conv2_node"] == "int8"


def test_copies_and_kernels_are_timed_apart(path: Path, rng: np.random.Generator) -> None:
    """Sixteen images take longer to copy than one; all stages take some time."""
    with engines.load(path) as engine:
        engine.warm_up()
        for batch in (1, 16):
            for _ in range(20):
                times = engine.device_times({"input": images(rng, batch)})
                assert list(times) == ["h2d_ms", "compute_ms", "d2h_ms"]
                assert all(value > 0 for value in times.values())
