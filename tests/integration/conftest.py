"""Small models with samples, and the example service with its digits."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import build_engine
from engines import Passport
from tests.engine_models import convnet
from tests.integration.cpu_engines import Built, build
from tests.integration.example_service import DIGITS, PROGRAM


@pytest.fixture
def tiny(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A small convolution model: input (N, 16, 8, 8), output (N, 32)."""
    weight = rng.normal(scale=0.1, size=(32, 16, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["output"], name="flat"),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tiny",
        [info("input", TensorProto.FLOAT, ["N", 16, 8, 8])],
        [info("output", TensorProto.FLOAT, ["N", 32])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "tiny.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def samples(tmp_path: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "samples.npz"
    np.savez(path, input=rng.normal(size=(12, 16, 8, 8)).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Built:
    model = convnet(np.random.default_rng())
    passport = Passport(preprocess={"layout": "NCHW"})
    return build(tmp_path_factory.mktemp("int8"), model, passport, precision="int8")


@pytest.fixture(scope="module")
def service() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("fastapi_service", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # FastAPI looks the handlers' annotations up there
    sys.path.insert(0, str(PROGRAM.parent))  # as Python does for the program itself
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(PROGRAM.parent))


@pytest.fixture(scope="module")
def digits_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("service") / "digits.int8.engine"
    arguments = ["--onnx", DIGITS / "digits.onnx", "--engine", path, "--target", "cpu"]
    arguments += ["--calib-data", DIGITS / "calib", "--calib-num", "40", "--calibrator", "minmax"]
    arguments += ["--preprocess", DIGITS / "preprocess.yaml", "--threads", "1"]
    assert build_engine.main([str(argument) for argument in arguments]) == 0
    return path


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    with np.load(DIGITS / "test.npz", allow_pickle=False) as file:
        return file["images"], file["labels"]
