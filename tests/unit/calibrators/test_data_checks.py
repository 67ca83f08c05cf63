"""Does the data make sense: normalisation and overlap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artefacts.errors import DataError
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.samples.checks import check_unnormalised, overlap, refuse_overlap
from calibrators.samples.data import InputSpec, Samples, open_samples

INPUTS = (InputSpec(name="x", dtype=np.dtype(np.float32), shape=("N", 3, 8, 8)),)
IMAGENET: dict[str, Any] = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CAFFE: dict[str, Any] = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


def images(rng: np.random.Generator, **spec: Any) -> Samples:
    pixels = rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    return open_samples(lambda: [{"x": pixels}], inputs=INPUTS, preprocess=Preprocess(**spec))


def floats(array: np.ndarray, **spec: Any) -> Samples:
    preprocess = Preprocess(**spec) if spec else None
    return open_samples(lambda: [{"x": array}], inputs=INPUTS, preprocess=preprocess)


@pytest.mark.parametrize(
    "spec",
    [
        {"scale": "1/255"},
        {"scale": 1},
        {"scale": "1/255", **IMAGENET},
        CAFFE,
        {"scale": 1, **CAFFE},
        {"mean": 128, "std": 128},
        {"mean": 127.5, "std": 127.5},
        {"scale": "1/127.5", "mean": 1},
        {"scale": "1/255", "mean": 0.1307, "std": 0.3081},
        {"scale": 0.017, "mean": [2.1, 1.98, 1.77]},
        {"std": 255},
        {"color": "bgr", "mean": [103.94, 116.78, 123.68]},
    ],
    ids=str,
)
def test_usual_specs_raise_no_doubt(spec: dict[str, Any], rng: np.random.Generator) -> None:
    assert check_unnormalised(images(rng, **spec)) == ()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, ["no scale, mean or std", "'scale: 1/255'", "'scale: 1' if raw pixels"]),
        (IMAGENET, ["mean 0.485, 0.456, 0.406 is for pixels 0..1", "std 0.229"]),
        ({"scale": "1/255", **CAFFE}, ["mean 123.675", "0..1; leave scale out", "std 58.395"]),
        ({"scale": "1/255", "mean": 128}, ["mean 128 is for pixels 0..255"]),
        ({"std": 0.5, "mean": 0.5}, ["mean 0.5 is for pixels 0..1", "std 0.5"]),
    ],
    ids=str,
)
def test_specs_whose_numbers_do_not_belong_together(
    spec: dict[str, Any], said: list[str], rng: np.random.Generator
) -> None:
    found = " | ".join(check_unnormalised(images(rng, **spec)))
    for part in said:
        assert part in found


def test_arrays_of_raw_pixels(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (20, 3, 8, 8)).astype(np.float32)
    (said,) = check_unnormalised(floats(pixels))
    assert said.startswith("input x holds 0..255: these look like raw pixels")
    assert check_unnormalised(floats(pixels / 255)) == ()
    assert check_unnormalised(floats((pixels - 128) / 128)) == ()
    assert check_unnormalised(floats(pixels * 7)) == ()  # no pixels: features of some kind


def test_arrays_beside_a_spec_that_makes_other_values(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (20, 3, 8, 8)).astype(np.float32)
    (said,) = check_unnormalised(floats(pixels, scale="1/255", **IMAGENET))
    assert "holds 0..255 where the preprocessing spec makes -2.118..2.64" in said
    ready = (pixels / 255 - 0.45) / 0.225
    assert check_unnormalised(floats(ready, scale="1/255", **IMAGENET)) == ()


def test_constant_inputs() -> None:
    (said,) = check_unnormalised(floats(np.full((4, 3, 8, 8), 0.5, np.float32)))
    assert said == "input x is 0.5 everywhere, expected values that vary; look at the data"


def test_inputs_that_are_always_empty() -> None:
    inputs = (
        InputSpec(name="ids", dtype=np.dtype(np.int64), shape=("N", "S")),
        InputSpec(name="past", dtype=np.dtype(np.float32), shape=("N", 4, "P", 8)),
    )

    def said(lengths: tuple[int, ...]) -> tuple[str, ...]:
        feeds = [
            {"ids": np.arange(3)[None], "past": np.arange(32.0 * n).reshape(1, 4, n, 8)}
            for n in lengths
        ]
        return check_unnormalised(open_samples(lambda: feeds, inputs=inputs))

    assert said((0, 2)) == ()
    (line,) = said((0, 0))
    assert line.startswith("input past is empty in the samples looked at")


def test_integers_and_affine_inputs_are_left_alone(rng: np.random.Generator) -> None:
    inputs = (
        InputSpec(name="ids", dtype=np.dtype(np.int64), shape=("N", 8)),
        InputSpec(name="mel", dtype=np.dtype(np.float32), shape=("N", 1, 8, 8)),
    )
    feed = {"ids": np.zeros((4, 8), int), "mel": rng.integers(0, 200, (4, 1, 8, 8))}
    spec = Preprocess(inputs={"mel": {"scale": 1}})
    samples = open_samples(lambda: [feed], inputs=inputs, preprocess=spec)
    assert check_unnormalised(samples) == ()


def test_only_a_few_samples_are_looked_at(tmp_path: Path, rng: np.random.Generator) -> None:
    array = rng.normal(size=(200, 3, 8, 8)).astype(np.float32)
    array[1] = np.nan  # not among the 16 spread over 200
    np.save(tmp_path / "a.npy", array)
    assert check_unnormalised(open_samples(tmp_path / "a.npy", inputs=INPUTS)) == ()


def test_overlap(rng: np.random.Generator) -> None:
    array = rng.normal(size=(12, 3, 8, 8)).astype(np.float32)
    calibration = {sample.digest for sample in floats(array[:8])}
    refuse_overlap(calibration, floats(array[8:]))
    assert overlap(calibration, floats(array[8:])) == ()
    assert overlap(calibration, floats(array[6:])) == ("0", "1")
    with pytest.raises(DataError) as caught:
        refuse_overlap(calibration, floats(array[3:]))
    assert "holds 5 of the calibration samples (0, 1, 2, …), expected none" in str(caught.value)
    assert "split the data" in str(caught.value)
