"""What is written, and what is said, when nothing tells which layers run INT8."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import quantization
from artefacts.errors import GateMissedError, UnsupportedError
from engines import RUNTIMES, BuildOptions, Manifest, Passport, TensorSpec, building, read_manifest
from engines import options as engines_options
from engines.built import BuiltEngine
from tests.engine_models import convnet, save


@pytest.fixture
def model(tmp_path: Path, rng: np.random.Generator) -> Path:
    return save(convnet(rng), tmp_path)


def plan(precisions: dict[str, str] | None) -> BuiltEngine:
    spec = TensorSpec(name="input", dtype="float32", shape=(None, 3, 8, 8))
    return BuiltEngine(
        data=b"hours of work",
        library={"name": "tensorrt", "version": "10.3.0"},
        device={"name": "a GPU"},
        inputs=(spec,),
        outputs=(spec,),
        profiles=(),
        precisions=precisions,
        source="test",
    )


def build(
    model: Path, monkeypatch: pytest.MonkeyPatch, precisions: dict[str, str] | None
) -> Manifest:
    runtime = replace(RUNTIMES["tensorrt"], build=lambda *given: plan(precisions))
    monkeypatch.setattr(building, "runtime_of", lambda target: runtime)
    options = BuildOptions(target="tensorrt", precision="int8", require_int8=0.5)
    return building.build(model, model.with_name("m.engine"), options)


def test_a_plan_is_written_before_the_gate_is_said_to_be_open(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = model.with_name("m.engine")
    with pytest.raises(UnsupportedError, match=r"m\.engine is written, and nothing here tells"):
        build(model, monkeypatch, None)
    assert engine.read_bytes() == b"hours of work"
    assert read_manifest(engine).coverage is None


def test_a_gate_that_is_missed_writes_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GateMissedError, match=r"0\.0% of the multiply-accumulates"):
        build(model, monkeypatch, {"conv1_node": "fp16"})
    assert not model.with_name("m.engine").exists()


@pytest.mark.parametrize(
    ("kind", "precision"), [("pairs", "int8"), ("half", "fp16"), ("plain", "fp32")]
)
def test_the_model_says_its_precision(
    kind: str,
    precision: str,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = convnet(rng, quantized=kind == "pairs")
    if kind == "half":
        model = quantization.to_float16(model, {}).model
    passed: list[str | None] = []

    def built(path: Path, model: onnx.ModelProto, options: BuildOptions, *rest: Any) -> BuiltEngine:
        passed.append(options.precision)
        return plan({})

    runtime = replace(RUNTIMES["cpu"], build=built)
    monkeypatch.setattr(building, "runtime_of", lambda target: runtime)
    monkeypatch.setattr(engines_options, "has_gpu", lambda: False)
    made = building.build(save(model, tmp_path), tmp_path / "m.engine")
    assert (made.precision, passed) == (precision, [precision])
    assert ("without a passport" in caplog.text) == (precision == "int8")
    caplog.clear()
    building.build(tmp_path / "model.onnx", tmp_path / "m.engine", passport=Passport(labels=("a",)))
    assert "without a passport" not in caplog.text
