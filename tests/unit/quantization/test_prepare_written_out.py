"""Operators that are written in others compute the same as onnxruntime's own kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from artefacts.errors import ModelError
from graphs.identity import graph_hash
from graphs.view import GraphView
from quantization import prepare
from tests.odd_models import run

ML = "ai.onnx.ml"
NAN = float("nan")


def in_front(
    op_type: str, domain: str, *, opset: int, kind: int = TensorProto.FLOAT, **attributes: Any
) -> onnx.ModelProto:
    """An operator in front of a product with a weight."""
    shape = ["N", 6] if domain else ["N", 6, 5, 4]
    product = ["s", "w"] if domain else ["f", "w"]
    nodes = [
        helper.make_node(op_type, ["x"], ["s"], name="first", domain=domain, **attributes),
        *([] if domain else [helper.make_node("Flatten", ["s"], ["f"])]),
        helper.make_node("MatMul", product, ["y"], name="product"),
    ]
    weight = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "in_front",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(ML, 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


NUMBERS = [0.5, -1.0, 2.0, 0.25, 3.0, -0.125]
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "scaler": ("Scaler", ML, {"offset": NUMBERS, "scale": NUMBERS[::-1]}),
    "scaler of one number": ("Scaler", ML, {"offset": [0.5], "scale": [2.0]}),
    "imputer of nan": (
        "Imputer",
        ML,
        {"imputed_value_floats": NUMBERS, "replaced_value_float": NAN},
    ),
    "imputer of a number": (
        "Imputer",
        ML,
        {"imputed_value_floats": [7.0], "replaced_value_float": 0.0},
    ),
    "normalizer L1": ("Normalizer", ML, {"norm": "L1"}),
    "normalizer L2": ("Normalizer", ML, {"norm": "L2"}),
    "normalizer of the largest": ("Normalizer", ML, {}),
    "length of channels": ("GlobalLpPool", "", {}),
    "sums of channels": ("GlobalLpPool", "", {"p": 1}),
}


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("name", CASES)
def test_written_out_is_the_same(name: str, opset: int, rng: np.random.Generator) -> None:
    op_type, domain, attributes = CASES[name]
    model = in_front(op_type, domain, opset=opset, **attributes)
    prepared = prepare(model)
    left = {node.op_type for node in GraphView(prepared).nodes}
    assert not left & {op_type, f"{domain}.{op_type}"}
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)
    x = rng.standard_normal([4, 6] if domain else [4, 6, 5, 4]).astype(np.float32)
    x[0] = 0  # a divisor of nothing, a missing number
    if NAN in attributes.values():
        x[1, ::2] = NAN
    np.testing.assert_allclose(
        run(prepared, {"x": x})[0], run(model, {"x": x})[0], rtol=1e-5, atol=1e-5
    )


LINEAR = {"coefficients": [*NUMBERS, *NUMBERS[::-1], *NUMBERS], "intercepts": [0.5, -1.0, 0.25]}
LINEAR_CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "regressor": ("LinearRegressor", {**LINEAR, "targets": 3}),
    "classifier": ("LinearClassifier", {**LINEAR, "classlabels_ints": [7, 3, 5]}),
    "classifier of probabilities": (
        "LinearClassifier",
        {**LINEAR, "classlabels_ints": [0, 1, 2], "post_transform": "SOFTMAX"},
    ),
    "classifier, each for itself": (
        "LinearClassifier",
        {**LINEAR, "classlabels_ints": [0, 1, 2], "post_transform": "LOGISTIC"},
    ),
}


def linear_model(op_type: str, **attributes: Any) -> onnx.ModelProto:
    value, kinds = helper.make_tensor_value_info, TensorProto
    outputs = [value("scores", kinds.FLOAT, ["N", 3])]
    if op_type == "LinearClassifier":
        outputs.insert(0, value("label", kinds.INT64, ["N"]))
    names = [each.name for each in outputs]
    node = helper.make_node(op_type, ["x"], names, name="linear", domain=ML, **attributes)
    given = [value("x", kinds.FLOAT, ["N", 6])]
    graph = helper.make_graph([node], "linear", given, outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("name", LINEAR_CASES)
def test_linear_models_are_products(name: str, rng: np.random.Generator) -> None:
    op_type, attributes = LINEAR_CASES[name]
    model = linear_model(op_type, **attributes)
    prepared = prepare(model)
    assert "Gemm" in {node.op_type for node in GraphView(prepared).nodes}
    assert not [node for node in prepared.graph.node if node.domain == ML]
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)
    x = rng.standard_normal((9, 6)).astype(np.float32)
    for found, wanted in zip(run(prepared, {"x": x}), run(model, {"x": x}), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_classifier_of_two_classes_by_one_row_stays() -> None:
    attributes = {"coefficients": NUMBERS, "intercepts": [0.5], "classlabels_ints": [0, 1]}
    prepared = prepare(linear_model("LinearClassifier", **attributes))
    assert [node.op_type for node in GraphView(prepared).nodes] == ["ai.onnx.ml.LinearClassifier"]


@pytest.mark.parametrize("rows", [1, 4])
def test_labels_are_gathered(rows: int, rng: np.random.Generator) -> None:
    value, kinds = helper.make_tensor_value_info, TensorProto
    node = helper.make_node("ArrayFeatureExtractor", ["x", "i"], ["y"], name="pick", domain=ML)
    shape: list[Any] = [6] if rows == 1 else ["N", 6]
    graph = helper.make_graph(
        [node],
        "pick",
        [value("x", kinds.INT64, shape), value("i", kinds.INT64, [1, "M"])],
        [value("y", kinds.INT64, [None, None])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    x = rng.integers(0, 99, (6,) if rows == 1 else (rows, 6))
    feeds = {"x": x, "i": np.array([[4, 0, 4]])}
    prepared = prepare(model)
    assert not [node for node in prepared.graph.node if node.domain == ML]
    np.testing.assert_array_equal(run(prepared, feeds)[0], run(model, feeds)[0])


def test_integers_are_scaled_as_floats(rng: np.random.Generator) -> None:
    model = in_front("Scaler", ML, opset=17, kind=TensorProto.INT64, offset=NUMBERS, scale=NUMBERS)
    x = rng.integers(-9, 9, (4, 6))
    np.testing.assert_allclose(run(prepare(model), {"x": x})[0], run(model, {"x": x})[0], rtol=1e-5)


def test_what_is_no_arithmetic_stays() -> None:
    model = in_front("Normalizer", ML, opset=17)
    model.graph.node[0].op_type = "Binarizer"
    assert "ai.onnx.ml.Binarizer" in {node.op_type for node in GraphView(prepare(model)).nodes}


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize(
    ("indices", "depth", "values"),
    [
        ("int32", "int64", "float32"),
        ("int32", "int32", "int32"),
        ("uint8", "int64", "float32"),
        ("float32", "int64", "float32"),
        ("int64", "int32", "int64"),
        ("int64", "float32", "float32"),
        ("int64", "int64", "bool"),
    ],
)
def test_one_hot_is_counted_in_types_that_onnxruntime_has(
    indices: str, depth: str, values: str, axis: int, rng: np.random.Generator
) -> None:
    kinds = [helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in (indices, values)]
    graph = helper.make_graph(
        [helper.make_node("OneHot", ["x", "d", "v"], ["y"], name="hot", axis=axis)],
        "hot",
        [helper.make_tensor_value_info("x", kinds[0], ["N", 5])],
        [helper.make_tensor_value_info("y", kinds[1], ["N", None, None])],
        [
            numpy_helper.from_array(np.array(7, depth), "d"),
            numpy_helper.from_array(np.array([0, 1], values), "v"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    prepared = prepare(model)
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)
    x = rng.integers(0, 7, (3, 5)).astype(indices)
    rows = np.eye(7, dtype=values)[x.astype(int)]
    (found,) = run(prepared, {"x": x})
    assert found.dtype == np.dtype(values)
    np.testing.assert_array_equal(found, rows if axis == -1 else rows.transpose(0, 2, 1))


def test_booleans_are_chosen_from(rng: np.random.Generator) -> None:
    value, kind = helper.make_tensor_value_info, TensorProto.BOOL
    graph = helper.make_graph(
        [helper.make_node("Where", ["c", "a", "b"], ["y"], name="choice")],
        "choice",
        [value(name, kind, ["N", 5]) for name in "cab"],
        [value("y", kind, ["N", 5])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feeds = {name: rng.random((3, 5)) > 0.5 for name in "cab"}
    (found,) = run(prepare(model), feeds)
    np.testing.assert_array_equal(found, np.where(feeds["c"], feeds["a"], feeds["b"]))


@pytest.mark.parametrize("limit", [[5], [[5]]], ids=str)
def test_ends_of_a_range_are_scalars(limit: list[Any]) -> None:
    """AffineGrid as its function writes it: runtimes take a computed list for an end."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Identity", ["limit"], ["computed"]),
        helper.make_node("Range", ["zero", "computed", "one"], ["steps"]),
        helper.make_node("Cast", ["steps"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "floats"], ["y"]),
    ]
    stored = {"limit": np.array(limit), "zero": np.array(0), "one": np.array(1)}
    graph = helper.make_graph(
        nodes,
        "steps",
        [value("x", TensorProto.FLOAT, ["N", 5])],
        [value("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (found,) = run(prepare(model), {"x": np.zeros((2, 5), np.float32)})
    np.testing.assert_array_equal(found, [[0, 1, 2, 3, 4]] * 2)


def test_a_scan_with_a_batch_of_its_own_is_refused() -> None:
    """Before opset 9; onnx converts it to one of other inputs."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "next"], ["sum"]),
            helper.make_node("Identity", ["sum"], ["out"]),
        ],
        "body",
        [value(name, TensorProto.FLOAT, [2]) for name in ("state", "next")],
        [value(name, TensorProto.FLOAT, [2]) for name in ("sum", "out")],
    )
    node = helper.make_node(
        "Scan", ["", "first", "x"], ["y", "z"], name="sums", body=body, num_scan_inputs=1
    )
    inputs = [value("first", TensorProto.FLOAT, [1, 2]), value("x", TensorProto.FLOAT, [1, 3, 2])]
    outputs = [value("y", TensorProto.FLOAT, [1, 2]), value("z", TensorProto.FLOAT, [1, 3, 2])]
    graph = helper.make_graph([node], "scan", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=4)
    with pytest.raises(ModelError, match=r"Scan sums of opset 8 has a batch.*opset_version=13"):
        prepare(model)
