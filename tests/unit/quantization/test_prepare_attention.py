"""ONNX's Attention is written as products and a Softmax that compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graphs.identity import graph_hash
from graphs.view import GraphView
from quantization import place, prepare
from tests.odd_models import run

Axis = int | str
HEADS, CHANNELS, QUERIES, KEYS = 4, 16, 6, 9
FOLDED: dict[str, Any] = {"q_num_heads": HEADS, "kv_num_heads": HEADS}
SHARED: dict[str, Any] = {"q_num_heads": HEADS, "kv_num_heads": 2}


def attention(
    *,
    four: bool = False,
    mask: tuple[int, list[Axis]] | None = None,
    opset: int = 23,
    more: tuple[int, ...] = (),
    past: Axis | None = None,
    positions: tuple[Axis, Axis] = (QUERIES, KEYS),
    **given: Any,
) -> onnx.ModelProto:
    """One Attention of inputs q, k, v, maybe m and a past; ``more`` outputs than the first."""
    queries, keys = positions
    keyed = given.get("kv_num_heads", HEADS)
    if four:
        given.pop("kv_num_heads", None)

    def shape(count: Axis, heads: int) -> list[Axis]:
        return ["N", heads, count, CHANNELS] if four else ["N", count, heads * CHANNELS]

    value = helper.make_tensor_value_info
    inputs = [
        value("q", TensorProto.FLOAT, shape(queries, HEADS)),
        value("k", TensorProto.FLOAT, shape(keys, keyed)),
        value("v", TensorProto.FLOAT, shape(keys, keyed)),
    ]
    if mask is not None:
        inputs.append(value("m", mask[0], mask[1]))
    names = [each.name for each in inputs]
    if past is not None:
        names += [""] * (4 - len(names)) + ["pk", "pv"]
        each = ["N", keyed, past, CHANNELS]
        inputs += [value(name, TensorProto.FLOAT, each) for name in ("pk", "pv")]
    outputs = ["y", *(f"more{n}" if n in more else "" for n in range(1, 4))]
    node = helper.make_node("Attention", names, outputs, name="attention", **given)
    made = [value("y", TensorProto.FLOAT, shape(queries, HEADS))]
    made += [value(name, TensorProto.FLOAT, None) for name in outputs[1:] if name]
    graph = helper.make_graph([node], "attention", inputs, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def feeds(model: onnx.ModelProto, rng: np.random.Generator) -> dict[str, np.ndarray]:
    found = {}
    for each in model.graph.input:
        axes = each.type.tensor_type.shape.dim
        shape = [axis.dim_value or 2 for axis in axes]
        found[each.name] = rng.standard_normal(shape).astype(np.float32)
        if each.type.tensor_type.elem_type == TensorProto.BOOL:
            found[each.name] = found[each.name] > -0.5
            found[each.name][..., 0] = True  # no row is masked altogether
    return found


CASES: dict[str, dict[str, Any]] = {
    "three axes": FOLDED,
    "four axes": {"four": True},
    "a scale": {**FOLDED, "scale": 0.3},
    "causal": {**FOLDED, "is_causal": 1},
    "floats for all": {**FOLDED, "mask": (TensorProto.FLOAT, [QUERIES, KEYS])},
    "floats": {"four": True, "mask": (TensorProto.FLOAT, ["N", 1, QUERIES, KEYS])},
    "booleans": {**FOLDED, "mask": (TensorProto.BOOL, ["N", HEADS, QUERIES, KEYS])},
    "booleans and causal": {**FOLDED, "is_causal": 1, "mask": (TensorProto.BOOL, [QUERIES, KEYS])},
    "a later opset": {**FOLDED, "opset": 24, "mask": (TensorProto.BOOL, [QUERIES, KEYS])},
    "shared keys": SHARED,
    "shared keys, four axes": {"four": True, "kv_num_heads": 1},
    "shared keys and a mask": {**SHARED, "mask": (TensorProto.BOOL, [QUERIES, KEYS])},
    "a soft cap": {**FOLDED, "softcap": 0.5},
    "a soft cap under a mask": {
        **SHARED,
        "softcap": 0.5,
        "mask": (TensorProto.FLOAT, [QUERIES, KEYS]),
    },
    "a past": {**SHARED, "past": 3, "more": (1, 2)},
    "a past, four axes": {"four": True, "past": "P", "more": (1, 2)},
    "a first past": {**SHARED, "more": (1, 2)},
    "a past and causal": {**SHARED, "past": 3, "is_causal": 1, "more": (1, 2)},
    "free lengths and causal": {**FOLDED, "positions": ("L", "S"), "is_causal": 1},
    "a free past and causal": {**SHARED, "past": "P", "is_causal": 1, "more": (1, 2)},
    "scores": {**FOLDED, "more": (3,)},
    "scores and a past": {**SHARED, "past": 3, "more": (1, 2, 3), "is_causal": 1},
    "probabilities": {**FOLDED, "more": (3,), "qk_matmul_output_mode": 3, "softcap": 0.5},
    "a window": {**FOLDED, "opset": 25, "left_window_size": 2, "right_window_size": 1},
    "a window before": {**SHARED, "opset": 25, "left_window_size": 6},
    "a window and causal": {**FOLDED, "opset": 25, "left_window_size": 1, "is_causal": 1},
    "a window that ends before it": {
        **FOLDED,
        "opset": 25,
        "positions": (KEYS, 3),
        "left_window_size": 2,
    },
    "a free window": {
        **FOLDED,
        "opset": 25,
        "positions": ("L", "S"),
        "left_window_size": 1,
        "right_window_size": 0,
    },
    "a free window behind a past": {
        **SHARED,
        "opset": 25,
        "past": "P",
        "left_window_size": 2,
        "is_causal": 1,
        "more": (1, 2),
    },
    "a free length under a mask": {
        **FOLDED,
        "opset": 24,
        "positions": ("L", "S"),
        "mask": (TensorProto.BOOL, ["L", "S"]),
    },
}


@pytest.mark.parametrize("name", CASES)
def test_it_computes_the_same(name: str, rng: np.random.Generator) -> None:
    model = attention(**CASES[name])
    prepared = prepare(model)
    operators = [node.op_type for node in GraphView(prepared).nodes]
    assert "Attention" not in operators
    assert operators.count("MatMul") == 2
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)
    given = feeds(model, rng)
    for found, wanted in zip(run(prepared, given), run(model, given), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


BLIND: dict[str, dict[str, Any]] = {
    "a mask": {**FOLDED, "mask": (TensorProto.BOOL, [QUERIES, KEYS])},
    "a mask of heads": {"four": True, "mask": (TensorProto.BOOL, ["N", HEADS, QUERIES, KEYS])},
    "a mask of free lengths": {
        **FOLDED,
        "opset": 24,
        "positions": ("L", "S"),
        "mask": (TensorProto.BOOL, ["L", "S"]),
    },
    "probabilities": {
        **FOLDED,
        "more": (3,),
        "qk_matmul_output_mode": 3,
        "mask": (TensorProto.BOOL, [QUERIES, KEYS]),
    },
    "a mask under a window": {
        **FOLDED,
        "opset": 25,
        "left_window_size": 1,
        "mask": (TensorProto.BOOL, [QUERIES, KEYS]),
    },
    "a mask under a free window": {
        **FOLDED,
        "opset": 25,
        "positions": ("L", "S"),
        "left_window_size": 1,
        "is_causal": 1,
        "mask": (TensorProto.BOOL, ["L", "S"]),
    },
}


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("name", BLIND)
def test_a_query_that_sees_no_key_makes_zeros(
    name: str, stored: bool, rng: np.random.Generator
) -> None:
    """As in padded batches; with the mask as an input and as a constant."""
    model = attention(**BLIND[name])
    given = feeds(model, rng)
    given["m"][..., :2, :] = False
    given["m"][..., -1, 1:] = False  # sees the first key, which a window may hide
    if stored:
        model.graph.initializer.append(numpy_helper.from_array(given.pop("m"), "m"))
        del model.graph.input[3]
    found, wanted = run(prepare(model), given), run(model, given)
    assert not wanted[0][:, :2].any() or BLIND[name].get("four")
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("expanded", [False, True])
@pytest.mark.parametrize("mask", [[1, KEYS], ["N", 1, 1, KEYS], [KEYS]], ids=str)
def test_masks_for_all_queries_cost_no_product(mask: list[Axis], expanded: bool) -> None:
    model = attention(**FOLDED, mask=(TensorProto.BOOL, mask))
    if expanded:  # as exporters of transformers write it
        model.graph.node[0].input[3] = "all"
        shape = numpy_helper.from_array(np.array([1, 1, QUERIES, 1]), "shape")
        model.graph.initializer.append(shape)
        model.graph.node.insert(0, helper.make_node("Expand", ["m", "shape"], ["all"]))
    made = [node.op_type for node in prepare(model).graph.node]
    assert "Where" in made
    assert "ReduceMax" not in made


ONLY_SAID: dict[str, dict[str, Any]] = {
    "a mask for all queries": {**FOLDED, "mask": (TensorProto.BOOL, ["N", 1, 1, KEYS])},
    "a past that nobody keeps": {**SHARED, "past": "P"},
}


@pytest.mark.parametrize("name", ONLY_SAID)
def test_what_onnx_says_and_onnxruntime_lacks(name: str, rng: np.random.Generator) -> None:
    """onnxruntime 1.32 refuses these in its own kernel."""
    model = attention(**ONLY_SAID[name])
    given = feeds(model, rng)
    wanted = np.asarray(ReferenceEvaluator(model).run(None, given)[0])
    np.testing.assert_allclose(run(prepare(model), given)[0], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "given",
    [
        {**FOLDED, "opset": 24, "mask": (TensorProto.FLOAT, [QUERIES, "shorter"])},
        {**FOLDED, "more": (3,), "softcap": 2.0},
        {**FOLDED, "more": (3,), "qk_matmul_output_mode": 1},
    ],
    ids=["a mask that may be shorter", "scores before a soft cap", "scores behind a mask"],
)
def test_what_it_does_not_say_stays(given: dict[str, Any]) -> None:
    prepared = prepare(attention(**given))
    assert [node.op_type for node in GraphView(prepared).nodes] == ["Attention"]


def test_its_products_are_placed() -> None:
    model = prepare(attention(**FOLDED, positions=(64, 64)))
    placement = place(model)
    assert len(placement.int8_nodes) == 2
