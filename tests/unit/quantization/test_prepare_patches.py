"""Col2Im of patches side by side, which TensorRT lacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantization.prepare.prepare import prepare
from tests.networks.running import run


def folding(
    image: list[int], block: list[int], columns: int, batch: int | str, **attributes: Any
) -> onnx.ModelProto:
    """Columns of patches of three channels, an image made of them."""
    channels = 3 * int(np.prod(block))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Col2Im", ["x", "image", "block"], ["y"], name="fold", **attributes)],
        "folding",
        [value("x", TensorProto.FLOAT, [batch, channels, columns])],
        [value("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.array(numbers, np.int64), name)
            for name, numbers in (("image", image), ("block", block))
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def left(model: onnx.ModelProto) -> bool:
    return any(node.op_type == "Col2Im" for node in model.graph.node)


@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize(
    ("image", "block", "columns"),
    [([6, 8], [2, 4], 6), ([3, 5], [2, 2], 2), ([12], [3], 4), ([4, 4, 6], [2, 4, 3], 4)],
)
def test_patches_side_by_side(
    image: list[int],
    block: list[int],
    columns: int,
    batch: int | str,
    rng: np.random.Generator,
) -> None:
    model = folding(image, block, columns, batch, strides=block)
    prepared = prepare(model)
    assert not left(prepared)
    x = rng.normal(size=(2, 3 * int(np.prod(block)), columns)).astype(np.float32)
    np.testing.assert_array_equal(
        run(prepared, {"x": x})["y"], run(model, {"x": x}, optimize=False)["y"]
    )


@pytest.mark.parametrize(
    "attributes",
    [{"strides": [1, 1]}, {}, {"strides": [2, 2], "pads": [1, 1, 1, 1]}],
)
def test_patches_that_overlap_are_left(attributes: dict[str, Any]) -> None:
    assert left(prepare(folding([4, 4], [2, 2], 9, 2, **attributes)))


def test_dilated_patches_are_left() -> None:
    assert left(prepare(folding([3, 3], [2, 2], 1, 2, strides=[2, 2], dilations=[2, 2])))
