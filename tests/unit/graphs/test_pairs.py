"""Pairs of weights in 16-bit sums: the limit, who is paired, the nearest codes inside."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graphs.pairs import (
    ANY_TWO,
    PAIR_LIMIT,
    pair_partners,
    pairing_axis,
    saturates,
    saturating,
    within_pairs,
)

CODES = st.integers(-127, 127)


def sum_of_16_bits(weights: np.ndarray, inputs: np.ndarray) -> int:
    """``vpmaddubsw``: two products of unsigned and signed bytes, their sum kept in 16 bits."""
    return int(np.clip(int(inputs @ weights), -32768, 32767))


@given(CODES, CODES)
def test_the_limit_is_that_of_16_bits(first: int, second: int) -> None:
    pair = np.array([[first, second]])
    worst = [np.array(x) for x in itertools.product((0, 255), repeat=2)]
    exact = all(sum_of_16_bits(pair[0], x) == int(x @ pair[0]) for x in worst)
    assert exact == (not saturating(pair, np.array([1, 0])).any())


@given(
    hnp.arrays(np.float64, (3, 8), elements=st.floats(-300, 300)),
    st.integers(0, 3),
)
def test_nearest_codes_keep_the_limit_when_they_are_rounded(values: np.ndarray, seed: int) -> None:
    partners = np.arange(8) ^ 1
    partners[6:] = -1 if seed else partners[6:]
    codes = np.rint(within_pairs(values, partners))
    assert not saturating(codes, partners).any()
    assert np.abs(codes).max() <= 127
    inside = ~saturating(np.clip(values, -127, 127), partners)
    same_sign_limit = np.abs(values) + np.abs(values[:, partners]) <= PAIR_LIMIT - 1
    untouched = (np.abs(values) <= 127) & ((partners < 0) | (inside & same_sign_limit))
    np.testing.assert_array_equal(within_pairs(values, partners)[untouched], values[untouched])


def test_partners_are_neighbouring_input_channels_at_the_same_tap() -> None:
    shape = (4, 5, 3, 3)  # an odd number of channels: the last has no partner
    partners = pair_partners(shape, axis=1, rows=0)
    place = {(c, t): c * 9 + t for c in range(5) for t in range(9)}
    for (channel, tap), position in place.items():
        wanted = -1 if channel == 4 else place[channel ^ 1, tap]
        assert partners[position] == wanted


def test_rows_of_a_stored_weight_are_paired_as_its_matrix() -> None:
    # Gemm (K, N) by columns, ConvTranspose (C_in, C_out, kh, kw) by its second axis.
    np.testing.assert_array_equal(pair_partners((6, 2), axis=0, rows=1), [1, 0, 3, 2, 5, 4])
    transposed = pair_partners((2, 3, 1, 2), axis=0, rows=1)
    np.testing.assert_array_equal(transposed, [2, 3, 0, 1])
    whole = pair_partners((2, 2, 3), axis=1, rows=None)  # a stack of matrices (B, K, N)
    np.testing.assert_array_equal(whole, [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8])


def test_each_operator_has_its_axis_of_pairs() -> None:
    assert pairing_axis("Conv", (8, 4, 3, 3)) == 1
    assert pairing_axis("ConvTranspose", (4, 8, 3, 3)) == 0
    assert pairing_axis("Gemm", (4, 8)) == 0
    assert pairing_axis("Gemm", (4, 8), transposed=True) == 1
    assert pairing_axis("MatMul", (2, 4, 8)) == 1
    assert pairing_axis("LSTM", (2, 4, 8)) is None


@pytest.mark.parametrize(
    ("shape", "groups", "axis"),
    [
        ((8, 1, 3, 3), 1, ANY_TWO),  # a picture in grey
        ((1, 1, 3, 3), 1, ANY_TWO),
        ((8, 1, 5), 1, ANY_TWO),  # a wave
        ((16, 1, 3, 3), 8, ANY_TWO),  # depthwise, two outputs of each input
        ((8, 1, 3, 3), 8, 1),
        ((8, 3, 3, 3), 1, 1),
        ((8, 3, 3, 3), 2, ANY_TWO),
        ((8, 4, 3, 3), 2, 1),
        ((16, 1, 1, 1), 8, 1),
        ((8, 3, 1, 1), 2, 1),
        ((8, 1), 1, 1),
    ],
    ids=str,
)
def test_where_a_group_is_odd_cpus_differ(shape: tuple[int, ...], groups: int, axis: int) -> None:
    assert pairing_axis("Conv", shape, groups=groups) == axis


@given(st.sampled_from([(1, 1), (1, 4), (3, 2), (5, 2)]), st.integers(2, 3), st.data())
def test_no_order_of_taps_saturates(layer: tuple[int, int], size: int, data: st.DataObject) -> None:
    """Of AVX2 (tap by tap, channel by channel) and AVX-512 (down the columns), as was measured."""
    inputs, groups = layer
    shape = (2 * groups, inputs, size, size)
    values = data.draw(hnp.arrays(np.float64, shape, elements=st.floats(-127, 127)))
    axis = pairing_axis("Conv", shape, groups=groups)
    assert axis == ANY_TWO
    partners = pair_partners(shape, axis, 0)
    codes = np.rint(within_pairs(values.reshape(len(values), -1), partners)).reshape(shape)
    assert not saturates(codes.astype(np.int8), axis)
    for order in (0, 2, 3, 1), (0, 3, 2, 1):
        rows = codes.transpose(order).reshape(len(codes), -1)
        for first, second in zip(rows[:, ::2].T, rows[:, 1::2].T, strict=False):
            assert ((first * second <= 0) | (np.abs(first + second) <= PAIR_LIMIT)).all()
