"""A Pad is taken in by the layer behind it where that pads with the same value."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.edit import set_attribute
from graphs.identity import graph_hash
from quantization.prepare.prepare import prepare
from tests.networks import Builder
from tests.networks.running import run

LOWEST = float(np.finfo(np.float32).min)


def padded(
    layer: str,
    pads: tuple[int, int, int, int],
    value: float | None,
    *,
    behind: str = "Relu",
    own: tuple[int, int, int, int] = (0, 0, 0, 0),
    **attributes: Any,
) -> onnx.ModelProto:
    """A Pad of height and width, a layer with 3×3 windows behind it."""
    net = Builder()
    x = net.op(behind, net.input("x", ("N", 4, 9, 7)))
    given = [net.ints(0, 0, *pads[:2], 0, 0, *pads[2:])]
    given += [] if value is None else [net.scalar(value)]
    x = net.op("Pad", x, *given)
    weight = [net.weight((6, 4, 3, 3), 36)] if layer == "Conv" else []
    settings = {"kernel_shape": [3, 3], "pads": list(own), **attributes}
    return net.build("padded", net.op(layer, x, *weight, **settings))


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def same(model: onnx.ModelProto, prepared: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Whether both compute the same, infinities too; a sum's order changes the last places."""
    feeds = {"x": rng.standard_normal((2, 4, 9, 7)).astype(np.float32)}
    before, after = run(model, feeds), run(prepared, feeds)
    return all(
        values.shape == after[name].shape and np.allclose(values, after[name], rtol=0, atol=1e-4)
        for name, values in before.items()
    )


@pytest.mark.parametrize(
    ("layer", "value", "behind"),
    [
        ("MaxPool", -np.inf, "Tanh"),
        ("MaxPool", LOWEST, "Tanh"),
        ("MaxPool", 0.0, "Relu"),
        ("MaxPool", None, "Sigmoid"),
        ("Conv", 0.0, "Tanh"),
        ("Conv", None, "Tanh"),
        ("AveragePool", None, "Tanh"),
    ],
)
def test_a_pad_becomes_padding_of_the_layer(
    layer: str, value: float | None, behind: str, rng: np.random.Generator
) -> None:
    model = padded(layer, (1, 2, 2, 0), value, behind=behind, strides=[2, 1])
    prepared = prepare(model)
    assert operators(prepared) == [behind, layer]
    assert same(model, prepared, rng)
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)


@settings(max_examples=30, deadline=None)
@given(
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    own=st.tuples(*[st.integers(0, 1)] * 4),
    strides=st.lists(st.integers(1, 3), min_size=2, max_size=2),
    layer=st.sampled_from(["Conv", "MaxPool"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_whatever_is_padded_computes_the_same(
    pads: tuple[int, int, int, int],
    own: tuple[int, int, int, int],
    strides: list[int],
    layer: str,
    seed: int,
) -> None:
    value = 0.0 if layer == "Conv" else -np.inf
    model = padded(layer, pads, value, own=own, strides=strides, behind="Tanh")
    assert same(model, prepare(model), np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("layer", "pads", "value", "attributes"),
    [
        ("MaxPool", (1, 1, 1, 1), 0.0, {"behind": "Tanh"}),  # a zero may be the largest
        ("MaxPool", (1, 1, 1, 1), -1e9, {}),
        ("MaxPool", (3, 0, 0, 0), -np.inf, {}),  # a window of padding alone
        ("MaxPool", (2, 0, 0, 0), -np.inf, {"own": (1, 0, 0, 0)}),
        ("MaxPool", (0, 0, 1, 1), -np.inf, {"ceil_mode": 1, "strides": [2, 2]}),
        ("MaxPool", (1, 1, 1, 1), -np.inf, {"dilations": [2, 2]}),
        ("AveragePool", (1, 1, 1, 1), 0.0, {"own": (1, 1, 1, 1)}),
        ("AveragePool", (1, 1, 1, 1), 0.5, {}),
        ("Conv", (1, 1, 1, 1), 1.0, {}),
        ("Conv", (-1, 0, 0, 0), 0.0, {}),
    ],
)
def test_a_pad_stays_where_the_layer_pads_otherwise(
    layer: str,
    pads: tuple[int, int, int, int],
    value: float,
    attributes: dict[str, Any],
    rng: np.random.Generator,
) -> None:
    model = padded(layer, pads, value, **attributes)
    prepared = prepare(model)
    assert operators(prepared)[-2:] == ["Pad", layer]
    assert same(model, prepared, rng)


def test_a_pad_that_others_read_stays_for_them(rng: np.random.Generator) -> None:
    net = Builder()
    pad = net.op("Pad", net.op("Tanh", net.input("x", ("N", 4, 9, 7))), net.ints(*[0, 0, 1, 1] * 2))
    conv = net.op("Conv", pad, net.weight((6, 4, 3, 3), 36), kernel_shape=[3, 3])
    model = net.build("both", conv, net.op("Abs", pad))
    prepared = prepare(model)
    assert sorted(operators(prepared)) == ["Abs", "Conv", "Pad", "Tanh"]
    assert next(n for n in prepared.graph.node if n.op_type == "Conv").input[0].startswith("Tanh")
    assert same(model, prepared, rng)


@pytest.mark.parametrize(("axes", "pads"), [((2, -1), (2, 1, 0, 1)), ((-1, 0), (1, 0, 2, 0))])
def test_a_pad_may_name_its_axes(
    axes: tuple[int, ...], pads: tuple[int, ...], rng: np.random.Generator
) -> None:
    net = Builder(opset=18)
    x = net.op("Tanh", net.input("x", ("N", 4, 9, 7)))
    pad = net.op("Pad", x, net.ints(*pads), net.scalar(0.0), net.ints(*axes))
    conv = net.op("Conv", pad, net.weight((6, 4, 3, 3), 36), kernel_shape=[3, 3])
    model = net.build("named", conv)
    prepared = prepare(model)
    assert operators(prepared) == ["Tanh", "Conv"]
    assert same(model, prepared, rng)


def test_a_causal_convolution_pads_more_than_its_kernel(rng: np.random.Generator) -> None:
    net = Builder()
    x = net.op("Tanh", net.input("x", ("N", 4, 9, 7)))
    pad = net.op("Pad", x, net.ints(0, 0, 0, 8, 0, 0, 0, 0))
    conv = net.op("Conv", pad, net.weight((6, 4, 1, 3), 12), kernel_shape=[1, 3], dilations=[1, 4])
    model = net.build("causal", conv)
    prepared = prepare(model)
    assert operators(prepared) == ["Tanh", "Conv"]
    assert same(model, prepared, rng)


@pytest.mark.parametrize("whole", [False, True])
def test_the_output_shape_of_a_transposed_convolution(
    whole: bool, rng: np.random.Generator
) -> None:
    """MindSpore writes batch and channels, too, and no runtime takes them."""
    net = Builder(7)
    x, weight = net.input("x", (1, 5, 6, 7)), net.weight((5, 3, 3, 3), 45)
    settings = {"strides": [2, 2], "kernel_shape": [3, 3], "auto_pad": "SAME_LOWER"}
    up = net.op("ConvTranspose", x, weight, output_shape=[12, 14], **settings)
    model = net.build("up", up)
    if whole:
        set_attribute(model.graph.node[0], "output_shape", [1, 3, 12, 14])
    plain = prepare(model)
    feeds = {"x": rng.standard_normal((1, 5, 6, 7)).astype(np.float32)}
    (found,) = run(plain, feeds).values()
    assert found.shape == (1, 3, 12, 14)
    attribute = next(a for a in plain.graph.node[0].attribute if a.name == "output_shape")
    assert list(attribute.ints) == [12, 14]
    assert prepare(plain) == plain
