"""The profiler of the cpu target: kernels with their ONNX names, on a model of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import engines
from artefacts.errors import EngineError, UnsupportedError
from engines import BuildOptions
from engines.manifest import manifest_path
from tests.engine_models import convnet, save

Floats = NDArray[np.float32]


def build(folder: Path, rng: np.random.Generator) -> Path:
    model, engine = save(convnet(rng), folder), folder / "model.engine"
    engines.build(model, engine, BuildOptions(target="cpu", precision="int8"), {})
    return engine


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("int8"), np.random.default_rng())


def images(rng: np.random.Generator, batch: int) -> Floats:
    return rng.standard_normal((batch, 3, 8, 8)).astype(np.float32)


def test_layers_are_timed_and_named(int8: Path, rng: np.random.Generator) -> None:
    feeds = {"input": images(rng, 4)}
    with engines.load(int8) as engine:
        before = engine(feeds)["output"]
        times = engine.layer_times(feeds)
        np.testing.assert_array_equal(engine(feeds)["output"], before)
        with pytest.raises(UnsupportedError, match="runs on the CPU and has no device times"):
            engine.device_times(feeds)
    assert all(0 <= time.time_ms < 1000 for time in times)
    assert sum(time.time_ms for time in times) > 0
    named = {node: time.precision for time in times for node in time.nodes}
    cover = engine.manifest.coverage
    assert cover is not None
    assert {node.name: named.get(node.name) for node in cover.nodes} == {
        "conv1_node": "int8",
        "conv2_node": "int8",
        "tail_node": "fp32",
    }


def test_a_file_replaced_meanwhile_is_not_profiled(
    int8: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    for path in (int8, manifest_path(int8)):
        shutil.copy(path, tmp_path)
    with engines.load(tmp_path / "model.engine") as engine:
        build(tmp_path, rng)
        with pytest.raises(EngineError, match="is now another one"):
            engine.layer_times({"input": images(rng, 1)})
