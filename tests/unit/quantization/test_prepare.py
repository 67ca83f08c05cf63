"""Preparing keeps results, names and axes; twice is once; the input stays as it was."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, parser

from artefacts.errors import ModelError
from graphs.identity import graph_hash
from graphs.operators import OPERATORS
from graphs.shapes import check
from graphs.walk import operator
from quantization import prepare
from tests.odd_models import NAMES, odd_model, random_feeds, run


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def parse(body: str, opset: int = 13, signature: str = "float[N,4,4,4] x") -> onnx.ModelProto:
    header = f'<ir_version: 7, opset_import: ["" : {opset}, "my" : 1]>'
    return parser.parse_model(f"{header} g ({signature}) => (float[N,C,H,W] y) {{ {body} }}")


@pytest.mark.parametrize("name", NAMES)
def test_results_names_and_axes_stay(name: str, rng: np.random.Generator) -> None:
    model = odd_model(name, rng)
    before = model.SerializeToString(deterministic=True)
    prepared = prepare(model)
    assert model.SerializeToString(deterministic=True) == before
    check(prepared)
    constant = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constant]
    assert list(prepared.graph.input) == inputs
    assert [v.name for v in prepared.graph.output] == [v.name for v in model.graph.output]
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)
    for batch in (1, 3):
        feeds = random_feeds(model, rng, batch)
        for expected, found in zip(run(model, feeds), run(prepared, feeds), strict=True):
            np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tf_transposes", ["Conv", "Relu"]),
        ("keras_dense", ["Flatten", "Gemm"]),
        ("tf_sub_div", ["Conv"]),
        ("weight_transposed", ["Conv"]),
        ("opset8_batchnorm", ["Conv"]),
        ("batchnorm_transposed", ["ConvTranspose", "Relu"]),
        ("batchnorm_gemm", ["Flatten", "Gemm"]),
        ("batchnorm_gemm_transposed", ["Flatten", "Gemm"]),
        ("batchnorm_read_twice", ["Conv", "BatchNormalization", "Add"]),
        ("batchnorm_first", ["BatchNormalization", "Conv"]),
        ("batchnorm_training", ["Conv", "BatchNormalization"]),
        ("noops", ["Relu"]),
        ("all_noops", ["Identity"]),
        ("reversed_slice", ["Slice"]),
        ("if_constant", ["Relu", "Conv"]),
        ("loop", ["Loop"]),
        ("constants", ["Reshape"]),
        ("resnet_shape_maths", ["Reshape"]),
    ],
)
def test_what_is_left(name: str, expected: list[str], rng: np.random.Generator) -> None:
    assert ops(prepare(odd_model(name, rng))) == expected


def test_tied_weight_stays_one_tensor(rng: np.random.Generator) -> None:
    prepared = prepare(odd_model("weight_tied", rng))
    assert len({node.input[1] for node in prepared.graph.node if node.op_type == "Conv"}) == 1


@pytest.mark.parametrize("opset", range(7, 13))
def test_opset_is_raised_to_13(opset: int, rng: np.random.Generator) -> None:
    model = parse("y = Relu (x)", opset)
    assert prepare(model).opset_import[0].version == 13


@pytest.mark.parametrize("opset", [13, 17, 19, 21])
def test_newer_opset_stays(opset: int) -> None:
    assert prepare(parse("y = Relu (x)", opset)).opset_import[0].version == opset


def test_grouped_transposed_convolution_folds(rng: np.random.Generator) -> None:
    model = parse("c = ConvTranspose <group=2> (x, w) y = BatchNormalization (c, g, b, g, g)")
    for name, shape in {"w": (4, 3, 2, 2), "g": (6,), "b": (6,)}.items():
        value = rng.uniform(0.5, 2, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    prepared = prepare(model)
    assert ops(prepared) == ["ConvTranspose"]
    feeds = random_feeds(model, rng)
    np.testing.assert_allclose(run(prepared, feeds)[0], run(model, feeds)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op_type", sorted(name for name in OPERATORS if "." not in name))
def test_custom_operators_named_as_onnx_names_its_own_are_left(op_type: str) -> None:
    """They may have no input at all, and mean anything."""
    for inputs in ("", "a"):
        model = parse(f"a = Relu (x) b = my.{op_type} ({inputs}) c = Relu (b) y = Add (a, c)")
        assert f"my.{op_type}" in [operator(node) for node in prepare(model).graph.node]


def test_fold_that_would_overflow_is_left() -> None:
    model = parse("c = Conv (x, w) y = Mul (c, k)")
    model.graph.initializer.extend(
        [
            onnx.numpy_helper.from_array(np.full((4, 4, 1, 1), 1e30, np.float32), "w"),
            onnx.numpy_helper.from_array(np.full((4, 1, 1), 1e30, np.float32), "k"),
        ]
    )
    assert ops(prepare(model)) == ["Conv", "Mul"]


def test_nodes_get_unique_stable_names() -> None:
    model = parse("a = Relu (x) b = Relu (a) c = Relu (b) y = Relu (c)")
    for node, name in zip(model.graph.node, ["same", "same", "", ""], strict=True):
        node.name = name
    names = [node.name for node in prepare(model).graph.node]
    assert names == ["same", "same:b", "Relu:c", "Relu:y"]


def test_unsorted_nodes_are_sorted() -> None:
    model = parse("a = Relu (x) b = Neg (a) y = Abs (b)")
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert ops(prepare(model)) == ["Relu", "Neg", "Abs"]


def test_quantized_constants_are_not_folded() -> None:
    body = "d = DequantizeLinear (q, s, z) y = Conv (x, d)"
    model = parse(body)
    for value, name in ((np.ones((4, 4, 1, 1), np.int8), "q"), (np.float32(0.5), "s")):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.int8), "z"))
    assert ops(prepare(model)) == ["DequantizeLinear", "Conv"]


def test_fold_does_not_blow_up() -> None:
    model = parse("k = ConstantOfShape (huge) r = ReduceMax <keepdims=0> (k) y = Add (x, r)")
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([10**6, 10**6], np.int64), "huge")
    )
    assert "ConstantOfShape" in ops(prepare(model))


def test_many_folds_do_not_blow_up() -> None:
    body = "".join(f"k{i} = ConstantOfShape (large) " for i in range(40))
    body += "".join(f"r{i} = ReduceSum <keepdims=0> (k{i}) " for i in range(40))
    names = ", ".join(f"r{i}" for i in range(40))
    model = parse(f"{body} s = Sum ({names}) y = Add (x, s)")
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([1 << 20, 4], np.int64), "large")
    )
    prepared = prepare(model)
    assert sum(len(t.raw_data) for t in prepared.graph.initializer) < 1 << 27
    assert "ConstantOfShape" in ops(prepared)


def test_functions_that_multiply_are_refused() -> None:
    levels = "".join(
        f'<opset_import: ["" : 17, "local" : 1], domain: "local"> '
        f"f{i} (a) => (b) {{ t = local.f{i + 1} (a) b = local.f{i + 1} (t) }}\n"
        for i in range(40)
    )
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "local" : 1]> '
        "g (float[N,4] x) => (float[N,4] y) { y = local.f0 (x) }\n"
        + levels
        + '<opset_import: ["" : 17], domain: "local"> f40 (a) => (b) { b = Neg (a) }'
    )
    with pytest.raises(ModelError, match=rf"unfolds to {2**40} nodes, expected at most 100000"):
        prepare(model)


def test_functions_in_a_circle_are_refused() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[N,4] x) => (float[N,4] y) { y = local.twice (x) }
        <opset_import: ["" : 17, "local" : 1], domain: "local">
        twice (a) => (b) { b = local.twice (a) }"""
    )
    with pytest.raises(ModelError, match=r"calls itself|not valid ONNX"):
        prepare(model)


def test_custom_operator_is_left_and_said(caplog: pytest.LogCaptureFixture) -> None:
    model = parse("a = my.Blur (x) i = Identity (a) y = Relu (i)")
    with caplog.at_level(logging.WARNING):
        assert ops(prepare(model)) == ["Blur", "Relu"]
    assert "my.Blur" in caplog.text


def test_training_mode_is_said(caplog: pytest.LogCaptureFixture, rng: np.random.Generator) -> None:
    prepare(odd_model("batchnorm_training", rng))
    assert "training mode" in caplog.text


def test_functions_are_inlined() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[N,4] x) => (float[N,4] y) { y = local.twice (x) }
        <opset_import: ["" : 17], domain: "local"> twice (a) => (b) { b = Add (a, a) }"""
    )
    prepared = prepare(model)
    assert ops(prepared) == ["Add"]
    assert not prepared.functions


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("a = Add (x, b) b = Relu (a) y = Relu (b)", "cycle"),
        ("a = Relu (x) a = Neg (x) y = Relu (a)", "'a' twice"),
        ("x = Relu (x) y = Relu (x)", "'x' twice"),
        ("y = Relu (nowhere)", "nowhere"),
        ("y = Nonsense (x)", "Nonsense"),
        ("y = Add (x)", "Add"),
        ("k = Cast <to=7> (x) y = Add (x, k)", "type"),
    ],
)
def test_invalid_graph_is_a_sentence(body: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        prepare(parse(body))


def test_control_characters_in_names_are_refused() -> None:
    model = parse("a = Relu (x) y = Relu (a)")
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "a\nb: 3c010204"
    with pytest.raises(ModelError, match=r"control characters"):
        prepare(model)


def test_missing_opset_is_a_sentence() -> None:
    model = parse("y = Relu (x)")
    del model.opset_import[:]
    with pytest.raises(ModelError, match="opset"):
        prepare(model)


@pytest.mark.parametrize("shape", [[], [0], [0, 3], [1, 0, 4]])
def test_scalar_and_empty_tensors(shape: list[int]) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    nodes = [helper.make_node("Mul", ["x", "k"], ["a"]), helper.make_node("Identity", ["a"], ["y"])]
    k = helper.make_tensor("k", TensorProto.FLOAT, [], [2.0])
    graph = helper.make_graph(nodes, "g", [x], [y], [k])
    prepared = prepare(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    )
    feeds = {"x": np.ones(shape, np.float32)}
    np.testing.assert_array_equal(run(prepared, feeds)[0], feeds["x"] * 2)


def test_axes_named_question_mark_are_free() -> None:
    """PaddlePaddle: -1 for the batch, "?" for height and for width."""
    model = parse("y = Relu (x)")
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_value = -1
    dims[2].dim_param = dims[3].dim_param = "?"
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    found = prepare(model).graph.input[0].type.tensor_type.shape.dim
    assert [dim.WhichOneof("value") for dim in found] == [None, "dim_value", None, None]
