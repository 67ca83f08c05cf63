"""Engines and pools that are misused or out of memory: the right error, and they go on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import engines
from artefacts.errors import (
    BusyError,
    ClosedError,
    EngineError,
    InputError,
    NotFiniteError,
    RequestError,
    UnsupportedError,
)
from engines.engine import Engine
from engines.serving.triton import export_triton
from engines.serving.triton_model import TritonPythonModel
from tests.engine_models import save, scaled_sum

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("abuse")
    options = engines.BuildOptions(target="cpu", precision="fp32", threads=1)
    engines.build(save(scaled_sum(), folder), folder / "sum.engine", options)
    return folder / "sum.engine"


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return {"left": np.ones((1, 4), np.float32), "right": np.ones((1, 4), np.int64)}


OUT_OF_MEMORY = """
import resource, sys
import numpy as np, onnx
from onnx import TensorProto, helper
import engines
from artefacts.errors import UnsupportedError
info = helper.make_tensor_value_info
nodes = [
    helper.make_node("Concat", ["x"] * 64, ["wide"], axis=1),
    helper.make_node("ReduceMean", ["wide"], ["y"], axes=[0], keepdims=1),
]
ends = [info("x", TensorProto.FLOAT, ["N", 16])], [info("y", TensorProto.FLOAT, [1, 1024])]
graph = helper.make_graph(nodes, "wide", *ends)
made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.save(made, "wide.onnx")
options = engines.BuildOptions(target="cpu", precision="fp32", threads=1)
engines.build("wide.onnx", "wide.engine", options)
with engines.load("wide.engine") as engine:
    engine({"x": np.ones((8, 16), np.float32)})
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)
    for size in (1_000_000, 1_000_000, 8):
        try:
            print(engine({"x": np.full((size, 16), 3, np.float32)})["y"][0, 0])
        except UnsupportedError as err:
            print(str(err).split(" (")[0])
"""


def test_out_of_memory_is_an_error_and_never_the_answer_before(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["memory is exhausted"] * 2 + ["3.0"], done.stderr


class Broken:
    """A runtime that fails on everything, or on what is not zero, and blames the request."""

    def __init__(self, *, works_on_zeros: bool) -> None:
        self.works_on_zeros = works_on_zeros

    def run(self, arrays: dict[str, Any], *, copy: bool, on_device: bool) -> dict[str, Any]:
        if self.works_on_zeros and not any(array.any() for array in arrays.values()):
            return {}
        raise RequestError("request fails in OpenVINO (no reason), expected others; correct it")


def failing(engine: Engine, *, works_on_zeros: bool) -> Any:
    runner, engine._runner = engine._runner, Broken(works_on_zeros=works_on_zeros)
    return runner


@pytest.mark.parametrize("works_on_zeros", [True, False])
def test_an_engine_that_fails_on_what_it_once_ran_is_to_blame(
    path: Path, arrays: dict[str, np.ndarray], works_on_zeros: bool
) -> None:
    with engines.EnginePool(path, 1) as pool:
        pool.warm_up()
        with pool.borrow() as lent:
            runner = failing(lent, works_on_zeros=works_on_zeros)
        kind = RequestError if works_on_zeros else UnsupportedError
        for _ in range(2):
            with pytest.raises(kind, match="no reason"):
                pool(arrays)
        assert pool.statistics().failed_in_row == (0 if works_on_zeros else 2)
        assert pool.statistics().failed == 2
        with pool.borrow() as lent:
            lent._runner = runner
        assert pool.statistics().failed_in_row == 0
        pool(arrays)


def test_a_request_may_be_made_once_an_engine_is_free(
    path: Path, arrays: dict[str, np.ndarray]
) -> None:
    with engines.EnginePool(path, 1, max_waiting=0) as pool:
        deadlines: list[float | None] = []

        def made(deadline_s: float | None) -> dict[str, np.ndarray]:
            deadlines.append(deadline_s)
            assert pool.statistics().in_use == 1
            return arrays

        assert pool(made).keys() == pool(made, timeout_s=60).keys()
        with pool.borrow(), pytest.raises(BusyError, match="has 0 requests waiting"):
            pool(made)
        assert deadlines[0] is None
        assert len(deadlines) == 2

        def refused(deadline_s: float | None) -> dict[str, np.ndarray]:
            raise BusyError("too late")

        with pytest.raises(BusyError, match="too late"):
            pool(refused)
        assert (pool.statistics().timed_out, pool.statistics().failed) == (1, 0)


def test_closing_a_pool_from_inside_a_loan_says_so(
    path: Path, arrays: dict[str, np.ndarray]
) -> None:
    with engines.EnginePool(path, 1) as pool:
        with pool.borrow() as engine, pytest.raises(InputError, match="by a thread that has borr"):
            pool.close()
        assert engine is not None
        pool(arrays)


def test_a_borrower_cannot_close_what_others_will_borrow(
    path: Path, arrays: dict[str, np.ndarray]
) -> None:
    with engines.EnginePool(path, 1) as pool:
        with pool.borrow() as engine, pytest.raises(RequestError, match="closed by a borrower"):
            engine.close()
        pool(arrays)
    with pytest.raises(ClosedError, match="pool is closed"):
        pool(arrays)
    with pytest.raises(ClosedError, match="engine is closed"):
        engine(arrays)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_none_are_refused_where_asked_for(
    path: Path, arrays: dict[str, np.ndarray], value: float
) -> None:
    dirty = arrays | {"left": np.array([[1, value, 1, value]], np.float32)}
    huge = arrays | {"left": np.full((1, 4), 3e38, np.float32)}  # their sum is infinite, they not
    with engines.EnginePool(path, 2, check_inputs=True) as pool:
        for _ in range(2):
            with pytest.raises(
                NotFiniteError, match=r"input 'left' has 2 values that are NaN or i"
            ):
                pool(dirty)
        pool(huge)
        pool(arrays)
        with pool.borrow() as one, one.clone() as clone, pytest.raises(NotFiniteError):
            clone(dirty)
        assert pool.statistics().not_finite == 2
    with engines.EnginePool(path, 1) as pool:
        pool(dirty)


def test_triton_loads_only_what_the_servers_key_signed(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment of the server counts, whatever the repository says."""
    version = export_triton(path, tmp_path / "models")
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("of_triton"))
    config = {"max_batch_size": 0}
    told = {"model_repository": str(version.parent), "model_version": version.name}
    told |= {"model_name": "sum", "model_instance_name": "sum_0_0"}
    model = TritonPythonModel()
    model.initialize(told | {"model_config": json.dumps(config)})
    model.finalize()
    key = tmp_path / "pub.pem"
    key.write_text("any")
    config["parameters"] = {"trusted_key": {"string_value": str(key)}}
    with pytest.raises(EngineError, match="has no signature"):
        TritonPythonModel().initialize(told | {"model_config": json.dumps(config)})
    monkeypatch.setenv("INT8_TRUSTED_KEY", str(key))
    with pytest.raises(EngineError, match="has no signature"):
        TritonPythonModel().initialize(told | {"model_config": '{"max_batch_size": 0}'})
