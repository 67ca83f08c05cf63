"""Largest values of every tensor."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper, parser

from quantization.measure.execution import load_onnxruntime
from quantization.measure.magnitudes import largest_magnitudes


def test_the_largest_of_all_feeds(rng: np.random.Generator) -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,3] x, int64[N] k) => (float[N,4] y) '
        "{ a = MatMul (x, w) b = Exp (a) s = Shape (a) y = Reshape (b, s) }"
    )
    weight = rng.normal(size=(3, 4)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    feeds = [
        {"x": rng.normal(size=(rows, 3)).astype(np.float32), "k": np.zeros(rows, np.int64)}
        for rows in (1, 5)
    ]
    found = largest_magnitudes(model, load_onnxruntime, feeds)
    a = np.concatenate([feed["x"].astype(float) @ weight for feed in feeds])
    wanted = {"a": np.abs(a).max(), "b": np.exp(a).max(), "y": np.exp(a).max()}
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)
    assert [output.name for output in model.graph.output] == ["y"]
