"""Multiply-accumulates against hand counts."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from engines.coverage import coverage_of
from engines.onnx_layers import weighted_layers
from graphs.macs import macs, network_macs, work
from graphs.view import GraphView
from quantization import place
from tests.networks import Builder


def model_of(text: str, shapes: dict[str, tuple[int, ...]], opset: int = 17) -> onnx.ModelProto:
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}')
    for name, shape in shapes.items():
        values = np.full(shape, 0.01, np.float32) if shape else np.array([1])
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def add(model: onnx.ModelProto, **constants: np.ndarray) -> None:
    model.graph.initializer.extend(
        numpy_helper.from_array(v, name) for name, v in constants.items()
    )


def first(model: onnx.ModelProto) -> int:
    """MACs of the first node: by its view, which engines' list must agree with."""
    view = GraphView(model)
    found = macs(view.nodes[0], view.nominal_shape)
    assert [layer.macs for layer in weighted_layers(model)[:1]] == [found]
    return found


@pytest.mark.parametrize(("op_type", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_each_step_multiplies_by_both_matrices(op_type: str, gates: int, directions: int) -> None:
    direction = "bidirectional" if directions == 2 else "forward"
    model = model_of(
        f"g (float[6,5,8] x) => (float[6,{directions},5,16] y) "
        f'{{ y = {op_type} <hidden_size=16, direction="{direction}"> (x, w, r) }}',
        {"w": (directions, gates * 16, 8), "r": (directions, gates * 16, 16)},
    )
    steps_and_sequences = 6 * 5
    assert first(model) == steps_and_sequences * directions * gates * 16 * (8 + 16)


def test_a_recurrent_layer_without_its_first_output_counts() -> None:
    model = model_of(
        "g (float[6,5,8] x) => (float[1,5,16] h) { , h = GRU <hidden_size=16> (x, w, r) }",
        {"w": (1, 48, 8), "r": (1, 48, 16)},
    )
    assert first(model) == 6 * 5 * 48 * (8 + 16)


@pytest.mark.parametrize(
    ("equation", "operands", "output", "expected"),
    [
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)], (2, 3, 5), 2 * 3 * 4 * 5),
        ("ij,jk", [(3, 4), (4, 5)], (3, 5), 3 * 4 * 5),
        ("bhqd, bhkd -> bhqk", [(1, 2, 7, 8), (1, 2, 9, 8)], (1, 2, 7, 9), 2 * 7 * 9 * 8),
        ("...ij,jk->...ik", [(2, 6, 3, 4), (4, 5)], (2, 6, 3, 5), 2 * 6 * 3 * 4 * 5),
        ("i,j->ij", [(3,), (4,)], (3, 4), 12),
        # ab·bc leaves ac, which meets cd.
        ("ab,bc,cd->ad", [(2, 3), (3, 4), (4, 5)], (2, 5), 2 * 3 * 4 + 2 * 4 * 5),
        ("ijk->ik", [(2, 3, 4)], (2, 4), 0),
    ],
)
def test_einsum_is_contracted_from_the_left(
    equation: str,
    operands: list[tuple[int, ...]],
    output: tuple[int, ...],
    expected: int,
) -> None:
    names = [f"x{place}" for place in range(len(operands))]
    given = ", ".join(
        f"float[{','.join(map(str, shape))}] {name}"
        for name, shape in zip(names, operands, strict=True)
    )
    made = ",".join(map(str, output))
    model = model_of(
        f"g ({given}) => (float[{made}] y) "
        f'{{ y = Einsum <equation="{equation}"> ({", ".join(names)}) }}',
        {},
    )
    assert first(model) == expected


def test_other_operators_do_not_count() -> None:
    model = model_of("g (float[2,3] x) => (float[2,3] y) { y = Mul(x, x) }", {})
    view = GraphView(model)
    assert macs(view.nodes[0], view.nominal_shape) == 0
    assert weighted_layers(model) == []


def test_three_float_lstms_and_one_gemm_are_not_all_int8() -> None:
    layers = "".join(
        f"s{i}, h{i}, c{i} = LSTM <hidden_size=16> (x{i}, w{i}, r{i}) x{i + 1} = Squeeze(s{i}, one)"
        for i in range(3)
    )
    model = model_of(
        f"g (float[6,1,16] x0) => (float[6,32] y) "
        f"{{ {layers} rows = Reshape(x3, shape) y = Gemm(rows, m) }}",
        {
            **{f"w{i}": (1, 64, 16) for i in range(3)},
            **{f"r{i}": (1, 64, 16) for i in range(3)},
            "one": (),
            "m": (16, 32),
        },
    )
    shape = numpy_helper.from_array(np.array([-1, 16]), "shape")
    model.graph.initializer.append(shape)
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}{index}"
    placement = place(model, profile="cpu")
    lstm, gemm = 6 * 64 * (16 + 16), 6 * 16 * 32
    share = gemm / (3 * lstm + gemm)
    assert [name[:4] for name in placement.int8_nodes] == ["Gemm"]
    assert placement.int8_mac_share(model) == pytest.approx(share)
    assert [f.op_type for f in placement.floating] == ["LSTM"] * 3
    # What --require-int8 is held against: the gemm runs INT8, the others were not found again.
    (gemm_name,) = placement.int8_nodes
    covered = coverage_of(weighted_layers(model), {gemm_name: "int8"}, source="test")
    assert covered.int8_mac_share == pytest.approx(share)
    assert len(covered.float_layers) == 3
    assert covered.broken_promises == ()


SOUND = "a = Conv <strides=[160]> (x, w) y = Conv <dilations=[2]> (a, v)"


def test_a_wide_window_over_a_free_length_leaves_something() -> None:
    weights = {"w": (8, 1, 400), "v": (8, 8, 3)}
    model = model_of(f"g (float[N,1,T] x) => (y) {{ {SOUND} }}", weights)
    length = 16 * 128  # of 128, which a window of 400 does not fit into
    frames = (length - 400) // 160 + 1
    assert first(model) == frames * 8 * 400
    view = GraphView(model)
    found = [macs(node, view.nominal_shape) for node in view.nodes]
    assert found[1:] == [(frames - 4) * 8 * 8 * 3]
    assert [layer.macs for layer in weighted_layers(model)] == found


def test_told_sizes_go_before_nominal_ones() -> None:
    weights = {"w": (8, 1, 400), "v": (8, 8, 3)}
    model = model_of(f"g (float[N,1,T] x) => (y) {{ {SOUND} }}", weights)
    (first_layer, *_) = weighted_layers(model, {"x": (2, 1, 1600)})
    assert first_layer.macs == 2 * 8 * 8 * 400


def test_sizes_that_are_unknown_hide_no_work() -> None:
    """Inference loses the batch behind a table of positions that is cut to the length."""
    body = "s = Shape(x) l = Gather(s, one) p = Slice(table, zero, l, one) a = Add(x, p)"
    model = model_of(f"g (float[N,T,16] x) => (y) {{ {body} y = MatMul(a, w) }}", {"w": (16, 8)})
    add(model, table=np.zeros((1, 512, 16), np.float32), zero=np.array([0]), one=np.array([1]))
    (layer,) = weighted_layers(model)
    view = GraphView(model)
    assert layer.macs == work(view, view.nodes[-1]) == 128 * 16 * 8
    (layer,) = weighted_layers(model, {"x": (1, 50, 16)})
    assert layer.macs == 50 * 16 * 8


def test_sizes_that_the_graph_computes_are_followed() -> None:
    body = "s = Shape(x) l = Gather(s, one) t = Concat <axis=0> (l, two) r = Reshape(x, t)"
    model = model_of(f"g (float[N,T,16] x) => (y) {{ {body} y = MatMul(r, w) }}", {"w": (8, 8)})
    add(model, two=np.array([2, 8]), one=np.array([1]))
    view = GraphView(model)
    (layer,) = weighted_layers(model)
    assert layer.macs == work(view, view.nodes[-1]) == 128 * 2 * 8 * 8


def test_an_input_that_is_an_output_keeps_its_size() -> None:
    model = model_of("g (float[N,16] x) => (y, float[N,16] x) { y = MatMul(x, w) }", {"w": (16, 8)})
    assert [layer.macs for layer in weighted_layers(model)] == [16 * 8]


@pytest.mark.parametrize("operator", ["If", "Loop", "Scan"])
def test_what_bodies_multiply_counts_and_is_no_int8(operator: str) -> None:
    model = control_model(operator)
    view = GraphView(model)
    turns = {"If": 1, "Loop": 3, "Scan": 6}[operator]
    inside, behind = (work(view, node) for node in view.nodes[-2:])
    rows = 1 if operator == "Scan" else 6
    assert (inside, behind) == (turns * rows * 16 * 16, 6 * 16 * 16)
    layers = weighted_layers(model)
    assert [(layer.op_type, layer.macs) for layer in layers] == [
        (operator, inside),
        ("MatMul", behind),
    ]
    covered = coverage_of(layers, {"behind": "int8"}, source="test")
    assert covered.int8_mac_share == pytest.approx(behind / (inside + behind))


def control_model(operator: str) -> onnx.ModelProto:
    """A body that multiplies by w, in front of a MatMul."""
    value, node, kind = helper.make_tensor_value_info, helper.make_node, TensorProto
    product = node("MatMul", ["s", "w"], ["r"])
    ends = {
        "If": ([], [value("r", kind.FLOAT, None)]),
        "Loop": (
            [value("i", kind.INT64, []), value("c", kind.BOOL, []), value("s", kind.FLOAT, None)],
            [value("o", kind.BOOL, []), value("r", kind.FLOAT, None)],
        ),
        "Scan": ([value("s", kind.FLOAT, None)], [value("r", kind.FLOAT, None)]),
    }
    inside = [product, node("Identity", ["c"], ["o"])] if operator == "Loop" else [product]
    if operator == "If":
        product.input[0] = "x"
    body = helper.make_graph(inside, "body", *ends[operator])
    other = helper.make_graph(
        [node("Identity", ["x"], ["e"])], "other", [], [value("e", kind.FLOAT, None)]
    )
    made = {
        "If": node("If", ["yes"], ["z"], then_branch=body, else_branch=other),
        "Loop": node("Loop", ["three", "yes", "x"], ["z"], body=body),
        "Scan": node("Scan", ["x"], ["z"], body=body, num_scan_inputs=1),
    }
    graph = helper.make_graph(
        [made[operator], node("MatMul", ["z", "w"], ["y"], name="behind")],
        "control",
        [value("x", kind.FLOAT, [6, 16])],
        [value("y", kind.FLOAT, None)],
        [
            numpy_helper.from_array(np.ones((16, 16), np.float32), "w"),
            numpy_helper.from_array(np.array(3), "three"),
            numpy_helper.from_array(np.array(True), "yes"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_long_lists_are_not_followed_one_by_one() -> None:
    """ONNX's inference would take 5 GB and a quarter of a minute."""
    model = model_of(
        "g (int64[20000000] x, float[N,16] v) => (y, z) { y = Add(x, x) z = MatMul(v, w) }",
        {"w": (16, 8)},
    )
    assert [layer.macs for layer in weighted_layers(model)] == [16 * 8]


def test_groups_that_onnx_does_not_infer_keep_their_shape() -> None:
    """ONNX 1.23 has no rule for GroupNormalization: all behind it counted as nothing."""
    model = model_of(
        "g (float[N,16,H,W] x) => (y) "
        "{ n = GroupNormalization <num_groups=4> (x, one, one) y = Conv (n, w) }",
        {"w": (8, 16, 1, 1)},
        opset=21,
    )
    add(model, one=np.ones(16, np.float32))
    view = GraphView(model)
    assert view.shape("n") == (None, 16, None, None)
    assert [layer.macs for layer in weighted_layers(model)] == [224 * 224 * 8 * 16]


def test_a_loop_that_lists_no_count_is_counted_once() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, [])],
    )
    graph = helper.make_graph([helper.make_node("Loop", [], [], body=body)], "endless", [], [])
    view = GraphView(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    assert network_macs(view) == 0


@pytest.mark.parametrize("opset", [13, 14, 17])
def test_sizes_that_are_computed_are_followed_into_a_reshape(opset: int) -> None:
    """Opset 13 infers a Reshape from constants alone: a head with most of the work counted 0."""
    net = Builder(opset=opset)
    x = net.input("x", ("N", 40, 6))
    count = net.op("Slice", net.op("Shape", x), net.ints(1), net.ints(2), net.ints(0))
    sizes = net.op("Concat", net.ints(0), net.ints(1), count, net.ints(6), axis=0)
    lines = net.op("Squeeze", net.op("Reshape", x, sizes), net.ints(1))
    scores = net.op("MatMul", lines, net.weight((6, 500), 6))
    model = net.build("lines", net.op("Reshape", scores, net.ints(-1, 500)))
    assert network_macs(GraphView(model, {"x": (2, 40, 6)})) == 2 * 40 * 6 * 500
