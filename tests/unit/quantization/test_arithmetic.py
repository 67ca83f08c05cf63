from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from quantization.arithmetic import (
    ROUNDING,
    affine_parameters,
    channel_amax,
    dequantize,
    integer_limits,
    quantize,
    symmetric_scale,
)

amaxes = st.floats(1e-6, 1e6)
reals = st.floats(-1e6, 1e6, width=32)


def test_the_field_teaches_affine_on_minus_two_to_two() -> None:
    scale, zero_point = affine_parameters(-2.0, 2.0, bits=8)
    assert round(scale, 4) == 0.0157
    assert zero_point == -1
    code = quantize(1.3, scale, zero_point, qmin=-128)
    assert code == 82
    assert dequantize(code, scale, zero_point) == pytest.approx(1.30196, abs=1e-5)
    # Textbooks round the scale first and print 1.3031.
    assert (int(code) - zero_point) * 0.0157 == pytest.approx(1.3031)


def test_three_symmetric_bits_are_minus_three_to_three_with_six_partitions() -> None:
    qmin, qmax = integer_limits(3)
    assert (qmin, qmax, qmax - qmin) == (-3, 3, 6)
    scale = symmetric_scale(1.5, bits=3)
    assert scale == pytest.approx(0.5)
    assert quantize([-9, -1.5, 0.6, 9], scale, qmin=qmin, qmax=qmax).tolist() == [-3, -3, 1, 3]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("half_even", [-2, -2, 0, 0, 2, 2]),
        ("half_up", [-2, -1, 0, 1, 2, 3]),
        ("half_away", [-3, -2, -1, 1, 2, 3]),
    ],
)
def test_ties_round_as_the_named_runtime_rounds(mode: str, expected: list[int]) -> None:
    ties = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    assert ROUNDING[mode](ties, ties.copy()).tolist() == expected  # type: ignore[index]
    assert ROUNDING[mode](ties, ties).tolist() == expected  # type: ignore[index]


@given(amax=amaxes, value=reals)
def test_error_is_half_a_step_inside_the_range(amax: float, value: float) -> None:
    scale = symmetric_scale(amax)
    inside = np.float32(np.clip(value, -amax, amax))
    error = abs(float(dequantize(quantize(inside, scale), scale)) - float(inside))
    assert error <= 0.5 * float(scale) * (1 + 1e-5)


@given(amax=amaxes, value=reals)
def test_codes_are_odd_bounded_and_stable(amax: float, value: float) -> None:
    scale = symmetric_scale(amax)
    code = quantize(value, scale)
    assert -127 <= code <= 127
    assert quantize(-value, scale) == -code
    assert quantize(dequantize(code, scale), scale) == code
    assert quantize(0.0, scale) == 0


@given(amax=amaxes, values=st.lists(reals, min_size=2, max_size=20))
def test_codes_are_monotone(amax: float, values: list[float]) -> None:
    codes = quantize(sorted(values), symmetric_scale(amax)).astype(int)
    assert (np.diff(codes) >= 0).all()


@given(low=st.floats(-1e3, 0), width=st.floats(1e-3, 1e3), bits=st.integers(2, 8))
def test_affine_ends_and_zero_have_codes(low: float, width: float, bits: int) -> None:
    high = low + width
    scale, zero_point = affine_parameters(low, high, bits=bits)
    qmin, qmax = integer_limits(bits, symmetric=False)
    assert qmin <= zero_point <= qmax
    for value in (min(low, 0.0), 0.0, max(high, 0.0)):
        code = quantize(value, scale, zero_point, qmin=qmin, qmax=qmax)
        # An end is one rounding of the quotient and one of the zero point away.
        assert abs(float(dequantize(code, scale, zero_point)) - value) <= scale * (1 + 1e-5)
    zero = quantize(0.0, scale, zero_point, qmin=qmin, qmax=qmax)
    assert dequantize(zero, scale, zero_point) == 0.0


def test_dead_channels_get_scale_one_and_tiny_ones_stay_positive() -> None:
    scales = symmetric_scale([0.0, 1e-44, 127.0])
    assert scales[0] == 1.0
    assert scales[1] == np.finfo(np.float32).tiny
    assert scales[2] == 1.0
    assert scales.dtype == np.float32


@pytest.mark.parametrize("amax", [math.nan, math.inf, -1.0])
def test_bad_amax_is_named(amax: float) -> None:
    with pytest.raises(ValueError, match=f"amax is {amax!r}"):
        symmetric_scale(amax)


def test_granularities_agree_with_plain_loops(rng: np.random.Generator) -> None:
    weight = rng.normal(size=(6, 4, 3, 3)).astype(np.float32)
    for axis in (0, 1):
        scale = symmetric_scale(channel_amax(weight, axis))
        codes = quantize(weight, scale, axis=axis)
        for channel in range(weight.shape[axis]):
            one = weight.take(channel, axis=axis)
            expected = quantize(one, symmetric_scale(np.abs(one).max()))
            np.testing.assert_array_equal(codes.take(channel, axis=axis), expected)
            assert np.abs(expected).max() == 127


def test_scale_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scale has shape \(3,\), expected one value"):
        quantize(np.zeros((3, 4)), np.ones(3))
    with pytest.raises(ValueError, match="expected 4 values along axis 1"):
        quantize(np.zeros((2, 4)), np.ones(3), axis=1)


def test_bits_outside_two_to_sixteen_are_refused() -> None:
    with pytest.raises(ValueError, match="bits is 1, expected 2 to 16"):
        integer_limits(1)


def test_saturating_at_minus_128_is_what_onnx_does(rng: np.random.Generator) -> None:
    values = rng.normal(size=257).astype(np.float32) * 3
    scale = symmetric_scale(2.0)
    node = onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "q",
        [
            info("x", onnx.TensorProto.FLOAT, [None]),
            info("s", onnx.TensorProto.FLOAT, []),
            info("z", onnx.TensorProto.INT8, []),
        ],
        [info("q", onnx.TensorProto.INT8, [None])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    feed = {"x": values, "s": scale, "z": np.int8(0)}
    (expected,) = ReferenceEvaluator(model).run(None, feed)
    np.testing.assert_array_equal(quantize(values, scale, qmin=-128), expected)
    assert expected.min() == -128
    assert quantize(values, scale).min() == -127


def test_int32_accumulators_hold_any_common_layer() -> None:
    # docs/quantization.md states this depth: the sum of K products of magnitude 128 * 127.
    depth = (2**31 - 1) // (128 * 127)
    assert depth == 132104
    assert depth > 512 * 3 * 3 * 28


@pytest.mark.parametrize(
    ("qmin", "qmax", "dtype"),
    [(-127, 127, "int8"), (-128, 127, "int8"), (0, 255, "uint8"), (-32767, 32767, "int16")],
)
def test_codes_take_the_smallest_type(qmin: int, qmax: int, dtype: str) -> None:
    assert quantize([-1.0, 1.0], 1.0, qmin=qmin, qmax=qmax).dtype == dtype
