"""float16 results are rounded where they are stored, whatever computes them."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper, parser

from quantization.measure.execution import load_int8
from quantization.measure.half_storage import rounding_stored
from quantization.write.fp16 import to_float16


def test_every_result_is_rounded(rng: np.random.Generator) -> None:
    """A difference of large numbers keeps what float16 left of them, and no more."""
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,4] x) => (float[N,4] y) '
        "{ a = Add (x, far) b = Relu (a) y = Sub (b, far) }"
    )
    far = np.float32(2.0**14)
    model.graph.initializer.append(numpy_helper.from_array(far, "far"))
    x = rng.uniform(0.0, 40.0, (3, 4)).astype(np.float32)
    half = to_float16(model).model
    found = load_int8(rounding_stored(half))({"x": x})["y"]
    # Numbers from 2^14 on are 16 apart in float16.
    summed = (x.astype(np.float16) + np.float16(far)).astype(np.float32)
    np.testing.assert_array_equal(found, summed - far)
    assert set(np.unique(found) % 16) == {0.0}
