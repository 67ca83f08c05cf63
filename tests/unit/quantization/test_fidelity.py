"""SQNR, agreement and KL on numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from artefacts.errors import ModelError
from quantization.measure.fidelity import compare, run_all

FEEDS = [{"x": np.zeros(1)}, {"x": np.ones(1)}]


def outputs(rows: list[list[float]]) -> list[dict[str, np.ndarray]]:
    return [{"y": np.array([row], np.float32)} for row in rows]


def test_hand_worked() -> None:
    exact = outputs([[3.0, 4.0], [1.0, 0.0]])
    found = iter(outputs([[3.0, 3.5], [0.9, 1.1]]))
    result = compare(lambda feeds: next(found), FEEDS, exact)
    assert result.sqnr_db == pytest.approx(10 * math.log10(26 / (0.25 + 0.01 + 1.21)), abs=1e-4)
    assert result.agreement == 0.5
    assert result.samples == 2
    assert result.kl is not None
    assert result.kl > 0


def test_equal_outputs_have_no_noise() -> None:
    exact = outputs([[1.0, 2.0], [0.0, 5.0]])
    found = iter(exact)
    result = compare(lambda feeds: next(found), FEEDS, exact)
    assert result.sqnr_db == math.inf
    assert result.agreement == 1.0
    assert result.kl == pytest.approx(0.0, abs=1e-12)


def test_probabilities_are_not_taken_for_scores() -> None:
    exact = outputs([[0.25, 0.75], [0.5, 0.5]])
    found = iter(outputs([[0.5, 0.5], [0.5, 0.5]]))
    result = compare(lambda feeds: next(found), FEEDS, exact)
    expected = (0.25 * math.log(0.5) + 0.75 * math.log(1.5)) / 2
    assert result.kl == pytest.approx(expected, rel=1e-6)


def test_detections_have_no_class_scores() -> None:
    exact = [{"y": np.ones((1, 10, 85), np.float32)}] * 2
    result = compare(lambda feeds: {"y": np.ones((1, 10, 85), np.float32)}, FEEDS, exact)
    assert result.agreement is None
    assert result.kl is None


def test_nan_and_other_shapes_are_refused() -> None:
    exact = outputs([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(ModelError, match=r"output y of the INT8 model on sample 0 .*\(1, 3\)"):
        compare(lambda feeds: {"y": np.ones((1, 3), np.float32)}, FEEDS, exact)
    with pytest.raises(ModelError, match="or NaN"):
        compare(lambda feeds: {"y": np.full((1, 2), np.nan, np.float32)}, FEEDS, exact)


def test_what_is_kept_of_a_run_is_not_the_runtimes_memory(rng: np.random.Generator) -> None:
    buffer = rng.normal(size=4)

    def run(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        buffer[:] = feeds["x"]
        return {"y": buffer}

    samples = [{"x": rng.normal(size=4)} for _ in range(3)]
    for found, sample in zip(run_all(run, samples), samples, strict=True):
        np.testing.assert_array_equal(found["y"], sample["x"])
