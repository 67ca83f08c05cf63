"""Multiply-accumulates against hand counts."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from engines.coverage import coverage_of
from engines.onnx_layers import weighted_layers
from graphs.macs import macs
from graphs.view import GraphView
from quantization import place


def model_of(text: str, shapes: dict[str, tuple[int, ...]], opset: int = 17) -> onnx.ModelProto:
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}')
    for name, shape in shapes.items():
        values = np.full(shape, 0.01, np.float32) if shape else np.array([1])
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


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
