"""Constants that are computed, padding in numbers, scales in lists: what runtimes differ in."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphs.view import GraphView
from quantization.foreign.importer import import_quantized
from quantization.improve.walk.float_and_int8 import FloatAndInt8
from quantization.measure.execution import load_int8, load_onnxruntime
from quantization.prepare.prepare import prepare

Nodes = list[tuple[str, list[str], list[str], dict[str, Any]]]


def model(
    nodes: Nodes, constants: dict[str, Any], x: list[Any], opset: int = 17
) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op, i, o, name=f"n{k}", **a) for k, (op, i, o, a) in enumerate(nodes)],
        "net",
        [value("x", TensorProto.FLOAT, x)],
        [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("op", ["Exp", "Sin", "Cos", "Tanh", "Sigmoid", "Erf", "Softplus"])
def test_functions_of_constants_are_folded_and_rounded_once(
    op: str, rng: np.random.Generator
) -> None:
    values = rng.normal(size=8).astype(np.float32)
    net = model([(op, ["c"], ["s"], {}), ("Mul", ["x", "s"], ["y"], {})], {"c": values}, ["N", 8])
    prepared = prepare(net)
    assert [node.op_type for node in prepared.graph.node] == ["Mul"]
    feeds = {"x": np.ones((2, 8), np.float32)}
    before = load_onnxruntime(net, optimize=False)(feeds)["y"]
    after = load_onnxruntime(prepared)(feeds)["y"]
    # onnxruntime computes some of them by a polynomial
    np.testing.assert_allclose(after, before, rtol=3e-7, atol=1e-7)


def test_weight_normalisation_is_folded(rng: np.random.Generator) -> None:
    nodes: Nodes = [
        ("ReduceL2", ["v"], ["norm"], {"axes": [1, 2, 3], "keepdims": 1}),
        ("Div", ["v", "norm"], ["unit"], {}),
        ("Mul", ["unit", "g"], ["w"], {}),
        ("Conv", ["x", "w"], ["y"], {}),
    ]
    constants = {
        "v": rng.normal(size=(8, 4, 3, 3)).astype(np.float32),
        "g": rng.uniform(0.5, 2, (8, 1, 1, 1)).astype(np.float32),
    }
    net = model(nodes, constants, ["N", 4, 6, 6])
    prepared = prepare(net)
    assert [node.op_type for node in prepared.graph.node] == ["Conv"]
    feeds = {"x": rng.normal(size=(1, 4, 6, 6)).astype(np.float32)}
    before, after = (load_onnxruntime(m)(feeds)["y"] for m in (net, prepared))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [0, 1])
def test_weight_standardisation_is_folded(training: int, rng: np.random.Generator) -> None:
    """BiT and normaliser-free networks: a BatchNormalization of the weights, a channel each."""
    statistics = ["mean", "variance"] if training else []
    nodes: Nodes = [
        (
            "BatchNormalization",
            ["v", "one", "zero", "m", "s"],
            ["unit", *statistics],
            {"training_mode": training, "epsilon": 1e-8, "momentum": 1.0},
        ),
        ("Reshape", ["unit", "shape"], ["w"], {}),
        ("Conv", ["x", "w"], ["y"], {}),
    ]
    constants = {
        "v": rng.normal(0.3, 2, size=(1, 8, 36)).astype(np.float32),
        "one": np.ones(8, np.float32),
        "zero": np.zeros(8, np.float32),
        "m": rng.normal(size=8).astype(np.float32),
        "s": rng.uniform(0.5, 2, size=8).astype(np.float32),
        "shape": np.array([8, 4, 3, 3]),
    }
    net = model(nodes, constants, ["N", 4, 6, 6])
    prepared = prepare(net)
    assert [node.op_type for node in prepared.graph.node] == ["Conv"]
    feeds = {"x": rng.normal(size=(1, 4, 6, 6)).astype(np.float32)}
    before, after = (load_onnxruntime(m, optimize=False)(feeds)["y"] for m in (net, prepared))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", ["BlackmanWindow", "HammingWindow", "HannWindow"])
def test_windows_of_sound_are_folded(op: str) -> None:
    net = model([(op, ["n"], ["w"], {}), ("Mul", ["x", "w"], ["y"], {})], {"n": 16}, ["N", 16])
    prepared = prepare(net)
    assert [node.op_type for node in prepared.graph.node] == ["Mul"]
    feeds = {"x": np.ones((2, 16), np.float32)}
    before = load_onnxruntime(net, optimize=False)(feeds)["y"]
    np.testing.assert_allclose(load_onnxruntime(prepared)(feeds)["y"], before, atol=1e-6)


def test_mel_filters_are_folded(rng: np.random.Generator) -> None:
    """Neither TensorRT nor OpenVINO has the operator."""
    constants: dict[str, Any] = {"bins": 40, "length": 400, "rate": 16000}
    constants |= {"low": np.float32(0), "high": np.float32(8000)}
    nodes: Nodes = [
        ("MelWeightMatrix", list(constants), ["mel"], {}),
        ("MatMul", ["x", "mel"], ["y"], {}),
    ]
    net = model(nodes, constants, ["N", 201])
    prepared = prepare(net)
    assert [node.op_type for node in prepared.graph.node] == ["MatMul"]
    feeds = {"x": rng.random((2, 201)).astype(np.float32)}
    before = load_onnxruntime(net, optimize=False)(feeds)["y"]
    np.testing.assert_allclose(load_onnxruntime(prepared)(feeds)["y"], before, rtol=1e-4)


def test_what_is_out_of_range_is_left_to_the_runtime() -> None:
    constants = {"c": np.array([1000.0], np.float32)}
    net = model([("Exp", ["c"], ["s"], {}), ("Mul", ["x", "s"], ["y"], {})], constants, ["N", 1])
    assert [node.op_type for node in prepare(net).graph.node] == ["Exp", "Mul"]


def test_in_the_walk_what_no_sample_changes_is_the_same_for_all(rng: np.random.Generator) -> None:
    nodes: Nodes = [
        ("RandomUniformLike", ["c"], ["r"], {"seed": 1.0, "low": 2.0, "high": 2.0}),  # never folded
        ("Mul", ["x", "r"], ["y"], {}),
    ]
    view = GraphView(model(nodes, {"c": np.ones(4, np.float32)}, ["N", 4]))
    samples = [{"x": rng.normal(size=(1, 4)).astype(np.float32)} for _ in range(5)]
    both = FloatAndInt8(view=view, load=load_onnxruntime, samples=samples, correct=False)
    both.walk(lambda visit: ({}, {}))
    assert len(both.exact["y"]) == 5
    for found, sample in zip(both.exact["y"], samples, strict=True):
        np.testing.assert_allclose(found, 2 * sample["x"])


@pytest.mark.parametrize("kind", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(("stride", "size"), [(1, "H"), (1, 7), (2, 8), (2, 9)])
def test_dilated_padding_in_numbers(
    kind: str, stride: int, size: int | str, rng: np.random.Generator
) -> None:
    weight = rng.normal(size=(4, 3, 3, 2)).astype(np.float32)
    attributes = {"auto_pad": kind, "dilations": [2, 3], "strides": [stride, stride]}
    net = model([("Conv", ["x", "w"], ["y"], attributes)], {"w": weight}, ["N", 3, size, size])
    (conv,) = prepare(net).graph.node
    given = {a.name: helper.get_attribute_value(a) for a in conv.attribute}
    assert "auto_pad" not in given
    # The same without dilation, which onnxruntime takes: zeros between the taps.
    spread = np.zeros((4, 3, 5, 4), np.float32)
    spread[:, :, ::2, ::3] = weight
    plain = {"auto_pad": kind, "strides": [stride, stride]}
    wanted = model([("Conv", ["x", "w"], ["y"], plain)], {"w": spread}, ["N", 3, size, size])
    sides = size if isinstance(size, int) else 11
    feeds = {"x": rng.normal(size=(1, 3, sides, sides)).astype(np.float32)}
    before, after = (load_onnxruntime(m)(feeds)["y"] for m in (wanted, prepare(net)))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_dilated_padding_that_depends_on_free_sizes_is_left() -> None:
    attributes = {"auto_pad": "SAME_UPPER", "dilations": [2, 2], "strides": [2, 2]}
    weight = np.ones((4, 3, 3, 3), np.float32)
    net = model([("Conv", ["x", "w"], ["y"], attributes)], {"w": weight}, ["N", 3, "H", "W"])
    (conv,) = prepare(net).graph.node
    assert any(a.name == "auto_pad" for a in conv.attribute)


@pytest.mark.parametrize("more", [{"dilations": [2]}, {"dilations": [2, 2], "strides": [1]}])
def test_padding_of_no_convolution_is_left(more: dict[str, list[int]]) -> None:
    """Numbers of axes that contradict each other: ONNX lets them pass, a runtime does not."""
    attributes = {"auto_pad": "SAME_UPPER", **more}
    weight = np.ones((4, 3, 3, 3), np.float32)
    net = model([("Conv", ["x", "w"], ["y"], attributes)], {"w": weight}, ["N", 3, 8, 8])
    (conv,) = prepare(net).graph.node
    assert any(a.name == "auto_pad" for a in conv.attribute)


def test_scales_in_lists_become_scalars(rng: np.random.Generator) -> None:
    nodes: Nodes = [
        ("QuantizeLinear", ["x", "s", "z"], ["q"], {}),
        ("DequantizeLinear", ["q", "s", "z"], ["d"], {}),
        ("DequantizeLinear", ["w", "s", "z"], ["v"], {}),
        ("MatMul", ["d", "v"], ["y"], {}),
    ]
    constants = {
        "s": np.array([0.05], np.float32),
        "z": np.array([0], np.int8),
        "w": rng.integers(-60, 61, (8, 4)).astype(np.int8),
    }
    net = model(nodes, constants, ["N", 8])
    imported = import_quantized(net)
    assert "3 Q/DQ nodes have their one scale as a scalar, not in a list" in imported.notes
    shapes = {t.name: list(t.dims) for t in imported.model.graph.initializer}
    for node in imported.model.graph.node[:3]:
        assert [shapes[name] for name in node.input[1:]] == [[], []]
    feeds = {"x": rng.normal(size=(3, 8)).astype(np.float32)}
    np.testing.assert_array_equal(load_int8(imported.model)(feeds)["y"], load_int8(net)(feeds)["y"])
