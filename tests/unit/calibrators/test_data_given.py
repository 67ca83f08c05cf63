"""Samples as a person has them in Python: whatever they are, the same samples are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from artefacts.errors import DataError, InputError
from calibrators.samples.data import InputSpec, Samples, open_samples
from calibrators.samples.given import source_of
from tests.unit.calibrators.feeding import F32, IMAGE, TOKENS, UNIT
from tests.unit.calibrators.pictures import INPUTS, SPEC, picture

ROWS = (InputSpec(name="x", dtype=F32, shape=("N", 4)),)
COUNT = 6


def opened(value: Any, folder: Path, **options: Any) -> Samples:
    return open_samples(source_of(value, folder / "given"), **({"inputs": ROWS} | options))


def torch_loader(x: np.ndarray, y: np.ndarray, *, labels: bool) -> Any:
    torch = pytest.importorskip("torch", reason="needs the extra train")
    arrays = [torch.from_numpy(x), *([torch.from_numpy(y)] if labels else [])]
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*arrays), batch_size=4)


def torch_tensor(x: np.ndarray) -> Any:
    return pytest.importorskip("torch", reason="needs the extra train").from_numpy(x)


def saved(x: np.ndarray, folder: Path) -> list[str]:
    paths = [folder / f"{index} .npy" for index in range(len(x))]
    for path, row in zip(paths, x, strict=True):
        np.save(path, row[None])
    return [str(path) for path in paths]


def in_hand(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


# How it is given → whether labels are among it.
WAYS: dict[str, tuple[Callable[[np.ndarray, np.ndarray, Path], Any], bool]] = {
    "array": (lambda x, y, folder: x, False),
    "dict": (lambda x, y, folder: {"x": x}, False),
    "dict of lists": (lambda x, y, folder: {"x": x.tolist()}, False),
    "dict with labels": (lambda x, y, folder: {"x": x, "labels": y}, True),
    "arrays and labels": (lambda x, y, folder: (x, y), True),
    "dict and labels": (lambda x, y, folder: ({"x": x}, y.tolist()), True),
    "list of arrays": (lambda x, y, folder: list(x), False),
    "list of batches": (lambda x, y, folder: [x[:4], x[4:]], False),
    "list of dicts": (lambda x, y, folder: [{"x": row[None]} for row in x], False),
    "generator of pairs": (lambda x, y, folder: zip(x, y, strict=True), True),
    "function of pairs": (lambda x, y, folder: lambda: zip(x, y, strict=True), True),
    "paths": (lambda x, y, folder: saved(x, folder), False),
    "generator of paths": (lambda x, y, folder: map(Path, saved(x, folder)), False),
    "tensor": (lambda x, y, folder: torch_tensor(x), False),
    "data loader": (lambda x, y, folder: torch_loader(x, y, labels=False), False),
    "data loader of pairs": (lambda x, y, folder: torch_loader(x, y, labels=True), True),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_samples_whatever_they_come_in(
    way: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    x, y = rng.normal(size=(COUNT, 4)).astype(np.float32), rng.integers(0, 9, COUNT)
    make, labelled = WAYS[way]
    samples = opened(make(x, y, tmp_path), tmp_path)
    for _ in range(2):  # samples are read in several passes
        found = list(samples)
        np.testing.assert_array_equal(np.concatenate([s.inputs["x"] for s in found]), x)
        assert [s.label for s in found] == (y.tolist() if labelled else [None] * COUNT)


def test_pictures_in_hand_and_files_of_pictures_are_prepared_alike(tmp_path: Path) -> None:
    files = [picture(tmp_path / name, level) for name, level in (("a b.png", 90), ("c.png", 200))]
    expected = [s.inputs["x"] for s in open_samples(tmp_path, inputs=INPUTS, preprocess=SPEC)]
    images = [in_hand(file) for file in files]
    for given in (files, images, [np.asarray(image) for image in images]):
        found = opened(given, tmp_path, inputs=INPUTS, preprocess=SPEC)
        for sample, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(sample.inputs["x"], wanted)


def test_uint8_images_and_their_labels(tmp_path: Path, rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (5, 4, 5, 3), np.uint8)
    samples = list(opened((images, np.arange(5)), tmp_path, inputs=IMAGE, preprocess=UNIT))
    assert [sample.label for sample in samples] == list(range(5))
    np.testing.assert_allclose(
        samples[3].inputs["pixels"][0], images[3].transpose(2, 0, 1) / 255, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (3, "samples are of type int, expected a path, an array, a dict of arrays"),
        (
            (np.zeros((2, 4), "f4"), np.zeros((2, 4), "f4")),
            r"two arrays of shape \[2, 4\], expected inputs and their labels; give a list",
        ),
    ],
    ids=["number", "two samples or labels"],
)
def test_what_is_no_samples(value: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        source_of(value, tmp_path / "given")


def test_arrays_without_names_are_for_models_of_one_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is of type ndarray, expected a dict .*of one input"):
        list(opened([np.zeros((1, 3), int)], tmp_path, inputs=TOKENS))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"names .*none\.npy, expected a file that exists"):
        opened(["none.npy"], tmp_path)
