"""Weights whose pairs no CPU saturates: codes, scales, rounding with feedback, placement."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graphs.pairs import pair_partners, saturating
from graphs.view import GraphView
from quantization.improve.weights.rounding import round_with_feedback
from quantization.placement import place
from quantization.write.bounded_weights import (
    as_rows,
    bounded_codes,
    bounded_scale,
    from_rows,
    partners_of,
)
from quantization.write.weights import quantize_weight
from tests.networks import Builder

ROWS = hnp.arrays(np.float64, (3, 12), elements=st.floats(-5, 5))
PARTNERS = np.arange(12) ^ 1


@given(ROWS)
def test_the_chosen_scale_loses_no_more_than_half_the_codes(rows: np.ndarray) -> None:
    amax = np.maximum(np.abs(rows).max(axis=1), 1e-9) / 127
    chosen = bounded_scale(rows, amax, PARTNERS)
    assert (chosen >= amax).all()

    def loss(scale: np.ndarray) -> np.ndarray:
        return ((bounded_codes(rows, scale, PARTNERS) * scale[:, None] - rows) ** 2).sum(axis=1)

    binding = saturating(np.clip(np.rint(rows / amax[:, None]), -127, 127), PARTNERS).any(axis=1)
    np.testing.assert_array_equal(chosen[~binding], amax[~binding])
    for other in (amax, amax * 254 / 128):  # clipped pairs, and seven bits for all
        assert (loss(chosen) <= loss(other) * (1 + 1e-9) + 1e-12)[binding].all()


@given(ROWS, st.integers(0, 2**32 - 1))
def test_feedback_keeps_pairs_inside(rows: np.ndarray, seed: int) -> None:
    inputs = np.random.default_rng(seed).normal(size=(64, 12)) + 0.5
    hessian = (inputs.T @ inputs / 64)[None]
    scale = np.maximum(np.abs(rows).max(axis=1), 1e-9)[None] / 127
    codes = round_with_feedback(rows[None], scale, hessian, PARTNERS)
    assert not saturating(codes, PARTNERS).any()
    assert codes.min() >= -127


def test_feedback_makes_up_for_clipped_pairs(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(16, 64))
    rows[:, 10:12] = 4.0  # a pair that binds, and the largest of its row
    inputs = rng.normal(size=(2000, 4)) @ rng.normal(size=(4, 64)) + 0.3
    hessian = inputs.T @ inputs / len(inputs)
    partners = np.arange(64) ^ 1
    scale = np.abs(rows).max(axis=1) / 127
    fed = round_with_feedback(rows[None], scale[None], hessian[None], partners)[0]
    nearest = bounded_codes(rows, scale, partners)

    def error(codes: np.ndarray) -> float:
        return float((((codes * scale[:, None] - rows) @ inputs.T) ** 2).mean())

    assert not saturating(fed, partners).any()
    assert error(fed) < error(nearest), "by 5,000 times as a rule; chance may leave 1.3"


@given(st.sampled_from([None, 0, 1, 2]), st.integers(0, 2**32 - 1))
def test_rows_and_back(axis: int | None, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(3, 4, 2))
    rows = as_rows(values, axis)
    assert rows.shape == (
        (1, 24) if axis is None else (values.shape[axis], 24 // values.shape[axis])
    )
    np.testing.assert_array_equal(from_rows(rows, axis, values.shape), values)


GROUPS = {"conv": 1, "grouped": 3, "odd": 4, "depthwise": 12, "multiplied": 12}


@pytest.mark.parametrize("kind", [*GROUPS, "transposed", "gemm", "matmul"])
def test_every_kind_of_layer_is_bounded(kind: str) -> None:
    net = Builder(7)
    x = net.relu(net.input("x", ("N", 12, 6, 6)))
    if kind == "transposed":
        weight = net.weight((12, 8, 2, 2), 12)
        y = net.op("ConvTranspose", x, weight, strides=[2, 2])
    elif kind in ("gemm", "matmul"):
        flat = net.op("GlobalAveragePool", x)
        flat = net.op("Flatten", flat)
        weight = net.weight((12, 8), 12)
        y = net.op("Gemm" if kind == "gemm" else "MatMul", flat, weight)
    else:
        y = net.conv(x, 12 if kind == "depthwise" else 24, groups=GROUPS[kind])
    model = net.build("layer", y)
    view = GraphView(model)
    placement = place(model, profile="cpu", portable=True)
    for weight in placement.weights:
        assert weight.bounded
        found = quantize_weight(view, weight)
        partners = partners_of(view, weight)
        assert not saturating(as_rows(found.codes, weight.axis), partners).any()
        assert (partners == -1).all() == (kind == "depthwise")
        own = (partners == np.arange(len(partners))).all()
        assert own == (kind in ("odd", "multiplied"))
    plain = place(model, profile="cpu")
    assert not any(weight.bounded for weight in plain.weights)


def test_a_pair_of_equal_large_weights_takes_the_scale_that_fits() -> None:
    # All pairs bind alike: seven bits are right for them, and the scale is found.
    rows = np.full((1, 8), 1.0)
    scale = bounded_scale(rows, np.array([1 / 127]), np.arange(8) ^ 1)
    codes = bounded_codes(rows, scale, np.arange(8) ^ 1)
    np.testing.assert_allclose(codes * scale, rows, rtol=1e-3)
    assert codes.max() == 64


@pytest.mark.parametrize("kind", ["transposed", "solid"])
@pytest.mark.parametrize("activation", ["Relu", "Sigmoid", "none", "LeakyRelu"])
def test_what_loses_a_bit_of_its_weights_stays_in_float_for_any_cpu(
    activation: str, kind: str
) -> None:
    """Transposed, or with groups and three axes, and of values that may be negative."""
    net = Builder(3)
    size = (6, 6, 6) if kind == "solid" else (6, 6)
    x = net.input("x", ("N", 16, *size))
    x = x if activation == "none" else net.op(activation, x)
    if kind == "transposed":
        y = net.op("ConvTranspose", x, net.weight((16, 8, 2, 2), 16), strides=[2, 2])
    else:
        y = net.op("Conv", x, net.weight((16, 4, 3, 3, 3), 108), group=4)
    dense = net.op(
        "Conv",
        net.op("Relu", y),
        net.weight((8, 8 if kind == "transposed" else 16, *(1 for _ in size)), 8),
    )
    model = net.build("up", dense)
    left = {each.node: each.why for each in place(model, profile="cpu", portable=True).floating}
    assert len(left) == (activation in ("none", "LeakyRelu"))
    assert all("without VNNI" in why for why in left.values())
    assert place(model, profile="cpu").floating == ()


def test_products_of_activations_stay_in_float_for_any_cpu() -> None:
    net = Builder(3)
    x = net.input("x", ("N", 8, 16))
    scores = net.op("MatMul", x, net.op("Transpose", x, perm=[0, 2, 1]))
    model = net.build("attention", net.op("MatMul", scores, net.weight((8, 8), 8)))
    found = place(model, profile="cpu", portable=True)
    (left,) = found.floating
    assert left.rule == "unbounded_product"
    assert "sums of its products would saturate" in left.why
    assert place(model, profile="cpu").floating == ()
    assert pair_partners((8, 8), axis=0, rows=1).tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
