"""float16 of the rest: measured on the model that is built, and left where it ruins it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from pipeline.half_part import in_half
from pipeline.job import Data

# Name → body from x to y, and the operators that must stay in float32.
BODIES = {
    "plain": ("a = MatMul (x, w) y = Tanh (a)", set()),
    "values that fade": (
        "a = Mul (x, tiny) b = Tanh (a) c = Div (b, tiny) y = MatMul (c, w)",
        {"Mul", "Tanh", "Div"},
    ),
    "values that overflow": (
        "a = Mul (x, huge) b = Relu (a) c = Div (b, huge) y = MatMul (c, w)",
        {"Mul", "Relu", "Div"},
    ),
}


def model(body: str, rng: np.random.Generator) -> onnx.ModelProto:
    made = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[N,8] x) => (float[N,8] y) {{ {body} }}'
    )
    constants: dict[str, Any] = {
        "w": rng.normal(size=(8, 8)),
        "tiny": 1e-8,
        "huge": 1e5,
        "far": 3e4,
    }
    made.graph.initializer.extend(
        numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()
    )
    for node in made.graph.node:
        node.name = node.output[0]
    return made


def rows(tmp_path: Path) -> Data:
    values = np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    return Data(calib_data=tmp_path / "x.npy")


@pytest.mark.parametrize("name", BODIES)
def test_what_fades_or_overflows_stays_in_float32(
    name: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    body, kept = BODIES[name]
    said: list[str] = []
    half = in_half(rows(tmp_path), model(body, rng), {}, said.append, insists=False)
    assert half is not None
    assert {entry.op_type for entry in half.kept} == kept
    (line,) = said
    assert line.startswith("FP16 part against FP32: SQNR ")
    assert float(line.split("SQNR ")[1].split()[0]) > 40


def test_a_model_that_float16_ruins_stays_as_it_is(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Differences of large numbers: no magnitude tells."""
    cancels = model("a = Add (x, far) b = Relu (a) c = Sub (b, far) y = MatMul (c, w)", rng)
    said: list[str] = []
    assert in_half(rows(tmp_path), cancels, {}, said.append, insists=False) is None
    assert said[0].startswith("the floating-point part stays in FP32: output y is ")
    said.clear()
    half = in_half(rows(tmp_path), cancels, {}, said.append, insists=True)
    assert half is not None
    assert said[0].startswith("warning: output y is ")
    assert "drop --float-part fp16" in said[0]


def test_without_samples_nothing_is_said(rng: np.random.Generator) -> None:
    said: list[str] = []
    half = in_half(Data(), model(BODIES["plain"][0], rng), {}, said.append, insists=True)
    assert half is not None
    assert half.halved == 2
    assert not said
