"""A Resize to computed sizes, or to sizes of named axes, gets constant scales of all axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from graphs.identity import graph_hash
from quantization.prepare.prepare import prepare
from tests.networks import Builder
from tests.networks.running import run

NEAREST = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
WAYS = ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners", "half_pixel_symmetric")


def resized(
    size: tuple[int, int], height: int | str = 6, *, named: bool = False, **attributes: Any
) -> onnx.ModelProto:
    """A map of (N, 3, height, 5) resized as PyTorch's exporters write it."""
    net = Builder(opset=18)
    x = net.op("Tanh", net.input("x", ("N", 3, height, 5)))
    if named:
        target = net.ints(*size)
        return net.build("named", net.op("Resize", x, "", "", target, axes=[2, -1], **attributes))
    kept = net.op("Slice", net.op("Shape", x), net.ints(0), net.ints(2), net.ints(0))
    target = net.op("Concat", kept, net.ints(*size), axis=0)
    return net.build("computed", net.op("Resize", x, "", "", target, **attributes))


def scales_of(model: onnx.ModelProto) -> list[float] | None:
    """The constant scales of the only Resize; None where it has sizes."""
    (resize,) = (node for node in model.graph.node if node.op_type == "Resize")
    if len(resize.input) > 3:
        return None
    assert not [a for a in resize.attribute if a.name == "axes"]
    found = {tensor.name: tensor for tensor in model.graph.initializer}[resize.input[2]]
    return [float(scale) for scale in numpy_helper.to_array(found)]


def feeds(rng: np.random.Generator, height: int = 6) -> dict[str, np.ndarray]:
    return {"x": rng.standard_normal((2, 3, height, 5)).astype(np.float32)}


def assert_same(model: onnx.ModelProto, prepared: onnx.ModelProto, x: dict[str, Any]) -> None:
    before, after = run(model, x), run(prepared, x)
    for name, values in before.items():
        assert values.shape == after[name].shape
        np.testing.assert_allclose(values, after[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_sizes_become_scales(mode: str, *, named: bool, rng: np.random.Generator) -> None:
    model = resized((12, 15), named=named, mode=mode)
    prepared = prepare(model)
    assert scales_of(prepared) == [1.0, 1.0, 2.0, 3.0]
    assert [node.op_type for node in prepared.graph.node] == ["Tanh", "Resize"]
    assert_same(model, prepared, feeds(rng))
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    height=st.integers(1, 23),
    named=st.booleans(),
    mode=st.sampled_from(["nearest", "linear"]),
    way=st.sampled_from(WAYS),
    nearest=st.sampled_from(NEAREST),
    seed=st.integers(0, 2**32 - 1),
)
def test_whatever_is_resized_computes_the_same(
    size: tuple[int, int],
    height: int,
    named: bool,
    mode: str,
    way: str,
    nearest: str,
    seed: int,
) -> None:
    ways = {"coordinate_transformation_mode": way, "nearest_mode": nearest}
    model = resized(size, height, named=named, mode=mode, **ways)
    assert_same(model, prepare(model), feeds(np.random.default_rng(seed), height))


def test_a_ratio_that_float32_cannot_hold_keeps_the_size() -> None:
    """13 / 7 in float32 times 7 is less than 13."""
    scales = scales_of(prepare(resized((13, 5), 7, mode="linear")))
    assert scales is not None
    assert np.floor(np.float32(7) * np.float32(scales[2])) == np.floor(7 * scales[2]) == 13


@pytest.mark.parametrize("named", [True, False])
def test_sizes_of_free_axes_are_those_of_all_axes(*, named: bool, rng: np.random.Generator) -> None:
    model = resized((12, 15), "H", named=named)
    prepared = prepare(model)
    assert scales_of(prepared) is None
    (resize,) = (node for node in prepared.graph.node if node.op_type == "Resize")
    assert not [attribute for attribute in resize.attribute if attribute.name == "axes"]
    assert_same(model, prepared, feeds(rng, 4))
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)


@pytest.mark.parametrize(
    "attributes",
    [
        {"keep_aspect_ratio_policy": "not_larger"},
        {"coordinate_transformation_mode": "half_pixel_symmetric", "size": (13, 5)},
    ],
)
def test_sizes_that_mean_more_than_scales_stay(
    attributes: dict[str, Any], rng: np.random.Generator
) -> None:
    given = {"size": (12, 15), **attributes}
    model = resized(given.pop("size"), 7, named=True, **given)
    prepared = prepare(model)
    assert scales_of(prepared) is None
    assert_same(model, prepared, feeds(rng, 7))
