"""The profiler of the cpu target: kernels with their ONNX names, on a model of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import calibrators
import engines
import quantization
from artefacts.errors import EngineError, UnsupportedError
from engines import BuildOptions
from engines.manifest import manifest_path
from tests.engine_models import convnet, save
from tests.networks import NETWORKS

Floats = NDArray[np.float32]


def build(folder: Path, rng: np.random.Generator) -> Path:
    model, engine = save(convnet(rng), folder), folder / "model.engine"
    engines.build(model, engine, BuildOptions(target="cpu", precision="int8"))
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


@pytest.mark.parametrize("quantized", [False, True], ids=["fp32", "int8"])
@pytest.mark.parametrize("name", ["mobilenet_v3", "unet_transposed", "vit"])
def test_every_weighted_layer_of_a_network_is_found(
    name: str, quantized: bool, tmp_path: Path
) -> None:
    """By its own name, by the bias it was fused with, or by the attention that swallowed it."""
    model = quantization.prepare(NETWORKS[name]())
    specs = calibrators.input_specs(model)
    samples = calibrators.random_samples(specs, count=2, seed=0)
    if quantized:
        placement = quantization.place(model, profile="cpu", portable=True)
        seen = calibrators.observe(model, placement.tensors, samples, batch_size=1)
        ranges = calibrators.compute_ranges(seen, method="minmax")
        model = quantization.insert_qdq(model, placement, ranges)
    onnx.save(model, tmp_path / "m.onnx")
    options = BuildOptions(target="cpu", precision="int8" if quantized else "fp32")
    engines.build(tmp_path / "m.onnx", tmp_path / "m.engine", options)
    feeds = next(calibrators.batches(samples, 1, inputs=specs)).inputs
    with engines.load(tmp_path / "m.engine") as engine:
        times, cover = engine.layer_times(feeds), engine.manifest.coverage
    assert cover is not None
    named = {node: time.precision for time in times for node in time.nodes}
    lost = [node for node in cover.nodes if node.name not in named]
    # Both products of an attention are one kernel, which is known by the first.
    assert all("Softmax" in " ".join(node.aliases) for node in lost)
    assert len(lost) == (2 if name == "vit" else 0)
    for node in cover.nodes:
        assert node in lost or named[node.name] == node.precision
