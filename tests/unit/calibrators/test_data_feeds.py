"""Arrays and loaders: which axis is samples, what converts to what, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artefacts.errors import DataError
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.samples.data import InputSpec, open_samples, require_labels
from tests.unit.calibrators.feeding import F32, FEATURES, IMAGE, TOKENS, UNIT, npz, refusal


@pytest.mark.parametrize(
    "name", ["pixels", "images", "image", "x", "X", "data", "input", "arr_0", "anything"]
)
def test_one_input_takes_any_sensible_name(
    name: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    array = rng.normal(size=(6, 3, 4, 5)).astype(np.float32)
    samples = open_samples(npz(tmp_path, **{name: array}, labels=np.arange(6)), inputs=IMAGE)
    assert len(samples) == 6
    for index, sample in enumerate(samples):
        np.testing.assert_array_equal(sample.inputs["pixels"], array[index : index + 1])
        assert (sample.label, sample.name) == (index, f"data.npz#{index}")
    require_labels(samples)


def test_the_input_s_own_name_wins(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.zeros((2, 3, 4, 5), "f4"), pixels=np.ones((2, 3, 4, 5), "f4"))
    assert next(iter(open_samples(path, inputs=IMAGE))).inputs["pixels"].min() == 1


@pytest.mark.parametrize("name", ["labels", "label", "y", "Y", "targets"])
def test_names_of_labels(name: str, tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.zeros((2, 3, 4, 5), "f4"), **{name: np.array([[4], [5]])})
    assert [s.label for s in open_samples(path, inputs=IMAGE)] == [4, 5]


def test_labels_may_be_arrays(tmp_path: Path) -> None:
    boxes = np.arange(16.0).reshape(2, 2, 4)
    path = npz(tmp_path, x=np.zeros((2, 3, 4, 5), "f4"), labels=boxes)
    for sample, label in zip(open_samples(path, inputs=IMAGE), boxes, strict=True):
        np.testing.assert_array_equal(sample.label, label)


def test_labels_that_are_missing_or_too_few(tmp_path: Path) -> None:
    x = np.zeros((3, 3, 4, 5), "f4")
    samples = open_samples(npz(tmp_path, x=x), inputs=IMAGE)
    with pytest.raises(DataError, match="an array named labels, label, y, Y"):
        require_labels(samples)
    said = refusal(npz(tmp_path, x=x, y=np.arange(2)), IMAGE)
    assert "(y) has shape [2], expected 3 labels" in said


def test_npy_with_labels_beside(tmp_path: Path) -> None:
    np.save(tmp_path / "x_test.npy", np.zeros((3, 3, 4, 5), "f4"))
    assert [s.label for s in open_samples(tmp_path / "x_test.npy", inputs=IMAGE)] == [None] * 3
    np.save(tmp_path / "labels.npy", np.arange(5))
    assert [s.label for s in open_samples(tmp_path / "x_test.npy", inputs=IMAGE)] == [None] * 3
    np.save(tmp_path / "y_test.npy", np.array([2, 1, 0]))
    assert [s.label for s in open_samples(tmp_path / "x_test.npy", inputs=IMAGE)] == [2, 1, 0]
    with pytest.raises(DataError, match="array for input input_ids"):
        open_samples(tmp_path / "x_test.npy", inputs=TOKENS)


@pytest.mark.parametrize(
    "array_shape", [(6, 4, 5, 3), (6, 3, 4, 5), (4, 5, 3)], ids=["nhwc", "nchw", "one"]
)
@pytest.mark.parametrize("how", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_uint8_images_go_through_the_spec(
    array_shape: tuple[int, ...],
    how: Callable[..., None],
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    array = rng.integers(0, 256, array_shape, dtype=np.uint8)
    how(tmp_path / "a.npz", images=array)
    samples = list(open_samples(tmp_path / "a.npz", inputs=IMAGE, preprocess=UNIT))
    rows = array[None] if array.ndim == 3 else array
    rows = rows if rows.shape[3] == 3 else rows.transpose(0, 2, 3, 1)
    assert len(samples) == len(rows)
    for sample, row in zip(samples, rows, strict=True):
        np.testing.assert_array_equal(sample.inputs["pixels"][0], UNIT(row))


def test_gray_images_without_channel_axis(tmp_path: Path, rng: np.random.Generator) -> None:
    array = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)  # looks like one RGB image
    inputs = (InputSpec(name="x", dtype=F32, shape=("N", 1, 9, 8)),)
    spec = Preprocess(color="gray", scale=1)
    digits = rng.integers(0, 256, (6, 9, 8), dtype=np.uint8)
    found = list(open_samples(npz(tmp_path, x=digits), inputs=inputs, preprocess=spec))
    np.testing.assert_array_equal(np.stack([s.inputs["x"][0, 0] for s in found]), digits)
    assert "has shape [1, 1, 6, 7]" in refusal(npz(tmp_path, x=array), inputs, preprocess=spec)
    (single,) = open_samples(lambda: iter([{"x": digits[2]}]), inputs=inputs, preprocess=spec)
    np.testing.assert_array_equal(single.inputs["x"][0, 0], digits[2])


def test_integers_for_real_inputs_need_a_meaning(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.zeros((2, 4, 5, 3), np.uint8))
    said = refusal(path, IMAGE)
    assert "(x) is uint8, expected real values for input pixels float32 [N, 3, 4, 5]" in said
    assert "'scale: 1/255'" in said
    assert "'inputs: {pixels: {scale: 1}}'" in said


def test_features_stored_as_integers(tmp_path: Path, rng: np.random.Generator) -> None:
    array = rng.integers(-128, 128, (9, 7, 3), dtype=np.int8)
    spec = Preprocess(inputs={"mfcc": {"scale": 0.58, "zero_point": 83}})
    samples = list(open_samples(npz(tmp_path, X=array), inputs=FEATURES, preprocess=spec))
    assert [sample.inputs["mfcc"].shape for sample in samples] == [(1, 1, 7, 3)] * 9
    expected = ((array.astype(np.float64) - 83) * 0.58).astype(np.float32)
    np.testing.assert_array_equal(np.stack([s.inputs["mfcc"][0, 0] for s in samples]), expected)


@pytest.mark.parametrize(
    ("shape", "count"), [((9, 1, 7, 3), 9), ((9, 7, 3), 9), ((1, 7, 3), 1), ((7, 3), 1)]
)
def test_axes_of_length_one_may_be_missing(
    shape: tuple[int, ...], count: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    array = rng.normal(size=shape).astype(np.float32)
    samples = list(open_samples(npz(tmp_path, x=array), inputs=FEATURES))
    assert len(samples) == count
    fed = np.concatenate([sample.inputs["mfcc"] for sample in samples])
    np.testing.assert_array_equal(fed, array.reshape(count, 1, 7, 3))


def test_folder_of_array_files(tmp_path: Path, rng: np.random.Generator) -> None:
    """Speech commands and their like: one file of features each, a folder for each class."""
    arrays = {}
    for name in ("no/b.npy", "no/a.npy", "yes/c.npy"):
        arrays[name] = rng.normal(size=(7, 3)).astype(np.float32)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, arrays[name])
    samples = open_samples(tmp_path, inputs=FEATURES)
    assert [(s.name, s.label) for s in samples] == [
        ("no/a.npy", 0),
        ("no/b.npy", 0),
        ("yes/c.npy", 1),
    ]
    for sample in samples:
        np.testing.assert_array_equal(sample.inputs["mfcc"][0, 0], arrays[sample.name])
    require_labels(samples)


def test_folder_of_npz_batches(tmp_path: Path) -> None:
    for part, count in (("b", 2), ("a", 3)):
        ids = np.full((count, 8), ord(part))
        np.savez(tmp_path / f"{part}.npz", input_ids=ids, attention_mask=ids, labels=ids[:, 0])
    samples = open_samples(tmp_path, inputs=TOKENS)
    expected = ["a.npz#0", "a.npz#1", "a.npz#2", "b.npz#0", "b.npz#1"]
    assert [sample.name for sample in samples] == expected
    assert [sample.label for sample in samples[1::2]] == [ord("a"), ord("b")]
    assert [sample.name for sample in samples[1::2]] == expected[1::2]


def test_token_ids_pass_through(tmp_path: Path, rng: np.random.Generator) -> None:
    ids = rng.integers(0, 30_000, (4, 9), dtype=np.int32)
    mask = np.ones((4, 9), bool)
    samples = list(open_samples(npz(tmp_path, input_ids=ids, attention_mask=mask), inputs=TOKENS))
    assert len(samples) == 4
    for index, sample in enumerate(samples):
        assert sample.inputs["input_ids"].dtype == np.int64
        np.testing.assert_array_equal(sample.inputs["input_ids"], ids[index : index + 1])
        np.testing.assert_array_equal(sample.inputs["attention_mask"], mask[index : index + 1])


def test_images_beside_tokens(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    path = npz(
        tmp_path, pixels=pixels, input_ids=np.ones((2, 6), int), attention_mask=np.ones((2, 6)) > 0
    )
    sample = next(iter(open_samples(path, inputs=(*TOKENS, *IMAGE), preprocess=UNIT)))
    np.testing.assert_array_equal(sample.inputs["pixels"][0], UNIT(pixels[0]))


def test_real_arrays_are_fed_as_they_are_even_beside_a_spec(tmp_path: Path) -> None:
    array = np.full((2, 3, 4, 5), 0.25, np.float64)
    spec = Preprocess(resize=9, scale="1/255")
    for sample in open_samples(npz(tmp_path, x=array), inputs=IMAGE, preprocess=spec):
        assert sample.inputs["pixels"].dtype == np.float32
        np.testing.assert_array_equal(sample.inputs["pixels"], array[:1])


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"ids": 1, "mask": 1}, "has ids, mask, expected an array for input input_ids"),
        ({"input_idx": 1, "mask": 1}, "did you mean input_idx?"),
        (
            {"input_ids": np.ones((3, 4), int), "attention_mask": np.ones((2, 4), int)},
            "input_ids 3, attention_mask 2",
        ),
        (
            {"input_ids": np.ones((0, 4), int), "attention_mask": np.ones((0, 4), int)},
            "has 0 samples",
        ),
        (
            {"input_ids": np.ones((3, 4)), "attention_mask": np.ones((3, 4), int)},
            "(input_ids) is float64, expected int64",
        ),
        (
            {"input_ids": np.ones((2, 3, 4, 5), int), "attention_mask": np.ones((3, 4), int)},
            "shape [2, 3, 4, 5], expected one for input input_ids int64 [batch, sequence]",
        ),
        (
            {"input_ids": np.array([[2**63]], np.uint64), "attention_mask": np.ones((1, 1), int)},
            "9223372036854775808..9223372036854775808",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arrays_that_do_not_fit(arrays: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in refusal(npz(tmp_path, **arrays), TOKENS)


def test_several_candidates_for_one_input(tmp_path: Path) -> None:
    path = npz(tmp_path, left=np.zeros(3), right=np.zeros(3), y=np.zeros(3))
    assert "has left, right, y, expected an array for input pixels" in refusal(path, IMAGE)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("how", ["npz", "loader"])
def test_nan_and_inf_are_named_by_sample(how: str, bad: float, tmp_path: Path) -> None:
    array = np.zeros((5, 3, 4, 5), np.float32)
    array[3, 1, 2, :2] = bad
    source = npz(tmp_path, x=array) if how == "npz" else (lambda: [{"pixels": array}])
    said = refusal(source, IMAGE)
    assert "sample 3 (pixels)" in said
    kinds = "2 NaN and 0 Inf" if np.isnan(bad) else "0 NaN and 2 Inf"
    assert f"holds {kinds} among 60 values" in said


def test_values_beyond_half_precision(tmp_path: Path) -> None:
    inputs = (InputSpec(name="x", dtype=np.dtype(np.float16), shape=("N", 2)),)
    assert "values up to 7e+04" in refusal(npz(tmp_path, x=np.array([[7e4, 0]])), inputs)


def test_spec_that_names_other_inputs(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.zeros((2, 3, 4, 5), "f4"))
    said = refusal(path, IMAGE, preprocess=Preprocess(input="pixel", scale=1))
    assert "names input pixel, expected pixels of the model; did you mean pixels?" in said
    said = refusal(path, IMAGE, preprocess=Preprocess(inputs={"mel": {"scale": 1}}))
    assert "names input mel" in said


@pytest.mark.parametrize("limit", [0, -1])
def test_limits(limit: int, tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.zeros((3, 3, 4, 5), "f4"))
    assert f"limit of samples is {limit}" in refusal(path, IMAGE, limit=limit)
    assert len(open_samples(path, inputs=IMAGE, limit=2)) == 2
    assert len(open_samples(path, inputs=IMAGE, limit=9)) == 3
