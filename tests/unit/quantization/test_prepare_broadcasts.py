"""Until opset 6 an attribute says where the second operand's axes begin; a batch may be free.

onnxruntime has no kernels of that age: what is expected is NumPy's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from artefacts.errors import ModelError
from quantization import prepare
from tests.odd_models import run

SIZE = 4  # of all axes, so that no size tells them apart


def old_model(op_type: str, shape: tuple[int, ...], opset: int, **given: int) -> onnx.ModelProto:
    second = np.random.default_rng(0).uniform(0.5, 2, shape).astype(np.float32)
    value = helper.make_tensor_value_info
    size: list[int | str] = ["N", SIZE, SIZE, SIZE]
    node = helper.make_node(op_type, ["x", "b"], ["y"], name="old", **given)
    graph = helper.make_graph(
        [node],
        "old",
        [value("x", TensorProto.FLOAT, size), value("b", TensorProto.FLOAT, shape)],
        [value("y", TensorProto.FLOAT, size)],
        [numpy_helper.from_array(second, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)


def slope(x: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(x < 0, b * x, x)


@pytest.mark.parametrize(
    ("op_type", "shape", "axis", "computed", "opset"),
    [
        ("Add", (SIZE,), 1, np.add, 6),
        ("Add", (SIZE,), -3, np.add, 6),
        ("Sub", (SIZE,), 3, np.subtract, 6),
        ("Mul", (SIZE, SIZE), 1, np.multiply, 6),
        ("Mul", (SIZE,), None, np.multiply, 6),
        ("Div", (1,), None, np.divide, 6),
        ("Pow", (SIZE,), 1, np.power, 6),
        ("Add", (SIZE,), 1, np.add, 5),
        ("PRelu", (SIZE,), 1, slope, 6),
        ("PRelu", (1,), None, slope, 6),
    ],
)
def test_the_second_operand_keeps_its_place(
    op_type: str,
    shape: tuple[int, ...],
    axis: int | None,
    computed: Callable[..., np.ndarray],
    opset: int,
    rng: np.random.Generator,
) -> None:
    given = {} if op_type == "PRelu" else {"broadcast": 1}
    if axis is not None and given:
        given["axis"] = axis
    model = old_model(op_type, shape, opset, **given)
    x = rng.uniform(0.5, 2, (2, SIZE, SIZE, SIZE)).astype(np.float32)
    x *= -1 if op_type == "PRelu" else 1
    start = 4 - len(shape) if axis is None else axis % 4
    b = numpy_helper.to_array(model.graph.initializer[0])
    b = b.reshape(*b.shape, *[1] * (4 - len(shape) - start))
    prepared = prepare(model)
    assert prepared.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    np.testing.assert_allclose(run(prepared, {"x": x})[0], computed(x, b), rtol=1e-5)


def test_what_nobody_can_align_is_refused() -> None:
    model = old_model("Add", (SIZE,), 6, broadcast=1, axis=1)
    model.graph.node[0].input[0] = "m"
    node = helper.make_node("Pad", ["x"], ["m"], name="odd", pads=[0] * 8)
    node.op_type, node.domain = "Odd", "custom"
    model.graph.node.insert(0, node)
    model.opset_import.append(helper.make_opsetid("custom", 1))
    with pytest.raises(ModelError, match=r"opset 6 .* 13 \(node old broadcasts .*opset_version=13"):
        prepare(model)
