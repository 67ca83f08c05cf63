"""Inputs without a batch axis, or whose first axis is layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibrators.samples.data import InputSpec, open_samples
from tests.unit.calibrators.feeding import F32, I64, npz

STATE = (
    InputSpec(name="x", dtype=F32, shape=("N", 4)),
    InputSpec(name="state", dtype=F32, shape=(2, "N", 5)),
    InputSpec(name="rate", dtype=I64, shape=()),
)


def test_model_without_batch_axis(tmp_path: Path, rng: np.random.Generator) -> None:
    inputs = (
        InputSpec(name="x", dtype=F32, shape=(3, 4)),
        InputSpec(name="t", dtype=F32, shape=()),
    )
    x, t = rng.normal(size=(6, 3, 4)).astype("f4"), rng.normal(size=6).astype("f4")
    samples = list(open_samples(npz(tmp_path, x=x, t=t), inputs=inputs))
    assert len(samples) == 6
    np.testing.assert_array_equal(samples[4].inputs["x"], x[4])
    np.testing.assert_array_equal(samples[4].inputs["t"], t[4])
    # One value for all samples.
    samples = list(open_samples(npz(tmp_path, x=x, t=t[0]), inputs=inputs))
    assert [float(sample.inputs["t"]) for sample in samples] == [float(t[0])] * 6


def test_states_whose_first_axis_is_layers(rng: np.random.Generator) -> None:
    """As recurrent exports have them: an axis of fixed length is not one of samples."""
    x, state = rng.normal(size=(3, 1, 4)), rng.normal(size=(3, 2, 1, 5))
    given = [{"x": a, "state": b, "rate": np.array(8)} for a, b in zip(x, state, strict=True)]
    samples = list(open_samples(lambda: iter(given), inputs=STATE))
    assert len(samples) == 3
    for sample, feed in zip(samples, given, strict=True):
        for name, value in feed.items():
            assert sample.inputs[name].shape == value.shape
            np.testing.assert_allclose(sample.inputs[name], value, rtol=1e-6)


@pytest.mark.parametrize("each", [True, False], ids=["a state each", "one state"])
def test_arrays_of_samples_with_a_state(
    each: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    x, states = rng.normal(size=(6, 4)), rng.normal(size=(6, 2, 1, 5))
    path = npz(tmp_path, x=x, state=states if each else states[0], rate=np.array(8))
    samples = list(open_samples(path, inputs=STATE))
    assert [sample.inputs["x"].shape for sample in samples] == [(1, 4)] * 6
    for number, sample in enumerate(samples):
        wanted = states[number if each else 0]
        np.testing.assert_allclose(sample.inputs["state"], wanted, rtol=1e-6)


def test_inputs_of_unequal_length_are_one_feed(tmp_path: Path) -> None:
    inputs = (
        InputSpec(name="points", dtype=F32, shape=("points", 3)),
        InputSpec(name="boxes", dtype=F32, shape=("boxes", 4)),
    )
    path = npz(tmp_path, points=np.zeros((120, 3)), boxes=np.zeros((7, 4)))
    (sample,) = open_samples(path, inputs=inputs)
    assert sample.inputs["points"].shape == (120, 3)
    assert sample.inputs["boxes"].shape == (7, 4)
    assert sample.name == "data.npz"
