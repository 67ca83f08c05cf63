"""Bytes that are moved before they become float, and outputs that nobody reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphs.identity import graph_hash
from quantization import lint, prepare
from tests.odd_models import run

node = helper.make_node


def pixels(
    moves: list[onnx.NodeProto],
    constants: dict[str, Any] | None = None,
    *,
    kind: int = TensorProto.FLOAT,
    outputs: tuple[str, ...] = (),
) -> onnx.ModelProto:
    """From x, (N, 6, 8, 3) of uint8, over ``moves`` to t, and a Cast of t to y."""
    value = helper.make_tensor_value_info
    cast = node("Cast", ["t"], ["y"], name="cast", to=kind)
    graph = helper.make_graph(
        [*moves, cast],
        "pixels",
        [value("x", TensorProto.UINT8, ["N", 6, 8, 3])],
        [value("y", kind, None), *(value(name, TensorProto.UINT8, None) for name in outputs)],
        [numpy_helper.from_array(np.array(v), name) for name, v in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


MOVES: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "axes": ([node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])], {}),
    "red and blue": ([node("Gather", ["x", "i"], ["t"], axis=3)], {"i": [2, 1, 0]}),
    "a crop, then axes": (
        [
            node("Slice", ["x", "from", "to", "at"], ["c"]),
            node("Transpose", ["c"], ["t"], perm=[0, 3, 1, 2]),
        ],
        {"from": [1, 2], "to": [5, 6], "at": [1, 2]},
    ),
    "two halves": (
        [
            node("Slice", ["x", "from", "to", "at"], ["c"]),
            node("Concat", ["c", "x", "c"], ["t"], axis=1),
        ],
        {"from": [0], "to": [3], "at": [1]},
    ),
    "larger": (
        [node("Resize", ["x", "", "twice"], ["t"], mode="nearest")],
        {"twice": np.array([1, 2, 2, 1], np.float32)},
    ),
    "a row": ([node("Reshape", ["x", "row"], ["t"])], {"row": [0, -1]}),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, TensorProto.FLOAT) for name in MOVES),
        *((name, TensorProto.INT32) for name in MOVES if name != "larger"),  # none is resized
    ],
)
def test_bytes_are_cast_before_they_are_moved(
    name: str, kind: int, rng: np.random.Generator
) -> None:
    """TensorRT's parser knows no Transpose of uint8."""
    model = pixels(*MOVES[name], kind=kind)
    assert {finding.rule for finding in lint(model)} == {"unsupported-type"}
    prepared = prepare(model)
    assert all(each.op_type == "Cast" for each in prepared.graph.node if "x" in each.input)
    assert lint(prepared) == ()
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)
    feeds = {"x": rng.integers(0, 256, (2, 6, 8, 3)).astype(np.uint8)}
    for found, wanted in zip(run(prepared, feeds), run(model, feeds), strict=True):
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == wanted.dtype


@pytest.mark.parametrize(
    ("kind", "outputs"), [(TensorProto.INT8, ()), (TensorProto.FLOAT, ("t",))], ids=str
)
def test_what_a_cast_changes_or_others_read_stays(kind: int, outputs: tuple[str, ...]) -> None:
    prepared = prepare(pixels(*MOVES["axes"], kind=kind, outputs=outputs))
    assert [each.op_type for each in prepared.graph.node] == ["Transpose", "Cast"]


def two_outputs(
    operator: onnx.NodeProto, opset: int = 17, *, read: tuple[str, ...] = ()
) -> onnx.ModelProto:
    """From x, (2, 4, 8), over an operator to y; others of its outputs are the model's, too."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [operator],
        "outputs",
        [value("x", TensorProto.FLOAT, [2, 4, 8])],
        [value(name, TensorProto.FLOAT, None) for name in ("y", *read)],
        [numpy_helper.from_array(np.full(8, 0.5, np.float32), "eight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize(
    "operator",
    [
        node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2]),
        node("LayerNormalization", ["x", "eight"], ["y", "m", "d"]),
        node("LayerNormalization", ["x", "eight"], ["y", "", "d"]),
    ],
    ids=lambda each: f"{each.op_type} {' '.join(each.output)}",
)
def test_outputs_that_nobody_reads_go(operator: onnx.NodeProto, rng: np.random.Generator) -> None:
    model = two_outputs(operator)
    assert {finding.rule for finding in lint(model)} == {"unsupported-setting"}
    prepared = prepare(model)
    assert list(prepared.graph.node[0].output) == ["y"]
    assert lint(prepared) == ()
    feeds = {"x": rng.standard_normal((2, 4, 8)).astype(np.float32)}
    np.testing.assert_array_equal(run(prepared, feeds)[0], run(model, feeds)[0])


def test_outputs_that_are_read_stay() -> None:
    normalized = node("LayerNormalization", ["x", "eight"], ["y", "m", "d"])
    prepared = prepare(two_outputs(normalized, read=("d",)))
    assert list(prepared.graph.node[0].output) == ["y", "", "d"]
