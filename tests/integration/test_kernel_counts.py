"""Golden counts of the kernels that TensorRT-RTX's builder makes of a placement.

A change of placement, or of the builder, shows here. The rest is float16, as engines have it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from quantization.placement import PROFILES, Placement, edges, keep_blocks, place
from quantization.prepare.prepare import prepare
from quantization.write.fp16 import to_float16
from quantization.write.insert import insert_qdq
from tests.integration.rtx_compiler import Compiled, compile_model
from tests.networks import Builder, bert, convolved_attention, cross_attention, pyramid_pooling, vit
from tests.networks.running import minmax_ranges, random_feeds


def compiled(model: onnx.ModelProto, placement: Placement) -> Compiled:
    feeds = random_feeds(model, np.random.default_rng(0))
    ranges = minmax_ranges(model, placement.tensors, feeds)
    half = to_float16(insert_qdq(model, placement, ranges), ranges.amax_by_tensor).model
    found = compile_model(half.SerializeToString(), capability="SM89")
    assert found.errors == ()
    return found


def counts(found: Compiled) -> tuple[int, int]:
    """Kernels, and those that compute a whole attention."""
    names = found.kernels()
    return len(names), sum("mha" in name for name in names)


def without(monkeypatch: pytest.MonkeyPatch, rule: Callable[..., None]) -> None:
    rules = PROFILES["tensorrt"]
    steps = tuple(step for step in rules.place if step is not rule)
    monkeypatch.setitem(PROFILES, "tensorrt", dataclasses.replace(rules, place=steps))


@pytest.mark.parametrize(
    ("name", "kernels", "attentions"), [("vit", 27, 2), ("bert", 24, 2)], ids=["vit", "bert"]
)
def test_transformers_have_one_kernel_for_each_attention(
    name: str, kernels: int, attentions: int
) -> None:
    model = prepare({"vit": vit, "bert": bert}[name]())
    placement = place(model)
    found = compiled(model, placement)
    assert counts(found) == (kernels, attentions)
    assert set(placement.int8_nodes) <= found.int8_nodes()


@pytest.mark.parametrize(
    ("queries", "keys", "heads", "int8", "plain"),
    [
        pytest.param(1024, 16, 2, (14, 1), (15, 1), id="many ask"),
        pytest.param(64, 640, 2, (16, 0), (14, 1), id="many are asked"),
        pytest.param(64, 64, 1, (16, 0), (17, 0), id="one head"),
    ],
)
def test_which_attention_has_a_kernel(
    queries: int, keys: int, heads: int, int8: tuple[int, int], plain: tuple[int, int]
) -> None:
    """INT8 is placed where it has one, or where float16 has none either."""
    model = prepare(cross_attention(queries=queries, keys=keys, heads=heads))
    found = tuple(counts(compiled(model, place(model, attention=a))) for a in ("int8", "float"))
    assert found == (int8, plain)
    left = {f.rule for f in place(model).floating}
    assert ("unfused_attention" in left) == (int8[0] > plain[0])


def test_half_an_attention_costs_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it in float16 is one kernel again."""
    model = prepare(vit(layers=1))
    whole = counts(compiled(model, place(model)))
    rule = counts(compiled(model, place(model, exclude=["n_MatMul_4"])))
    without(monkeypatch, keep_blocks.half_attention)
    half = counts(compiled(model, place(model, exclude=["n_MatMul_4"])))
    assert (whole, rule, half) == ((16, 1), (17, 1), (23, 0))


def test_a_chain_of_pools_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = prepare(pyramid_pooling())
    assert counts(compiled(model, place(model)))[0] == 17
    without(monkeypatch, edges.pooling_chain)
    assert counts(compiled(model, place(model)))[0] == 21


@pytest.mark.parametrize("transposed", [True, False])
def test_attention_between_convolutions_is_no_cheaper_in_float(transposed: bool) -> None:
    model = prepare(convolved_attention(transposed=transposed))
    placement = place(model)
    found, plain = compiled(model, placement), compiled(model, place(model, attention="float"))
    assert counts(found) == counts(plain)
    assert counts(found)[1] == 0
    assert {"n_MatMul_0", "n_MatMul_1"} <= found.int8_nodes()


@pytest.mark.parametrize("heads", [2, 8])
def test_the_operator_attention_is_compiled(heads: int) -> None:
    """As one operator it ends in a crash where Q, K and V are one tensor, and has no INT8."""
    net = Builder(opset=23)
    weights = [net.weight((64, 64), 64, 1) for _ in range(2)]
    x = net.op("MatMul", net.input("x", [1, 64, 64]), weights[0])
    y = net.op("Attention", x, x, x, q_num_heads=heads, kv_num_heads=heads)
    model = prepare(net.build("one_tensor", net.op("MatMul", y, weights[1])))
    placement = place(model)
    found = compiled(model, placement)
    assert set(placement.int8_nodes) <= found.int8_nodes()
    assert len(placement.int8_nodes) == (4 if heads == 2 else 2)  # 8 channels are no INT8 product
