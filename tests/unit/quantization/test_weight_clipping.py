"""Scales by squared error: never worse, and better where one weight sticks out."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quantization.improve.clipping import clipped_scale, largest_scale

matrices = arrays(
    np.float64, (2, 3, 8), elements=st.floats(-10, 10, width=32, allow_subnormal=False)
)


def error(matrix: np.ndarray, scale: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    steps = scale[..., None]
    squared = (np.clip(np.rint(matrix / steps), -127, 127) * steps - matrix) ** 2
    return (squared if weight is None else squared * weight[:, None, :]).sum(axis=-1)


@given(matrices)
def test_clipping_never_adds_error(matrix: np.ndarray) -> None:
    assert (error(matrix, clipped_scale(matrix)) <= error(matrix, largest_scale(matrix))).all()


def test_one_large_weight_is_clipped_where_it_costs_less(rng: np.random.Generator) -> None:
    matrix = rng.uniform(-1, 1, (1, 1, 200000))
    matrix[0, 0, 0] = 1.3
    clipped, largest = clipped_scale(matrix), largest_scale(matrix)
    assert clipped[0, 0] < 0.9 * largest[0, 0]
    assert error(matrix, clipped) < 0.8 * error(matrix, largest)


def test_importance_keeps_a_large_weight_that_reads_a_large_input(rng: np.random.Generator) -> None:
    matrix = rng.uniform(-1, 1, (1, 1, 200000))
    matrix[0, 0, 0] = 1.3
    importance = np.ones((1, 200000))
    importance[0, 0] = 1e6
    kept = clipped_scale(matrix, importance)
    assert kept[0, 0] > 0.95 * largest_scale(matrix)[0, 0]
    assert error(matrix, kept, importance) <= error(matrix, largest_scale(matrix), importance)


def test_dead_channels_get_a_positive_scale() -> None:
    assert (clipped_scale(np.zeros((1, 2, 4))) == 1.0).all()
