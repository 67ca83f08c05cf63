"""Squeeze without axes: the rest of the graph says which it means, or nobody does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphs.identity import graph_hash
from graphs.view import GraphView
from quantization import prepare
from tests.odd_models import run

Shape = tuple[int | str, ...]
WEIGHT = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)


def squeezing(shape: Shape, behind: str, declared: Shape | None) -> onnx.ModelProto:
    """A Squeeze without axes of ``x``, an operator behind it, and an output."""
    inputs = ["s", "w"] if behind in ("Gemm", "MatMul") else ["s"]
    nodes = [
        helper.make_node("Squeeze", ["x"], ["s"], name="squeeze"),
        helper.make_node(behind, inputs, ["y"], name="behind"),
    ]
    graph = helper.make_graph(
        nodes,
        "squeezing",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, declared)],
        [numpy_helper.from_array(WEIGHT, "w")] if len(inputs) > 1 else [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def axes_of(model: onnx.ModelProto) -> list[int] | None:
    """The axes that preparing wrote; None where there are none."""
    prepared = prepare(model)
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)
    view = GraphView(prepared)
    (node,) = (node for node in view.nodes if node.op_type == "Squeeze")
    if len(node.inputs) == 1:
        return None
    axes = view.constant(node.inputs[1])
    assert axes is not None
    return [int(axis) for axis in axes]


@pytest.mark.parametrize(
    ("shape", "behind", "declared", "axes"),
    [
        (("N", 8, 1, 1), "Gemm", ("N", 5), [2, 3]),  # Gemm takes two axes
        (("N", 8, 1, 1), "MatMul", ("N", 5), [2, 3]),
        (("N", 8, 1, 1), "MatMul", (5,), [0, 2, 3]),  # traced with one sample
        (("N", 1), "Sigmoid", (), [0, 1]),
        (("N", 1), "Sigmoid", ("N",), [1]),
        (("N", 1, "T", 4), "Relu", (4,), [0, 1, 2]),
        (("N", 1, "T", 4), "Relu", ("N", "T", 4), [1]),
        ((2, 1, 8, 1), "Relu", None, [1, 3]),  # nothing is free
        ((1, 8, 1, 1), "MatMul", None, [0, 2, 3]),
        (("N", 1, "T", 4), "Relu", ("A", 4), None),  # one of two
        (("N", 8, 1, 1), "MatMul", None, None),  # both take a product
    ],
)
def test_axes_are_those_that_fit(
    shape: Shape, behind: str, declared: Shape | None, axes: list[int] | None
) -> None:
    assert axes_of(squeezing(shape, behind, declared)) == axes


@pytest.mark.parametrize("count", [1, 3])
def test_written_axes_compute_the_same(count: int, rng: np.random.Generator) -> None:
    model = squeezing(("N", 8, 1, 1), "Gemm", ("N", 5))
    x = rng.standard_normal((count, 8, 1, 1)).astype(np.float32)
    (found,) = run(prepare(model), {"x": x})
    np.testing.assert_allclose(found, x[:, :, 0, 0].astype(np.float64) @ WEIGHT, atol=1e-5)


def test_two_squeezes_are_told_one_after_the_other() -> None:
    model = squeezing(("N", 8, 1, 1), "Gemm", ())
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", TensorProto.FLOAT, (5,)))
    model.graph.node.append(helper.make_node("Squeeze", ["y"], ["z"], name="last"))
    view = GraphView(prepare(model))
    written = [node.inputs[1:] for node in view.nodes if node.op_type == "Squeeze"]
    assert [view.constant(axes).tolist() for (axes,) in written] == [[2, 3], [0]]  # type: ignore[union-attr]


def test_axes_computed_from_a_rank_are_constants() -> None:
    """``Size`` of a ``Shape`` is the rank: TensorRT takes no axes that are computed."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,4,6] x) => (float[N,4] y) '
        "{ s = Shape (x) rank = Size (s) one = Constant <value_ints=[1]> () "
        "last = Sub (rank, one) y = ReduceSum <keepdims=0> (x, last) }"
    )
    prepared = prepare(model)
    assert [node.op_type for node in GraphView(prepared).nodes] == ["ReduceSum"]
    x = np.random.default_rng(1).standard_normal((3, 4, 6)).astype(np.float32)
    (found,) = run(prepared, {"x": x})
    np.testing.assert_allclose(found, x.astype(np.float64).sum(axis=2), rtol=1e-5, atol=1e-5)
