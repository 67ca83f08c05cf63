"""Products of tensors of one axis, through the whole build on the cpu target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import engines
from build_engine import build
from quantization.measure.execution import load_int8

pytest.importorskip("openvino")

BODIES = {
    "a vector on the left": ("float[5] y", "y = MatMul (m, w2)"),
    "a vector on the right": ("float[N] y", "y = MatMul (r, v)"),
    "two vectors": ("float y", "y = MatMul (m, v)"),
}


@pytest.mark.parametrize("name", BODIES)
def test_products_of_vectors_are_right(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """OpenVINO computes something else of an INT8 vector on the left: it stays in float."""
    output, body = BODIES[name]
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[N,16] x) => ({output}) {{ '
        f"h = MatMul (x, w) r = Relu (h) m = ReduceMean <axes=[0], keepdims=0> (r) {body} }}"
    )
    for key, shape in (("w", (16, 32)), ("w2", (32, 5)), ("v", (32,))):
        weight = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, key))
    onnx.save(model, tmp_path / "m.onnx")
    samples = [{"x": rng.standard_normal((1, 16)).astype(np.float32)} for _ in range(12)]
    result = build(tmp_path / "m.onnx", tmp_path / "m.engine", target="cpu", calib_data=samples)
    assert result.manifest is not None
    floating = result.manifest.passport.placement
    assert floating is not None
    assert {layer.rule for layer in floating.floating} == {"vector_product"}
    weights = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    with engines.load(tmp_path / "m.engine") as engine:
        for sample in samples:
            (found,) = engine(sample).values()
            hidden = np.maximum(sample["x"].astype(np.float64) @ weights["w"], 0)
            left = hidden if name == "a vector on the right" else hidden.mean(axis=0)
            wanted = left @ weights["w2" if "left" in name else "v"]
            np.testing.assert_allclose(found, wanted, atol=0.05 * np.abs(hidden).sum())


@pytest.mark.parametrize("columns", [16, 24])
@pytest.mark.parametrize("improve", ["0", "8"])
def test_a_constant_on_the_left_is_right(
    columns: int, improve: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    """OpenVINO refuses scales of rows, or takes them for those of as many columns."""
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[N,16,{columns}] x) => (float[N,16,8] y) '
        "{ h = MatMul (x, w) r = Relu (h) m = MatMul (mix, r) y = MatMul (m, w2) }"
    )
    rows = np.geomspace(0.05, 2.0, 16)[:, None]  # each scale another
    values = {
        "w": rng.standard_normal((columns, columns)),
        "mix": rng.standard_normal((16, 16)) * rows,
        "w2": rng.standard_normal((columns, 8)),
    }
    for key, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), key))
    onnx.save(model, tmp_path / "m.onnx")
    shape = (1, 16, columns)
    samples = [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(12)]
    result = build(
        tmp_path / "m.onnx",
        tmp_path / "m.engine",
        target="cpu",
        calib_data=samples,
        improve=improve,
    )
    assert result.manifest is not None
    graph = load_int8(onnx.load(tmp_path / result.manifest.onnx["name"]))
    with engines.load(tmp_path / "m.engine") as engine:
        for sample in samples:
            (found,), (written,) = engine(sample).values(), graph(sample).values()
            # Scales taken for others are an error as large as the signal; a tie is one code.
            assert np.square(found - written).sum() < 1e-2 * np.square(written).sum()
