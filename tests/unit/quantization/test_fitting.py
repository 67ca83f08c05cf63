"""Whether a layer is fitted to its INT8 input is said by samples it was not fitted to."""

from __future__ import annotations

import numpy as np
import pytest

from graphs.layer_matrix import SampledColumns
from quantization.improve.weights.fitting import Columns, checking, fit_in_blocks, fit_weights
from quantization.improve.weights.rounding import largest_scale

SIZE, SAMPLES = 16, 12


def columns(rng: np.random.Generator, *, same: bool, groups: int = 1) -> Columns:
    """What INT8 makes of inputs: mixed alike in every sample, or in each in a way of its own."""

    def mixing() -> np.ndarray:
        noise = rng.normal(size=(SIZE, SIZE))
        return np.eye(SIZE) + 0.4 * noise / np.linalg.norm(noise, 2)  # it can be undone

    exact = [rng.normal(size=(40, groups, SIZE)).astype(np.float32) for _ in range(SAMPLES)]
    one = mixing()
    actual = [np.asarray(x @ (one if same else mixing()), np.float32) for x in exact]
    return read_as(exact, actual)


def read_as(exact: list[np.ndarray], actual: list[np.ndarray], *, centred: bool = False) -> Columns:
    """Columns of samples, those that check in front."""
    order = [*checking(len(exact)), *sorted({*range(len(exact))} - {*checking(len(exact))})]
    both = [
        SampledColumns(
            rows=np.concatenate([parts[n] for n in order]).astype(np.float32),
            starts=tuple(int(n) for n in np.cumsum([0, *(len(parts[n]) for n in order[:-1])])),
        )
        for parts in (exact, actual)
    ]
    return Columns.of(*both, centred=centred)


def error(weights: np.ndarray, matrix: np.ndarray, read: Columns) -> float:
    exact, actual = read.exact.astype(np.float64), read.actual.astype(np.float64)
    wanted = np.einsum("gok,ngk->ngo", matrix, exact)
    return float(np.square(np.einsum("gok,ngk->ngo", weights, actual) - wanted).mean())


@pytest.mark.parametrize("groups", [1, 3])
def test_errors_that_all_samples_share_are_made_up_for(
    groups: int, rng: np.random.Generator
) -> None:
    matrix, read = rng.normal(size=(groups, 8, SIZE)), columns(rng, same=True, groups=groups)
    fitted, hessian = fit_weights(matrix, read, ridge=0.01)
    assert error(fitted, matrix, read) < 0.2 * error(matrix, matrix, read)
    actual = read.actual.astype(np.float64)
    wanted = np.einsum("ngk,ngl->gkl", actual, actual) / len(actual)
    np.testing.assert_allclose(hessian, wanted, rtol=1e-9, atol=1e-9)


def test_the_noise_of_few_samples_is_not_followed(rng: np.random.Generator) -> None:
    """As many weights as positions fitted to: their errors are made up for, to others' harm."""
    matrix = rng.normal(size=(1, 8, SIZE))
    count = 1 + 4 * SIZE // 3  # a quarter of them checks
    exact = [rng.normal(size=(1, 1, SIZE)).astype(np.float32) for _ in range(count)]
    actual = [x + 0.3 * rng.normal(size=x.shape).astype(np.float32) for x in exact]
    read = read_as(exact, actual)
    assert len(read.divided()[0].exact) == SIZE
    fitted, _ = fit_weights(matrix, read, ridge=1e-9)
    np.testing.assert_array_equal(fitted, matrix)


def test_a_single_sample_is_fitted_unchecked(rng: np.random.Generator) -> None:
    matrix, exact = rng.normal(size=(1, 8, SIZE)), rng.normal(size=(40, 1, SIZE))
    lone = read_as([exact], [exact @ (0.5 * np.eye(SIZE))])
    assert not lone.divided()[1].exact.size
    fitted, _ = fit_weights(matrix, lone, ridge=0.01)
    np.testing.assert_array_equal(fitted, matrix)


def test_blocks_are_checked_like_whole_layers(rng: np.random.Generator) -> None:
    matrix, read = rng.normal(size=(1, 8, SIZE)), columns(rng, same=True)
    scale = 2 * largest_scale(matrix)  # fitted weights are larger, and are not to be cut off
    codes = fit_in_blocks(matrix, scale, read, ridge=0.01, partners=None)
    plain = fit_in_blocks(matrix, scale, read, ridge=None, partners=None)
    errors = [error(found * scale[..., None], matrix, read) for found in (codes, plain)]
    assert errors[0] < 0.2 * errors[1]


@pytest.mark.parametrize("centred", [False, True])
def test_columns_are_those_of_all_samples(centred: bool, rng: np.random.Generator) -> None:
    """One array of them, the samples that check in front, with no mean where it is taken off."""
    exact, actual = ([rng.normal(size=(n, 2, 3)) for n in (4, 1, 2, 5, 6)] for _ in "xy")
    wanted = [np.concatenate([parts[n] for n in (0, 4, 1, 2, 3)]) for parts in (exact, actual)]
    read = read_as(exact, actual, centred=centred)
    assert read.checked == 10
    for found, each in zip((read.exact, read.actual), wanted, strict=True):
        mean = each.mean(axis=0) if centred else 0.0
        np.testing.assert_allclose(found, each - mean, atol=1e-6)
