"""Builds on a real GPU: every precision, explicit and implicit, profiles, timing cache."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import calibrators
import engines
from artefacts.errors import ArtefactError, GateMissedError
from engines import BuildOptions, Profile
from tests.engine_models import convnet, save

Floats = NDArray[np.float32]


def shapes(batch: int) -> dict[str, tuple[int, ...]]:
    return {"input": (batch, 3, 8, 8)}


BATCHES = Profile(min=shapes(1), opt=shapes(8), max=shapes(32))


def build(folder: Path, model: onnx.ModelProto, **options: Any) -> engines.Manifest:
    settings = {"target": "tensorrt", "profiles": (BATCHES,)} | options
    return engines.build(save(model, folder), folder / "m.engine", BuildOptions(**settings))


def images(rng: np.random.Generator, batch: int = 8) -> Floats:
    return rng.uniform(-3, 3, (batch, 3, 8, 8)).astype(np.float32)


def reference(folder: Path, x: Floats) -> Floats:
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    return session.run(["output"], {"input": x})[0]


def difference(folder: Path, x: Floats) -> float:
    """Largest difference to ONNX Runtime, relative to the largest value."""
    expected = reference(folder, x)
    with engines.load(folder / "m.engine") as engine:
        found = engine({"input": x})["output"]
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_fp32_without_tf32(trt: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    manifest = build(tmp_path, convnet(rng, quantized=False), tf32=False)
    assert "TF32" not in manifest.build["flags"]
    assert difference(tmp_path, images(rng)) < 1e-5


def test_fp32_with_tf32(trt: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    manifest = build(tmp_path, convnet(rng, quantized=False))
    assert "TF32" in manifest.build["flags"]
    assert difference(tmp_path, images(rng)) < 5e-3


def test_fp16(trt: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    if not hasattr(trt.BuilderFlag, "FP16"):
        pytest.skip("this release takes types from the graph only")
    build(tmp_path, convnet(rng, quantized=False), precision="fp16")
    assert difference(tmp_path, images(rng)) < 1e-2


def test_explicit_int8_agrees_with_the_simulation(
    trt: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    manifest = build(tmp_path, convnet(rng), precision="int8", tf32=False)
    assert manifest.coverage is not None
    assert set(manifest.coverage.int8_layers) == {"conv1_node", "conv2_node"}
    assert manifest.coverage.float_layers == ("tail_node",)
    # The activations' step is 4/127; a tie that rounds the other way moves a value by one step.
    assert difference(tmp_path, images(rng)) < 0.05


def test_the_int8_gate(trt: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(GateMissedError, match="tail_node"):
        build(tmp_path, convnet(rng), precision="int8", require_int8=0.95)


def cache(trt: Any, folder: Path, tensors: dict[str, float], version: str | None = None) -> Path:
    """A calibration cache; the header's number follows NV_TENSORRT_VERSION."""
    major, minor, patch = map(int, trt.__version__.split(".")[:3])
    number = major * (1000 if major < 10 else 10000) + minor * 100 + patch
    lines = [f"TRT-{version or number}-EntropyCalibration2"]
    lines += [f"{n}: {struct.pack('>f', amax / 127).hex()}" for n, amax in tensors.items()]
    path = folder / "calib.cache"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_implicit_int8_from_a_cache(trt: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    if not hasattr(trt, "IInt8EntropyCalibrator2"):
        pytest.skip("this release has no implicit quantization")
    model = convnet(rng, quantized=False, float_tail=False)
    tensors = {name: 4.0 for node in model.graph.node for name in node.output} | {"input": 4.0}
    build(tmp_path, model, precision="int8", calibration_cache=cache(trt, tmp_path, tensors))
    assert difference(tmp_path, images(rng)) < 0.1


@pytest.mark.parametrize("method", ["entropy", "minmax"])
def test_implicit_int8_from_our_calibrators(
    trt: Any, tmp_path: Path, rng: np.random.Generator, method: str
) -> None:
    if not hasattr(trt, "IInt8EntropyCalibrator2"):
        pytest.skip("this release has no implicit quantization")
    from calibrators.tensorrt.calibrator import calibrator

    model = convnet(rng, quantized=False, float_tail=False)
    specs = calibrators.input_specs(model)
    samples = calibrators.random_samples(specs, count=32, seed=0)
    made, feeder = calibrator(method, calibrators.batches(samples, 8, inputs=specs))
    with feeder:
        build(
            tmp_path,
            model,
            precision="int8",
            calibrator=made,
            calibration_shapes=feeder.shapes,
        )
    assert difference(tmp_path, images(rng)) < 0.2


def test_a_cache_of_another_release(trt: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    if not hasattr(trt, "IInt8EntropyCalibrator2"):
        pytest.skip("this release has no implicit quantization")
    foreign = cache(trt, tmp_path, {"input": 4.0}, version="6001")
    with pytest.raises(ArtefactError, match="is rejected by TensorRT"):
        build(tmp_path, convnet(rng, quantized=False), precision="int8", calibration_cache=foreign)


def test_timing_cache_is_written_and_read(
    trt: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "timing.cache"
    model = convnet(rng)
    build(tmp_path, model, precision="int8", timing_cache=path)
    size = path.stat().st_size
    assert size > 0
    build(tmp_path, model, precision="int8", timing_cache=path)
    assert path.stat().st_size >= size
    path.write_bytes(b"not a timing cache")
    build(tmp_path, model, precision="int8", timing_cache=path)
    assert path.stat().st_size > 100


@pytest.mark.parametrize(
    "options", [{"hardware_compatibility": "ampere+"}, {"version_compatible": True}]
)
def test_compatible_engines_load(
    trt: Any, tmp_path: Path, rng: np.random.Generator, options: dict[str, Any]
) -> None:
    build(tmp_path, convnet(rng), precision="int8", optimization_level=2, **options)
    assert difference(tmp_path, images(rng)) < 0.05


def test_several_profiles(trt: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    large = Profile(min=shapes(33), opt=shapes(64), max=shapes(64))
    build(tmp_path, convnet(rng, quantized=False), profiles=(BATCHES, large), tf32=False)
    for batch in (1, 32, 33, 64, 2):
        assert difference(tmp_path, images(rng, batch)) < 1e-5


def test_polygraphy_runs_the_same_plan(trt: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    """The file is a plain plan; an independent runner gives the same numbers."""
    from polygraphy.backend import common
    from polygraphy.backend import trt as backend

    build(tmp_path, convnet(rng), precision="int8")
    x = images(rng)
    loaded = backend.EngineFromBytes(common.BytesFromPath(str(tmp_path / "m.engine")))
    with backend.TrtRunner(loaded) as runner:
        expected = runner.infer({"input": x})["output"].copy()
    with engines.load(tmp_path / "m.engine") as engine:
        np.testing.assert_array_equal(engine({"input": x})["output"], expected)
