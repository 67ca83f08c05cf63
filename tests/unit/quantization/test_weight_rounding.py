"""Rounding with feedback and refitting: what the formulas promise."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from quantization.improve.weights.rounding import (
    largest_scale,
    refit,
    round_with_feedback,
    second_moment,
)


def output_error(matrix: np.ndarray, rounded: np.ndarray, inputs: np.ndarray) -> float:
    """Mean squared change of the outputs; inputs are (n, groups, K)."""
    difference = np.einsum("gok,ngk->ngo", rounded - matrix, inputs)
    return float((difference**2).mean())


def correlated(rng: np.random.Generator, groups: int = 2, size: int = 24) -> np.ndarray:
    """Inputs with a few strong common directions, as activations have."""
    directions = rng.standard_normal((4, groups * size))
    inputs = rng.standard_normal((2000, 4)) @ directions
    inputs += 0.1 * rng.standard_normal(inputs.shape)
    return inputs.reshape(2000, groups, size)


def nearest(matrix: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(matrix / scale[..., None]), -127, 127) * scale[..., None]


def test_feedback_beats_rounding_to_nearest_on_correlated_inputs(rng: np.random.Generator) -> None:
    matrix = rng.standard_normal((2, 16, 24))
    inputs = correlated(rng)
    scale = largest_scale(matrix)
    codes = round_with_feedback(matrix, scale, second_moment(inputs, inputs))
    feedback = output_error(matrix, codes * scale[..., None], inputs)
    assert feedback < 0.5 * output_error(matrix, nearest(matrix, scale), inputs)


def test_equal_inputs_share_one_rounding_error() -> None:
    # Both weights are 0.4 of a step: nearest loses 0.8 steps, one of them up loses 0.2.
    matrix = np.array([[[0.4, 0.4, 127.0]]])
    inputs = np.random.default_rng(0).standard_normal((500, 1, 3))
    inputs[:, 0, 1] = inputs[:, 0, 0]
    codes = round_with_feedback(matrix, np.ones((1, 1)), second_moment(inputs, inputs))
    assert sorted(codes[0, 0, :2]) == [0, 1]
    assert codes[0, 0, 2] == 127


def test_independent_inputs_are_rounded_to_nearest(rng: np.random.Generator) -> None:
    matrix = rng.standard_normal((1, 8, 16))
    scale = largest_scale(matrix)
    codes = round_with_feedback(matrix, scale, np.eye(16)[None] * 3.0)
    np.testing.assert_array_equal(codes * scale[..., None], nearest(matrix, scale))


def test_more_columns_than_a_block(rng: np.random.Generator) -> None:
    matrix = rng.standard_normal((1, 4, 300))
    inputs = correlated(rng, groups=1, size=300)
    scale = largest_scale(matrix)
    codes = round_with_feedback(matrix, scale, second_moment(inputs, inputs))
    feedback = output_error(matrix, codes * scale[..., None], inputs)
    assert feedback < 0.5 * output_error(matrix, nearest(matrix, scale), inputs)


@pytest.mark.parametrize("hessian", [np.zeros((1, 5, 5)), np.ones((1, 5, 5))])
def test_dead_and_singular_inputs_are_rounded_all_the_same(hessian: np.ndarray) -> None:
    matrix = np.linspace(-1, 1, 20).reshape(1, 4, 5)
    codes = round_with_feedback(matrix, largest_scale(matrix), hessian)
    assert codes.min() >= -127
    assert np.isfinite(refit(matrix, hessian, hessian, ridge=0.1)).all()


def test_refit_undoes_what_the_input_lost(rng: np.random.Generator) -> None:
    matrix = rng.standard_normal((1, 6, 5))
    exact = rng.standard_normal((400, 1, 5))
    seen = exact * 0.5
    found = refit(matrix, second_moment(exact, seen), second_moment(seen, seen), ridge=1e-9)
    np.testing.assert_allclose(found, 2 * matrix, rtol=1e-5)


def test_refit_lowers_the_error_on_noisy_inputs(rng: np.random.Generator) -> None:
    matrix = rng.standard_normal((2, 16, 24))
    exact = correlated(rng)
    seen = exact + 0.5 * rng.standard_normal(exact.shape)
    moments = (second_moment(each, seen) for each in (exact, seen))
    found = refit(matrix, *moments, ridge=0.001)

    def error(weights: np.ndarray) -> float:
        wanted = np.einsum("gok,ngk->ngo", matrix, exact)
        return float(((np.einsum("gok,ngk->ngo", weights, seen) - wanted) ** 2).mean())

    assert error(found) < 0.8 * error(matrix)


def test_a_large_ridge_keeps_the_weights(rng: np.random.Generator) -> None:
    matrix = rng.uniform(0.5, 2.0, (1, 6, 5))
    exact, seen = rng.standard_normal((2, 50, 1, 5))
    moments = second_moment(exact, seen), second_moment(seen, seen)
    np.testing.assert_allclose(refit(matrix, *moments, ridge=1e9), matrix, rtol=1e-6)


def test_second_moment_is_the_mean_of_products(rng: np.random.Generator) -> None:
    left, right = rng.standard_normal((2, 30, 2, 4))
    expected = np.einsum("ngk,ngl->gkl", left, right) / 30
    np.testing.assert_allclose(second_moment(left, right), expected, atol=1e-12)


@pytest.mark.parametrize("paired", [False, True])
def test_groups_are_rounded_together_as_each_alone(
    paired: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many small groups are one array operation, in as many parts as memory asks for."""
    inputs = rng.normal(size=(500, 7, 6)) * rng.uniform(0.1, 3.0, size=(7, 6))
    inputs[:, 2] = 0.0  # a dead group
    matrix = rng.normal(size=(7, 3, 6))
    moments, scale = second_moment(inputs, inputs), largest_scale(matrix)
    partners = np.array([1, 0, 3, 2, -1, -1]) if paired else None
    together = round_with_feedback(matrix, scale, moments, partners)
    alone = [round_with_feedback(matrix[[g]], scale[[g]], moments[[g]], partners) for g in range(7)]
    np.testing.assert_array_equal(together, np.concatenate(alone))
    monkeypatch.setattr(sys.modules[round_with_feedback.__module__], "_MOST_VALUES", 80)
    np.testing.assert_array_equal(round_with_feedback(matrix, scale, moments, partners), together)
