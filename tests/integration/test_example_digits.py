"""examples/01_digits: the shipped files are what its README says, and train.py makes them."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "01_digits"
MODEL = EXAMPLE / "digits.onnx"


@pytest.fixture(scope="module")
def test_split() -> tuple[np.ndarray, np.ndarray]:
    with np.load(EXAMPLE / "test.npz", allow_pickle=False) as file:
        return file["images"], file["labels"]


@pytest.fixture(scope="module")
def calibration_images() -> np.ndarray:
    paths = sorted((EXAMPLE / "calib").glob("*.png"))
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def run(images: np.ndarray, model: Path = MODEL) -> np.ndarray:
    """Logits of uint8 (N, 32, 32, 1) images, preprocessed as preprocess.yaml says."""
    spec = yaml.safe_load((EXAMPLE / "preprocess.yaml").read_text())
    pixels = images.transpose(0, 3, 1, 2).astype(np.float32) * np.float32(spec["scale"])
    normalised = (pixels - np.float32(spec["mean"])) / np.float32(spec["std"])
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": normalised})[0]


def test_shipped_model_classifies_the_shipped_test_split(
    test_split: tuple[np.ndarray, np.ndarray],
) -> None:
    images, labels = test_split
    assert np.mean(run(images).argmax(1) == labels) >= 0.98


def test_shipped_model_is_one_small_file_with_a_dynamic_batch() -> None:
    model = onnx.load(MODEL, load_external_data=False)
    onnx.checker.check_model(model)
    assert MODEL.stat().st_size <= 3_000_000
    assert not any(onnx.external_data_helper.uses_external_data(t) for t in model.graph.initializer)
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param, value.name


def test_batch_does_not_change_the_answer(
    test_split: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> None:
    images = test_split[0][rng.permutation(500)[:7]]
    singly = np.concatenate([run(images[i : i + 1]) for i in range(7)])
    np.testing.assert_allclose(run(images), singly, rtol=1e-4, atol=1e-4)


def test_shipped_splits_are_disjoint(
    test_split: tuple[np.ndarray, np.ndarray], calibration_images: np.ndarray
) -> None:
    tested = {image.tobytes() for image in test_split[0]}
    calibrating = {image.tobytes() for image in calibration_images}
    assert (len(tested), len(calibrating)) == (500, 200)
    assert not tested & calibrating


def test_all_classes_are_tested(test_split: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = test_split
    assert images.shape == (500, 32, 32, 1)
    assert images.dtype == np.uint8
    assert np.bincount(labels, minlength=10).min() >= 40


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("digits")
    command = [sys.executable, EXAMPLE / "train.py", "--epochs=1", "--limit=64", f"--out={out}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"fp32_top1"' in done.stdout
    return out


def test_train_writes_the_shipped_samples_again(
    trained: Path, test_split: tuple[np.ndarray, np.ndarray], calibration_images: np.ndarray
) -> None:
    with np.load(trained / "test.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["images"], test_split[0])
        np.testing.assert_array_equal(file["labels"], test_split[1])
    written = [np.asarray(Image.open(path)) for path in sorted((trained / "calib").glob("*.png"))]
    np.testing.assert_array_equal(written, calibration_images)
    shipped = (EXAMPLE / "preprocess.yaml").read_text()
    assert (trained / "preprocess.yaml").read_text() == shipped


def test_train_writes_the_shipped_graph_again(
    trained: Path, test_split: tuple[np.ndarray, np.ndarray]
) -> None:
    operators = [
        [node.op_type for node in onnx.load(path).graph.node]
        for path in (trained / "digits.onnx", MODEL)
    ]
    assert operators[0] == operators[1]
    assert run(test_split[0][:3], trained / "digits.onnx").shape == (3, 10)


def test_normalisation_is_that_of_the_training_split() -> None:
    program = runpy.run_path(str(EXAMPLE / "train.py"))
    pixels = program["load_splits"]()["train"][0] / 255
    spec = yaml.safe_load((EXAMPLE / "preprocess.yaml").read_text())
    assert len(pixels) == 1097
    assert spec["mean"][0] == pytest.approx(pixels.mean(), abs=5e-4)
    assert spec["std"][0] == pytest.approx(pixels.std(), abs=5e-4)
