"""Which weighted layers stay in floating point: each rule where it acts and where it must not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graphs.view import GraphView
from quantization.placement import Placement, place
from quantization.prepare.prepare import prepare
from tests.networks import Builder, bert, unet, vit


def rules_of(placement: Placement) -> dict[str, str]:
    """Node name → rule that kept it in floating point."""
    return {layer.node: layer.rule for layer in placement.floating}


def conv_chain(channels: int, filters: int, **options: int) -> onnx.ModelProto:
    """A wide Conv, the Conv under test ``n_Conv_1``, and a wide one behind it."""
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), channels))
    x = net.relu(net.conv(x, filters, **options))
    return net.build("chain", net.relu(net.conv(x, 64)))


def single_matmul(rows: int, depth: int, columns: int) -> onnx.ModelProto:
    """A small MatMul ``n_MatMul_0`` with a large one behind it, so that it is no output layer."""
    net = Builder()
    x = net.linear(net.input("x", (rows, depth)), depth, columns)
    wide = net.op("Resize", x, "", "", net.ints(64, 64), mode="nearest")
    return net.build("matmul", net.linear(wide, 64, 64))


@pytest.mark.parametrize(
    ("channels", "filters", "options", "floats"),
    [
        pytest.param(32, 32, {}, False, id="wide"),
        pytest.param(32, 12, {}, False, id="12 of 32, divisible and one side wide"),
        pytest.param(12, 12, {}, True, id="12 of 12"),
        pytest.param(8, 8, {}, True, id="8 of 8, divisible but neither side wide"),
        pytest.param(10, 21, {}, True, id="neither divisible by 8"),
        pytest.param(32, 32, {"groups": 32}, False, id="depthwise 3x3"),
        pytest.param(20, 20, {"groups": 20}, True, id="depthwise of 20 channels"),
        pytest.param(32, 32, {"groups": 32, "kernel": 1}, True, id="depthwise 1x1"),
        pytest.param(64, 64, {"groups": 4}, False, id="groups of 16"),
    ],
)
def test_small_convolutions_stay_float(
    channels: int, filters: int, options: dict[str, int], floats: bool
) -> None:
    rules = rules_of(place(conv_chain(channels, filters, **options)))
    expected = "few_group_channels" if options.get("groups", 1) > 1 else "few_channels"
    assert rules.get("n_Conv_1") == (expected if floats else None)


def test_first_convolution_of_three_channels_is_int8() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("image", (1, 3, 16, 16)), 8))
    x = net.relu(net.conv(x, 64))
    placement = place(net.build("stem", net.relu(net.conv(x, 64))))
    assert "n_Conv_0" in placement.int8_nodes


@pytest.mark.parametrize(
    ("rows", "depth", "columns", "rule"),
    [
        (8, 32, 32, None),
        (1, 32, 32, "gemv"),
        (8, 32, 1, "gemv"),
        (8, 12, 32, "small_matmul"),
        (8, 32, 12, "small_matmul"),
    ],
)
def test_small_products_stay_float(rows: int, depth: int, columns: int, rule: str | None) -> None:
    placement = place(single_matmul(rows, depth, columns))
    assert rules_of(placement).get("n_MatMul_0") == rule


def test_dynamic_rows_are_no_matrix_vector_product() -> None:
    net = Builder()
    x = net.relu(net.linear(net.input("x", ("N", 64)), 64, 64))
    assert len(place(net.build("mlp", net.linear(x, 64, 64))).int8_nodes) == 2


def test_leading_axes_count_as_rows() -> None:
    net = Builder()
    x = net.relu(net.linear(net.input("x", (8, 1, 64)), 64, 64))
    assert len(place(net.build("mlp", net.linear(x, 64, 64))).int8_nodes) == 2


def test_computed_convolution_weights_stay_float() -> None:
    net = Builder()
    x, w = net.input("x", (1, 32, 8, 8)), net.input("w", (32, 32, 3, 3))
    y = net.op("Conv", net.relu(net.conv(x, 32)), net.relu(w), kernel_shape=[3, 3])
    rules = rules_of(place(net.build("computed", y)))
    assert rules == {"n_Conv_1": "computed_weights"}


def test_matmul_of_two_activations_reads_both_as_int8() -> None:
    net = Builder()
    x, y = net.input("x", (2, 32, 32)), net.input("y", (2, 32, 32))
    placement = place(net.build("product", net.op("MatMul", net.relu(x), net.relu(y))))
    edges = {(edge.node, edge.index, edge.tensor) for edge in placement.activations}
    assert edges == {("n_MatMul_0", 0, "Relu_0"), ("n_MatMul_0", 1, "Relu_1")}
    assert placement.weights == ()


@pytest.mark.parametrize(
    ("size", "width", "why"),
    [
        pytest.param(32, 64, None, id="17 positions, heads of 32"),
        pytest.param(32, 128, None, id="heads of 64"),
        pytest.param(32, 96, "heads of 48 channels", id="heads of 48"),
        pytest.param(184, 64, "over 530×530 positions", id="530 positions"),
        pytest.param(176, 64, None, id="485 positions"),
    ],
)
def test_attention_is_int8_where_it_fuses(size: int, width: int, why: str | None) -> None:
    placement = place(vit(size=size, width=width, layers=1))
    found = {f.node: f.why for f in placement.floating if f.rule == "unfused_attention"}
    assert set(found) == (set() if why is None else {"n_MatMul_3", "n_MatMul_4"})
    assert all(why in text for text in found.values() if why)
    edges = {(edge.node, edge.index) for edge in placement.activations}
    assert (("n_MatMul_3", 0) in edges) == (why is None)


@pytest.mark.parametrize(("size", "known"), [(32, ""), (184, "over 530×530 positions")])
def test_positions_behind_a_free_batch_are_counted(size: int, known: str) -> None:
    model = prepare(vit(size=size, batch="N", class_last=True, layers=1))
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    positions = (size // 8) ** 2 + 1
    assert GraphView(model).shape(softmax.input[0]) == (None, 2, positions, positions)
    found = {f.why for f in place(model).floating if f.rule == "unfused_attention"}
    assert [known in why for why in found] == ([True] if known else [])


def test_free_axes_behind_the_batch_stay_unknown() -> None:
    placement = place(bert(batch="N", length="length", layers=1))
    found = {f.why for f in placement.floating if f.rule == "unfused_attention"}
    assert len(found) == 1
    assert "unknown×unknown positions" in found.pop()


@pytest.mark.parametrize("batch", ["N", "?"])
def test_sizes_of_the_batch_stay_unknown(batch: str) -> None:
    """Attention between the samples of a batch: as many positions as samples."""
    net = Builder()
    x = net.linear(net.input("x", (batch, 64)), 64, 64)
    scores = net.op("MatMul", x, net.op("Transpose", x, perm=[1, 0]))
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), x)
    model = prepare(net.build("set", net.linear(net.relu(mixed), 64, 64)))
    found = {f.why for f in place(model).floating if f.rule == "unfused_attention"}
    assert len(found) == 1
    assert "unknown×unknown positions" in found.pop()


def test_attention_of_unknown_length_stays_float() -> None:
    placement = place(bert(length="length", layers=1))
    found = {f.node: f.why for f in placement.floating if f.rule == "unfused_attention"}
    assert len(found) == 2
    assert all("unknown×unknown positions" in why for why in found.values())


def test_mask_scale_and_softmax_are_never_quantized() -> None:
    placement = place(bert(layers=1))
    ops = {edge.node.split("_")[1] for edge in placement.activations}
    assert ops == {"MatMul"}
    assert placement.fixed == {}
    assert "Softmax_0" in placement.tensors
    assert place(bert(layers=1), profile="dla").fixed == {"Softmax_0": 1.0}


def test_squeeze_and_excite_stays_float_and_its_result_is_quantized() -> None:
    net = Builder()
    x = net.silu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    pooled = net.op("GlobalAveragePool", x)
    gate = net.op("Sigmoid", net.conv(net.silu(net.conv(pooled, 16, 1)), 32, 1))
    gated = net.op("Mul", x, gate)
    model = net.build("se", net.relu(net.conv(gated, 64)))
    placement = place(model)
    assert rules_of(placement) == {"n_Conv_1": "squeeze_excite", "n_Conv_2": "squeeze_excite"}
    assert {edge.tensor for edge in placement.activations} == {"x", gated}


def test_pooled_classifier_is_no_squeeze_and_excite() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (16, 32, 8, 8)), 64))
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    hidden = net.relu(net.gemm(x, 64, 64))
    placement = place(net.build("head", net.gemm(hidden, 64, 32)))
    assert "squeeze_excite" not in rules_of(placement).values()


def heads(classes: int) -> onnx.ModelProto:
    """A trunk, a box head through DFL and a class head with a sigmoid, as YOLOv8 exports them."""
    net = Builder()
    x = net.input("x", (1, 32, 16, 16))
    for _ in range(3):
        x = net.silu(net.conv(x, 64))
    box = net.conv(x, 64, 1)
    box = net.op("Transpose", net.op("Reshape", box, net.ints(1, 4, 16, 256)), perm=[0, 2, 1, 3])
    bins = net.constant(np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1))
    box = net.op("Conv", net.op("Softmax", box, axis=1), bins, kernel_shape=[1, 1])
    scores = net.op("Sigmoid", net.conv(x, classes, 1))
    return net.build("heads", box, scores)


def test_detection_heads_stay_float_also_before_dfl() -> None:
    rules = rules_of(place(heads(classes=8)))
    assert rules == {
        "n_Conv_3": "output_layers",
        "n_Conv_4": "output_layers",
        "n_Conv_5": "output_layers",
    }


def test_output_layers_that_are_much_of_the_work_are_int8() -> None:
    rules = rules_of(place(heads(classes=512)))
    assert rules == {"n_Conv_4": "output_layers"}, "the mean of DFL stays float whatever it costs"


def test_layers_of_intermediate_outputs_are_no_output_layers() -> None:
    net = Builder()
    x = net.input("x", (1, 32, 8, 8))
    first = net.relu(net.conv(x, 64))
    y = net.relu(net.conv(net.relu(net.conv(first, 64)), 64))
    placement = place(net.build("features", first, net.conv(y, 16, 1)))
    assert rules_of(placement) == {"n_Conv_3": "output_layers"}


def test_float16_layers_keep_their_type() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    half = net.op("Cast", x, to=TensorProto.FLOAT16)
    weight = net.constant(np.ones((32, 32), np.float16))
    y = net.op("MatMul", net.op("Reshape", half, net.ints(64, 32)), weight)
    model = net.build("mixed", x)
    assert place(model).int8_nodes == ("n_Conv_0",)
    model.graph.output.append(helper.make_tensor_value_info(y, TensorProto.FLOAT16, [64, 32]))
    assert rules_of(place(model)) == {"n_MatMul_0": "not_float32"}


def test_recurrent_and_unknown_operators_are_left_alone_and_said() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    y = net.op("MyOp", x)
    net.nodes[-1].domain = "com.example"
    net.nodes[-1].output[0] = "custom"
    graph = helper.make_graph(
        [*net.nodes, helper.make_node("Relu", ["custom"], ["y"], name="last")],
        "custom",
        net.inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        net.initializers,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    placement = place(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    left = {f.node: f.why for f in placement.floating}
    assert left == {f"n_{y}": "com.example.MyOp is an operator unknown here"}
    assert placement.int8_nodes == ("n_Conv_0",)


def test_transposed_convolutions_are_promised_where_they_run() -> None:
    model = unet()
    transposed = {n.name for n in model.graph.node if n.op_type == "ConvTranspose"}
    assert transposed
    assert transposed <= set(place(model).int8_nodes)
    rules = rules_of(place(model, lacking={"ConvTranspose"}))
    assert {name for name, rule in rules.items() if rule == "lacking_kernel"} == transposed
