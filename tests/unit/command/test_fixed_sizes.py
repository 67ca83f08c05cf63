"""A Squeeze without axes has one rank where profiles leave one shape; else sizes stay free."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from engines import Profile
from graphs.view import GraphView
from pipeline.fixed_sizes import fix_sizes
from pipeline.screen import Screen
from quantization import prepare


def network(last: str) -> onnx.ModelProto:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[N,16] x) => (y) '
        f"{{ h = MatMul (x, w) {last} }}"
    )
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    weight = np.ones((16, 32), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return prepare(model)


def profile(least: int, most: int) -> Profile:
    shapes = ({"x": (size, 16)} for size in (least, most, most))
    return Profile(**dict(zip(("min", "opt", "max"), shapes, strict=True)))


def test_the_only_shape_decides(capsys: pytest.CaptureFixture[str]) -> None:
    model = network("y = Squeeze (h)")
    fixed = fix_sizes(model, [profile(1, 1)], Screen(bars=False, steps=5))
    view = GraphView(fixed)
    assert (view.shape("x"), view.shape("y")) == ((1, 16), (32,))
    assert "fixed to the only shape asked for: x 1x16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("last", "profiles"),
    [
        ("y = Squeeze (h)", []),
        ("y = Squeeze (h)", [profile(1, 4)]),
        ("y = Squeeze (h)", [profile(1, 1), profile(2, 2)]),
        ("y = Relu (h)", [profile(1, 1)]),
    ],
    ids=["no profile", "a range", "two shapes", "a rank that never changes"],
)
def test_else_sizes_stay_free(last: str, profiles: list[Profile]) -> None:
    model = network(last)
    assert fix_sizes(model, profiles, Screen(bars=False, steps=5)) is model
