"""ONNX's Attention is written as products and a Softmax that compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graphs.identity import graph_hash
from graphs.view import GraphView
from quantization import place, prepare
from tests.odd_models import run

Axis = int | str
HEADS, CHANNELS, QUERIES, KEYS = 4, 16, 6, 9
FOLDED = {"q_num_heads": HEADS, "kv_num_heads": HEADS}


def attention(
    *,
    four: bool = False,
    mask: tuple[int, list[Axis]] | None = None,
    keyed: int = HEADS,
    opset: int = 23,
    more: int = 0,
    positions: tuple[int, int] = (QUERIES, KEYS),
    **given: Any,
) -> onnx.ModelProto:
    """One Attention of inputs q, k, v and maybe m."""
    queries, keys = positions

    def shape(count: int, heads: int) -> list[Axis]:
        return ["N", heads, count, CHANNELS] if four else ["N", count, heads * CHANNELS]

    value = helper.make_tensor_value_info
    inputs = [
        value("q", TensorProto.FLOAT, shape(queries, HEADS)),
        value("k", TensorProto.FLOAT, shape(keys, keyed)),
        value("v", TensorProto.FLOAT, shape(keys, keyed)),
    ]
    if mask is not None:
        inputs.append(value("m", mask[0], mask[1]))
    outputs = ["y", *(f"more{n}" for n in range(more))]
    names = [each.name for each in inputs]
    node = helper.make_node("Attention", names, outputs, name="attention", **given)
    shapes = [shape(queries, HEADS), *(more * [None])]
    graph = helper.make_graph(
        [node],
        "attention",
        inputs,
        [value(n, TensorProto.FLOAT, s) for n, s in zip(outputs, shapes, strict=True)],
    )
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
    np.testing.assert_allclose(run(prepared, given)[0], run(model, given)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "given",
    [
        {**FOLDED, "kv_num_heads": 2, "keyed": 2},
        {**FOLDED, "softcap": 2.0},
        {**FOLDED, "more": 2},
        {**FOLDED, "opset": 24, "mask": (TensorProto.FLOAT, [QUERIES, "shorter"])},
    ],
    ids=["shared keys", "soft cap", "states", "a mask that may be shorter"],
)
def test_what_it_does_not_say_stays(given: dict[str, Any]) -> None:
    prepared = prepare(attention(**given))
    assert [node.op_type for node in GraphView(prepared).nodes] == ["Attention"]


def test_its_products_are_placed() -> None:
    model = prepare(attention(**FOLDED, positions=(64, 64)))
    placement = place(model)
    assert len(placement.int8_nodes) == 2
