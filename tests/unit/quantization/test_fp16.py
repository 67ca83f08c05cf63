"""float16 where it is safe, float32 where it is not, and the reason said."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from graphs.opset import opset_of
from graphs.view import GraphView, Node
from quantization import prepare
from quantization.write.fp16 import HALF_SCALE_OPSET, HalfModel, to_float16
from tests.networks import NETWORKS
from tests.observed import observed_amax, quantized, random_feeds
from tests.odd_models import NAMES, Feeds, odd_model, run

_NETWORKS = ("resnet_basic", "mobilenet_v3", "unet_transposed", "bert", "lstm")


def build(body: str, opset: int = 17, **constants: Any) -> onnx.ModelProto:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}, "my" : 1]> '
        f"g (float[N,4] x) => (float[N,M] y) {{ {body} }}"
    )
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    for node in model.graph.node:
        node.name = f"{node.op_type}:{node.output[0]}"
    return model


def reasons(result: HalfModel) -> dict[str, str]:
    return {entry.op_type: entry.why for entry in result.kept}


def error(expected: list[np.ndarray], found: list[np.ndarray]) -> float:
    """Relative Euclidean error of all outputs together."""
    pairs = list(zip(expected, found, strict=True))
    difference = sum(float(np.sum((a.astype(float) - b) ** 2)) for a, b in pairs)
    return float(np.sqrt(difference / sum(float(np.sum(a.astype(float) ** 2)) for a, _ in pairs)))


@pytest.mark.parametrize("name", _NETWORKS)
def test_float_network_stays_close(name: str, rng: np.random.Generator) -> None:
    model = prepare(NETWORKS[name]())
    before = model.SerializeToString(deterministic=True)
    feeds = random_feeds(model, rng)
    result = to_float16(model, observed_amax(model, feeds))
    assert model.SerializeToString(deterministic=True) == before
    assert list(result.model.graph.input) == list(model.graph.input)
    assert list(result.model.graph.output) == list(model.graph.output)
    assert result.halved >= len(model.graph.node) - 2
    assert error(run(model, feeds), run(result.model, feeds)) < 0.01


@pytest.mark.parametrize("name", _NETWORKS)
def test_quantized_network_is_as_good_as_with_float32(name: str, rng: np.random.Generator) -> None:
    model = prepare(NETWORKS[name]())
    feeds = random_feeds(model, rng)
    int8 = quantized(model, feeds)
    result = to_float16(int8, observed_amax(model, feeds))
    assert opset_of(result.model) == HALF_SCALE_OPSET
    expected = run(model, feeds)
    full, half = (error(expected, run(m, feeds)) for m in (int8, result.model))
    assert half < 3 * full + 0.02  # other codes here and there, but no other network
    view = GraphView(result.model)
    for node in view.nodes:
        if node.op_type == "QuantizeLinear":
            assert view.element_type(node.inputs[0]) == view.element_type(node.inputs[1])


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"batchnorm_training"}))
def test_odd_models_stay_close(name: str, rng: np.random.Generator) -> None:
    model = prepare(odd_model(name, rng))
    feeds: Feeds = {"x": rng.normal(size=(2, 4, 4, 4)).astype(np.float32)}
    result = to_float16(model)
    assert error(run(model, feeds), run(result.model, feeds)) < 0.01


def test_observed_overflow_stays_float32(rng: np.random.Generator) -> None:
    model = build(
        "a = Relu (x) b = Mul (a, k) c = Relu (b) y = Mul (c, j)",
        k=np.float32(3e4),
        j=np.float32(1e-3),
    )
    feeds = {"x": np.full((1, 4), 5, np.float32)}
    result = to_float16(model, observed_amax(model, feeds))
    assert {entry.node for entry in result.kept} == {"Mul:b", "Relu:c", "Mul:y"}
    assert "tensor b reaches 150000, float16 ends at 65504" in reasons(result)["Relu"]
    aware = ReferenceEvaluator(result.model).run(None, feeds)[0]
    np.testing.assert_allclose(aware, 150.0, rtol=1e-3)
    unaware = to_float16(model)
    assert not unaware.kept
    with np.errstate(over="ignore"):  # numpy computes in float16, onnxruntime on a CPU may not
        assert np.isinf(ReferenceEvaluator(unaware.model).run(None, feeds)[0]).all()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (1e-12, "would change by 100.0% in float16"),
        (3e-8, "would change by"),
        (-3.4e38, "reaches 3.4e+38, float16 ends at 65504"),
        (70000.0, "reaches 70000"),
    ],
)
def test_constants_that_float16_cannot_hold(value: float, why: str) -> None:
    result = to_float16(build("a = Relu (x) y = Add (a, k)", k=np.float32(value)))
    assert list(reasons(result)) == ["Add"]
    assert why in reasons(result)["Add"]


@pytest.mark.parametrize(("seen", "kept"), [(1.0, False), (None, True)])
def test_a_small_bias_is_judged_beside_the_output(seen: float | None, kept: bool) -> None:
    """Its digits are lost in float16, and nobody reads them in an output of 1."""
    weight, bias = np.eye(4, dtype=np.float32), np.full(4, 3.3e-7, np.float32)
    model = build("y = Gemm (x, w, b)", w=weight, b=bias)
    result = to_float16(model, {} if seen is None else {"x": 1.0, "y": seen})
    assert bool(result.kept) is kept
    if kept:
        assert "constant b (up to 3.3e-07) would change by" in reasons(result)["Gemm"]


@pytest.mark.parametrize("value", [0.0, 1e-5, -65504.0, 1.0, -np.inf])
def test_constants_that_float16_holds(value: float) -> None:
    assert not to_float16(build("y = Add (x, k)", k=np.float32(value))).kept


def test_large_constant_beside_infinity_stays_float32() -> None:
    mask = np.array([-np.inf, 0, 1e6, np.nan], np.float32)
    assert "reaches 1e+06" in reasons(to_float16(build("y = Add (x, k)", k=mask)))["Add"]


def test_epsilon_attribute_that_vanishes() -> None:
    body = "y = LayerNormalization <epsilon=1e-12> (x, g, g)"
    result = to_float16(build(body, g=np.ones(4, np.float32)))
    assert "epsilon 1e-12 vanishes" in reasons(result)["LayerNormalization"]


@pytest.mark.parametrize("op", ["Exp", "Log"])
def test_sensitive_operators_need_observed_ranges(op: str) -> None:
    model = build(f"y = {op} (x)")
    assert list(reasons(to_float16(model))) == [op]
    assert list(reasons(to_float16(model, {"x": 2.0}))) == [op]
    assert not to_float16(model, {"x": 2.0, "y": 7.4}).kept


def test_positions_stay_float32() -> None:
    result = to_float16(build("i = Cast <to=7> (x) f = Cast <to=1> (i) y = Relu (f)"))
    assert "positions" in reasons(result)["Cast"]


def test_custom_operator_stays_float32() -> None:
    result = to_float16(build("a = my.Blur (x) y = Relu (x)"))
    assert "Blur" not in {node.op_type for node in result.model.graph.node}  # dead: nobody reads it
    result = to_float16(build("a = Relu (x) y = my.Blur (a)"))
    assert list(reasons(result).values()) == ["a custom operator"]


def test_asked_for_nodes_stay_float32() -> None:
    result = to_float16(build("a = Relu (x) y = Neg (a)"), keep=["Neg:y"])
    assert reasons(result) == {"Neg": "asked for"}


def test_inputs_and_outputs_change_where_asked() -> None:
    model = build("a = Relu (x) y = Neg (a)")
    result = to_float16(model, keep_io=False)
    graph = result.model.graph
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT16
    assert [node.op_type for node in graph.node] == ["Relu", "Neg"]


def test_scale_that_float16_cannot_hold_stays_float32(rng: np.random.Generator) -> None:
    tiny = np.float32(2e-8)
    body = "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) y = Mul (d, k)"
    model = build(body, s=tiny, z=np.int8(0), k=np.float32(1000))
    result = to_float16(model)
    assert {entry.op_type for entry in result.kept} == {"QuantizeLinear", "DequantizeLinear"}
    feeds = {"x": (rng.integers(-127, 128, (2, 4)) * tiny).astype(np.float32)}
    np.testing.assert_allclose(run(result.model, feeds)[0], run(model, feeds)[0], atol=1e-5)


def test_output_that_is_read_inside(rng: np.random.Generator) -> None:
    model = odd_model("output_is_read", rng)
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4, 4, 4])
    )
    feeds = {"x": rng.normal(size=(2, 4, 4, 4)).astype(np.float32)}
    result = to_float16(model)
    assert error(run(model, feeds), run(result.model, feeds)) < 1e-3


def test_casts_for_a_body_are_in_order_and_named_once() -> None:
    names = [f"h{place}" for place in range(8)]
    made = " ".join(f"{name} = Relu(x)" for name in names)
    read = f"{{ z = Sum({', '.join(names)}) }}"
    model = build(
        f"{made} h0_too = Neg(h0) y = If (yes) <"
        f"then_branch = t () => (float[N,4] z) {read}, "
        f"else_branch = e () => (float[N,4] z) {read}> ",
        yes=True,
    )
    model.graph.node[-1].name = "h0//float"
    result = to_float16(model).model
    casts = [node.input[0] for node in result.graph.node if node.op_type == "Cast"]
    assert [name for name in casts if name in names] == names
    found = [node.name for node in result.graph.node]
    assert len(set(found)) == len(found)
    onnx.checker.check_model(result)


def _scaled_product(scale: float, *, copied: bool = False) -> onnx.ModelProto:
    """Two products of one pair of this scale, and one of a pair of its own."""
    weight = {"w": np.ones((4, 4), np.int8), "sw": np.full(4, 1000, np.float32)}
    body = (
        "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) "
        f"{'e = Transpose <perm = [0, 1]> (d)' if copied else 'e = Identity (d)'} "
        "v = DequantizeLinear <axis = 1> (w, sw) u = DequantizeLinear <axis = 1> (w2, sw2) "
        "t = DequantizeLinear <axis = 1> (w3, sw3) "
        "a = MatMul (e, v) b = MatMul (d, u) c = Add (a, b) "
        "p = QuantizeLinear (c, s1, z) r = DequantizeLinear (p, s1, z) y = MatMul (r, t)"
    )
    copies = {f"{name}{n}": value.copy() for n in ("", 2, 3) for name, value in weight.items()}
    return build(
        body,
        19,
        s=np.float32(scale),
        s1=np.float32(1e-3),
        z=np.int8(0),
        **copies,
    )


@pytest.mark.parametrize("copied", [False, True])
def test_a_layer_takes_all_scales_in_one_type(copied: bool, rng: np.random.Generator) -> None:
    """TensorRT-RTX refuses a product of a float32 and a float16 scale."""
    model = _scaled_product(3.07e-7, copied=copied)
    result = to_float16(model)
    view = GraphView(result.model)
    types = {
        node.name: {view.element_type(name) for name in node.inputs}
        for node in view.nodes
        if node.op_type == "MatMul"
    }
    full, half = {TensorProto.FLOAT}, {TensorProto.FLOAT16}
    assert types == {"MatMul:a": full, "MatMul:b": full, "MatMul:y": half}
    scales = {node.name: view.element_type(node.inputs[1]) for node in _pairs_of(view)}
    assert scales.pop("QuantizeLinear:p") == TensorProto.FLOAT16
    assert [n for n, t in scales.items() if t == TensorProto.FLOAT16] == [
        "DequantizeLinear:t",
        "DequantizeLinear:r",
    ]
    why = {entry.node: entry.why for entry in result.kept}
    assert why["DequantizeLinear:u"] == (
        "MatMul:b multiplies what DequantizeLinear:d scales in float32"
    )
    feeds = {"x": (1e-5 * rng.normal(size=(3, 4))).astype(np.float32)}
    # One code of some forty may round to the other side.
    assert error(run(model, feeds), run(result.model, feeds)) < 0.05


def test_scales_that_float16_holds_keep_nothing() -> None:
    assert not to_float16(_scaled_product(0.05)).kept


def _pairs_of(view: GraphView) -> list[Node]:
    return [node for node in view.nodes if node.op_type.endswith("tizeLinear")]


def test_pairs_of_values_that_fade_stay_with_them() -> None:
    """Below 6.1e-5 a scale and what it gives back are float32, on both sides of the codes."""
    model = build(
        "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) y = Relu (d)",
        s=np.float32(1e-5),
        z=np.int8(0),
    )
    result = to_float16(model, {"x": 1e-5})
    assert {entry.op_type for entry in result.kept} == {"QuantizeLinear", "DequantizeLinear"}
    assert "reaches 1e-05 at most" in reasons(result)["DequantizeLinear"]
    assert not to_float16(model, {"x": 1e-3, "d": 0.0}).kept


def test_normalization_that_nvidias_parser_mixes_types_in() -> None:
    result = to_float16(build("y = MeanVarianceNormalization <axes=[1]> (x)"))
    assert "float32 constant" in reasons(result)["MeanVarianceNormalization"]
