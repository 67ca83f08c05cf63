"""Every network through NVIDIA's own parser and compiler: accepted, and INT8 where promised.

TensorRT-RTX 1.7 has no INT8 transposed convolution; TensorRT proper has one. Nothing here runs on
a GPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from calibrators.ranges.ranges import Range
from graphs.amend import add_bias
from graphs.files import load_model
from graphs.identity import graph_hash
from graphs.view import GraphView
from quantization.improve.centring import centrable, centring_shifts, move_bounds
from quantization.placement import PROFILES, Placement, edges, edges_attention, edges_cpu, place
from quantization.prepare.prepare import prepare
from quantization.write.insert import insert_qdq
from tests.accuracy_models import calibrated, pointwise, samples_of
from tests.integration.rtx_compiler import Compiled, compile_model
from tests.networks import NETWORKS, sliced_attention, vit
from tests.networks.running import minmax_ranges, random_feeds


def int8_bytes(model: onnx.ModelProto, placement: Placement, **options: object) -> bytes:
    feeds = random_feeds(model, np.random.default_rng(0))
    ranges = minmax_ranges(model, placement.tensors, feeds)
    return insert_qdq(model, placement, ranges, **options).SerializeToString()


def compiled(model: onnx.ModelProto, placement: Placement) -> Compiled:
    result = compile_model(int8_bytes(model, placement))
    assert result.errors == ()
    return result


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_int8_where_promised(name: str) -> None:
    model = prepare(NETWORKS[name]())
    placement = place(model, lacking={"ConvTranspose"})
    found = compiled(model, placement).int8_nodes()
    assert set(placement.int8_nodes) <= found
    assert not found & {layer.node for layer in placement.floating}


def test_a_transposed_convolution_is_float_whatever_is_around_it() -> None:
    model = prepare(NETWORKS["unet_transposed"]())
    placement = place(model)
    transposed = {n.name for n in GraphView(model).nodes if n.op_type == "ConvTranspose"}
    promised = compiled(model, placement)
    assert set(placement.int8_nodes) - promised.int8_nodes() == transposed
    plain = compiled(model, place(model, lacking={"ConvTranspose"}))
    assert len(plain.kernels()) <= len(promised.kernels())


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_float_weights_with_pairs_parse(name: str) -> None:
    model = prepare(NETWORKS[name]())
    data = int8_bytes(model, place(model), weights="float")
    assert compile_model(data, parse_only=True).errors == ()


@pytest.mark.parametrize(
    ("name", "parse_only"),
    [
        ("cifar_resnet20", False),
        ("kws_dscnn_fp32", False),
        ("resnet8_cifar10_fp32", False),
        ("mobilenet_v1_0.25_128_fp32", False),
        ("mobilenet_v2_1.0_224_fp32", True),
        ("yolox_nano", True),
    ],
)
def test_real_models_are_accepted(name: str, parse_only: bool, assets: Path) -> None:
    model = prepare(load_model(assets / "models" / f"{name}.onnx"))
    model = _batch_of_one(model)
    placement = place(model)
    result = compile_model(int8_bytes(model, placement), parse_only=parse_only)
    assert result.errors == ()
    assert parse_only or set(placement.int8_nodes) <= result.int8_nodes()


def _batch_of_one(model: onnx.ModelProto) -> onnx.ModelProto:
    """A dynamic batch would need an optimization profile."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    for value in fixed.graph.output:
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
    del fixed.graph.value_info[:]
    return fixed


def test_every_tensor_quantized_parses() -> None:
    model = prepare(NETWORKS["resnet_basic"]())
    assert compile_model(int8_bytes(model, place(model, profile="dla"))).errors == ()


def test_the_skip_rule_keeps_more_tensors_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, kernels hand each other more float tensors."""
    model = prepare(NETWORKS["resnet_basic"]())
    with_rule = compiled(model, place(model)).bytes_class()
    _replace(monkeypatch, edges.residual_add)
    without = compiled(model, place(model)).bytes_class()
    assert with_rule[0] < without[0]
    assert with_rule[1] > without[1]


def test_a_sub_that_centres_a_silu_costs_no_kernel(rng: np.random.Generator) -> None:
    model = pointwise("SiLU")
    placement, ranges = calibrated(model, samples_of(model, rng, 4))
    view = GraphView(model)
    plans = centrable(view, placement)
    centres = {name: ranges[name].amax / 2 for name in plans}
    shifts = centring_shifts(view, plans, centres)
    moved = add_bias(move_bounds(model, plans, centres), shifts)
    assert [node.op_type for node in moved.graph.node].count("Sub") == len(plans) == 4
    halved = ranges.replace(
        {name: Range(amax=amax, method="minmax", why="") for name, amax in centres.items()}
    )
    halved = dataclasses.replace(halved, graph_hash=graph_hash(moved))
    plain, centred = (
        compile_model(insert_qdq(graph, placement, found).SerializeToString())
        for graph, found in ((model, ranges), (moved, halved))
    )
    assert plain.errors == centred.errors == ()
    assert len(centred.kernels()) == len(plain.kernels()) > 4
    assert centred.int8_nodes() == plain.int8_nodes()
    assert centred.bytes_class() == plain.bytes_class()


def test_quantizing_both_sides_of_an_add_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = prepare(NETWORKS["resnet_basic"]())
    skip_only = compiled(model, place(model)).bytes_class()
    _replace(monkeypatch, edges.residual_add, edges_cpu.residual_add_both)
    assert compiled(model, place(model)).bytes_class() == skip_only


def _replace(
    monkeypatch: pytest.MonkeyPatch, rule: Callable[..., None], *other: Callable[..., None]
) -> None:
    rules = PROFILES["tensorrt"]
    steps: list[Callable[..., None]] = []
    for step in rules.place:
        steps += list(other) if step is rule else [step]
    monkeypatch.setitem(PROFILES, "tensorrt", dataclasses.replace(rules, place=tuple(steps)))


@pytest.mark.parametrize(
    ("size", "width", "fused"),
    [(32, 128, True), (32, 64, True), (32, 32, True), (32, 96, False), (184, 64, False)],
)
def test_attention_fuses_in_int8_just_where_the_rule_says(
    size: int, width: int, fused: bool
) -> None:
    """All attention in INT8, as the cpu profile places it, tells which of it has a kernel."""
    model = prepare(vit(size=size, width=width, layers=1))
    kernels = compiled(model, place(model, profile="cpu")).kernels()
    assert any("mha" in name for name in kernels) == fused
    promised = {"n_MatMul_3", "n_MatMul_4"} & set(place(model).int8_nodes)
    assert bool(promised) == fused


@pytest.mark.parametrize("way", ["split", "gather", "slice"])
@pytest.mark.parametrize(
    ("width", "values"),
    [(64, True), (96, True), (96, False)],
    ids=["int8", "float", "float, no values"],
)
def test_a_product_of_q_k_and_v_runs_int8(
    way: str, width: int, values: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the rule the builder cuts its weights into three and multiplies in float."""
    model = prepare(sliced_attention(width=width, way=way, values=values))
    placement = place(model)
    with_rule = compiled(model, placement)
    assert set(placement.int8_nodes) <= with_rule.int8_nodes()
    _replace(monkeypatch, edges_attention.sliced_attention)
    placement = place(model)
    without = compiled(model, placement)
    assert set(placement.int8_nodes) - without.int8_nodes() == {"n_MatMul_0"}
    assert len(with_rule.kernels()) < len(without.kernels())
