"""Fixed batches: each sample gets the activations that it alone caused."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from calibrators.samples.rows import Arrays, Run, feeds_of, find_layout
from calibrators.samples.samples import InputSpec, Sample

SIZE = 4


def specs(batch: int | str) -> tuple[InputSpec, ...]:
    return (InputSpec(name="x", dtype=np.dtype(np.float32), shape=(batch, 3)),)


def samples(count: int, rng: np.random.Generator) -> list[Sample]:
    rows = rng.standard_normal((count, 1, 3)).astype(np.float32)
    return [Sample(inputs={"x": row}, name=str(i)) for i, row in enumerate(rows)]


def run_each(
    run: Run, given: list[Sample], inputs: tuple[InputSpec, ...]
) -> Iterator[tuple[Sample, Arrays]]:
    layout = find_layout(run, given[0], inputs)
    for batch in feeds_of(given, inputs):
        yield from layout.activations(run, batch)


def by_rows(feeds: Arrays) -> Arrays:
    """A model with batch-first activations, one with two rows a sample, and a constant."""
    x = feeds["x"]
    return {"same": 2 * x, "split": x[:, :2].reshape(-1, 1), "constant": np.arange(SIZE * 2.0)}


def transposed(feeds: Arrays) -> Arrays:
    """A model with an activation whose rows are features: no rows belong to a sample."""
    return {"turned": np.concatenate([feeds["x"].T, feeds["x"].T[:1]])}


def mixing(feeds: Arrays) -> Arrays:
    return {"mixed": feeds["x"] - feeds["x"].mean(axis=0)}


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_rows_are_told_apart(count: int, rng: np.random.Generator) -> None:
    given = samples(count, rng)
    runs = 0

    def run(feeds: Arrays) -> Arrays:
        nonlocal runs
        runs += 1
        assert feeds["x"].shape == (SIZE, 3)
        return by_rows(feeds)

    found = list(run_each(run, given, specs(SIZE)))
    assert [sample.name for sample, _ in found] == [sample.name for sample in given]
    for sample, arrays in found:
        x = sample.inputs["x"]
        assert np.array_equal(arrays["same"], 2 * x)
        assert np.array_equal(arrays["split"], x[0, :2, None])
        assert arrays["constant"].size == SIZE * 2
    assert runs == 2 + -(-count // SIZE)


@pytest.mark.parametrize("model", [transposed, mixing])
def test_where_rows_do_not_tell_each_sample_runs_alone(
    model: Run, rng: np.random.Generator
) -> None:
    given = samples(6, rng)
    for sample, arrays in run_each(model, given, specs(SIZE)):
        alone = model({"x": np.repeat(sample.inputs["x"], SIZE, axis=0)})
        assert all(np.array_equal(arrays[name], alone[name]) for name in alone)


@pytest.mark.parametrize("batch", ["N", 1])
def test_other_models_run_one_sample_at_a_time(batch: int | str, rng: np.random.Generator) -> None:
    given = samples(3, rng)
    found = list(run_each(lambda feeds: {"y": feeds["x"]}, given, specs(batch)))
    assert all(np.array_equal(arrays["y"], s.inputs["x"]) for s, arrays in found)


def test_samples_that_are_whole_batches_are_run_as_they_are(rng: np.random.Generator) -> None:
    given = [
        Sample(inputs={"x": rng.standard_normal((SIZE, 3)).astype(np.float32)}, name=str(i))
        for i in range(3)
    ]
    found = list(run_each(transposed, given, specs(SIZE)))
    assert [sample.name for sample, _ in found] == ["0", "1", "2"]
    for sample, arrays in found:
        np.testing.assert_array_equal(arrays["turned"], transposed(sample.inputs)["turned"])
