"""What is written, and what is said, when nothing tells which layers run INT8."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artefacts.errors import GateMissedError, UnsupportedError
from engines import RUNTIMES, BuildOptions, Manifest, TensorSpec, building, read_manifest
from engines.built import BuiltEngine
from tests.engine_models import convnet, save


@pytest.fixture
def model(tmp_path: Path, rng: np.random.Generator) -> Path:
    return save(convnet(rng), tmp_path)


def build(
    model: Path, monkeypatch: pytest.MonkeyPatch, precisions: dict[str, str] | None
) -> Manifest:
    def built(*given: Any) -> BuiltEngine:
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

    runtime = replace(RUNTIMES["tensorrt"], build=built)
    monkeypatch.setattr(building, "runtime_of", lambda target: runtime)
    options = BuildOptions(target="tensorrt", precision="int8", require_int8=0.5)
    return building.build(model, model.with_name("m.engine"), options, {})


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
