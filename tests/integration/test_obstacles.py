"""What the last step would refuse, the first says: before anything is calibrated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from artefacts.errors import ModelError
from build_engine import build

# Name → nodes behind an INT8 layer, and what is said of them by target.
BODIES = {
    "a kernel that the builder lacks": (
        "to = Constant <value_ints=[-1,4,4]> () b = Reshape (a, to) middle = Constant "
        "<value_ints=[1]> () m = ReduceMax <axes=[2], keepdims=0> (b) s = Unsqueeze (m, middle) "
        "most = Constant <value_ints=[3]> () n = NonMaxSuppression (b, s, most) "
        "y = Cast <to=1> (n)",
        {"tensorrt-rtx": r"NonMaxSuppression.* cannot be built for tensorrt-rtx: .*no kernel"},
    ),
    "an operator that nobody converts": (
        "to = Constant <value_ints=[-1,4,4]> () b = Reshape (a, to) y = Det (b)",
        {"tensorrt-rtx": "refused by the parser of TensorRT-RTX", "cpu": "refused by OpenVINO"},
    ),
}
CASES = [(name, target) for name, (_, said) in BODIES.items() for target in said]


@pytest.mark.parametrize(("name", "target"), CASES)
def test_the_first_step_refuses(
    name: str, target: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    pytest.importorskip("openvino" if target == "cpu" else "tensorrt_rtx")
    body, said = BODIES[name]
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,16] x) => (float y) '
        f"{{ a = MatMul (x, w) {body} }}"
    )
    weight = rng.normal(size=(16, 16)).astype(np.float32)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, tmp_path / "m.onnx")
    rows = rng.normal(size=(8, 16)).astype(np.float32)
    with pytest.raises(ModelError, match=said[target]):
        build(tmp_path / "m.onnx", tmp_path / "o/m.engine", calib_data=rows, target=target)
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["m.prepared.onnx"]
