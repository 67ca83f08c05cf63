from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.coverage import (
    coverage_of,
    openvino_kernels,
    openvino_precisions,
)
from engines.onnx_layers import weighted_layers
from tests.engine_models import convnet


def layer(kind: str, names: str, precision: str) -> dict[str, str]:
    return {"layerType": kind, "originalLayersNames": names, "runtimePrecision": precision}


def test_openvino_names_are_found_behind_fusion_and_suffixes() -> None:
    found = openvino_precisions(
        [
            layer("Convolution", "a/WithoutBiases,Multiply_51,a,relu,next_q", "u8"),
            layer("FullyConnected", "b/WithoutBiases/DequantizationMultiply", "i8"),
            layer("Convolution", "c_original", "f32"),
            layer("Reorder", "d", "i8"),
            layer("MatMul", "e", "bf16"),
        ]
    )
    assert found["a"] == found["b"] == "int8"
    assert (found["c"], found["e"]) == ("fp32", "bf16")
    assert "d" not in found


def test_a_fused_attention_counts_for_both_of_its_products() -> None:
    found = openvino_precisions(
        [
            layer("Subgraph", "scale/DequantizationMultiply,softmax,values,values_q", "i8"),
            layer("Subgraph", "dense,gelu", "f32"),
            layer("FullyConnected", "dense/WithoutBiases", "u8"),
        ]
    )
    assert found["dense"] == "int8", "the Subgraph behind a layer does not speak for it"
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["s"], name="scores"),
        helper.make_node("Mul", ["s", "c"], ["m"], name="scale"),
        helper.make_node("Softmax", ["m"], ["p"], name="softmax"),
        helper.make_node("MatMul", ["p", "v"], ["y"], name="values"),
        helper.make_node("MatMul", ["y", "w"], ["z"], name="dense"),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [8, 8]) for n in "qkvwc"]
    outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, [8, 8])]
    model = helper.make_model(helper.make_graph(nodes, "attention", inputs, outputs))
    covered = coverage_of(weighted_layers(model), found, source="test")
    assert covered.int8_layers == ("scores", "values", "dense")
    kernels = openvino_kernels(
        [{"name": "values_q/WithoutBiases"} | layer("Subgraph", "scale,softmax,values_q", "i8")]
    )
    named = coverage_of(weighted_layers(model), found, source="test", kernels=kernels)
    # The products' own names are gone: the kernel that has the Softmax is known by another.
    assert [node.aliases for node in named.nodes] == [
        ("p", "s", "softmax", "values_q"),
        ("p", "softmax", "values_q", "y"),
        ("z",),
    ]


def test_a_bias_speaks_for_the_product_that_it_was_fused_with() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="matmul"),
        helper.make_node("Add", ["m", "b"], ["y"], name="bias"),
        helper.make_node("MatMul", ["y", "w"], ["n"], name="other"),
        helper.make_node("Add", ["n", "x"], ["z"], name="residual"),
    ]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])]
    made = [helper.make_tensor_value_info("z", TensorProto.FLOAT, [4, 4])]
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, dims, [1.0] * (16 if name == "w" else 4))
        for name, dims in (("w", [4, 4]), ("b", [4]))
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", given, made, weights))
    found = openvino_precisions([layer("FullyConnected", "bias", "f32")])
    covered = coverage_of(weighted_layers(model), found, source="test")
    assert [(node.precision, node.aliases) for node in covered.nodes] == [
        ("fp32", ("bias", "m", "y")),
        ("unknown", ("n",)),
    ]


def test_share_counts_work_not_layers(rng: np.random.Generator) -> None:
    layers = weighted_layers(convnet(rng, size=8))
    assert [(n.name, n.promised) for n in layers] == [
        ("conv1_node", True),
        ("conv2_node", True),
        ("tail_node", False),
    ]
    # Output elements (16·8·8) times products a sum: 3·3·3 and 16·3·3.
    assert [n.macs for n in layers] == [1024 * 27, 1024 * 144, 1024 * 144]
    cover = coverage_of(layers, {"conv1": "int8", "conv2_node": "fp32"}, source="test")
    assert cover.int8_layers == ("conv1_node",)
    assert cover.float_layers == ("conv2_node", "tail_node")
    assert [n.name for n in cover.broken_promises] == ["conv2_node"]
    assert cover.int8_mac_share == pytest.approx(27 / 315)
    assert [n.precision for n in cover.nodes] == ["int8", "fp32", "unknown"]
    assert type(cover).from_json(cover.to_json()) == cover


def test_no_layers_no_share() -> None:
    assert coverage_of([], {}, source="test").int8_mac_share == 0


def single(op: str, left: list[int], right: list[int], out: list[int], **attributes: int) -> int:
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, left)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(np.zeros(right, np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return weighted_layers(model)[0].macs


def test_macs_by_hand() -> None:
    assert single("MatMul", [2, 5, 7], [7, 3], [2, 5, 3]) == 2 * 5 * 3 * 7
    assert single("Gemm", [5, 7], [3, 7], [5, 3], transB=1) == 5 * 3 * 7
    assert single("Gemm", [7, 5], [7, 3], [5, 3], transA=1) == 5 * 3 * 7
    # Depthwise: each of 8·4·4 outputs sums 1·3·3 products.
    assert single("Conv", [1, 8, 6, 6], [8, 1, 3, 3], [1, 8, 4, 4], group=8) == 8 * 16 * 9
    # Transposed: each of 4·3·3 inputs is spread over 2 channels of 2×2.
    assert single("ConvTranspose", [1, 4, 3, 3], [4, 2, 2, 2], [1, 2, 4, 4]) == 4 * 9 * 2 * 4


def test_dynamic_sizes_take_the_given_shape(rng: np.random.Generator) -> None:
    model = convnet(rng, size=8)
    once = weighted_layers(model)[0].macs
    assert weighted_layers(model, {"input": (4, 3, 8, 8)})[0].macs == 4 * once


def test_a_promise_holds_through_ops_that_only_move_values(rng: np.random.Generator) -> None:
    model = convnet(rng)
    conv = next(node for node in model.graph.node if node.name == "conv2_node")
    moved = conv.input[0]
    for op, inputs in (("Slice", 5), ("Concat", 2), ("Transpose", 1)):
        node = helper.make_node(op, [moved] * inputs, [f"{op}_out"])
        model.graph.node.insert(0, node)
        moved = f"{op}_out"
    conv.input[0] = moved
    assert [n.promised for n in weighted_layers(model)] == [True, True, False]
    relu = helper.make_node("Concat", [conv.input[0], "relu1"], ["mixed"])
    model.graph.node.insert(0, relu)
    conv.input[0] = "mixed"
    assert [n.promised for n in weighted_layers(model)] == [True, False, False]
