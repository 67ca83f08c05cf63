"""A sentence for each thing that the command refuses."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import engines
from tests.integration.command import DIGITS, refused, run


def test_no_such_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(tmp_path / "out", "--onnx", tmp_path / "no.onnx", capsys=capsys)
    assert "no.onnx" in err


def test_not_onnx(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.jpg")
    shutil.copy(tmp_path / "x.jpg", tmp_path / "x.onnx")
    err = refused(tmp_path / "out", "--onnx", tmp_path / "x.onnx", capsys=capsys)
    assert "x.onnx" in err
    assert "JPEG" in err


def test_truncated_onnx(
    tmp_path: Path, tiny: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_bytes(tiny.read_bytes()[:-100])
    err = refused(tmp_path / "out", "--onnx", tiny, "--calib-data", samples, capsys=capsys)
    assert "tiny.onnx" in err


def test_no_samples(tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(tmp_path / "out", "--onnx", tiny, capsys=capsys)
    assert "--calib-data" in err


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"input": np.zeros((4, 16, 8, 9), np.float32)}, ("input", "9")),
        ({"imput": np.zeros((4, 16, 8, 8), np.float32), "x": np.zeros((4, 9))}, ("input",)),
        ({"input": np.full((4, 16, 8, 8), "a")}, ("input",)),
        ({"input": np.zeros((0, 16, 8, 8), np.float32)}, ("0",)),
    ],
    ids=["shape", "name", "dtype", "none"],
)
def test_data_that_does_not_fit(
    tmp_path: Path,
    tiny: Path,
    capsys: pytest.CaptureFixture[str],
    arrays: dict[str, np.ndarray],
    words: tuple[str, ...],
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    err = refused(
        tmp_path / "out", "--onnx", tiny, "--calib-data", tmp_path / "bad.npz", capsys=capsys
    )
    for word in words:
        assert word in err


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_is_named_by_sample(
    tmp_path: Path,
    tiny: Path,
    capsys: pytest.CaptureFixture[str],
    value: float,
    rng: np.random.Generator,
) -> None:
    data = rng.normal(size=(9, 16, 8, 8)).astype(np.float32)
    data[7, 3, 2, 1] = value
    np.savez(tmp_path / "bad.npz", input=data)
    err = refused(
        tmp_path / "out", "--onnx", tiny, "--calib-data", tmp_path / "bad.npz", capsys=capsys
    )
    assert "7" in err


def test_empty_folder(tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    err = refused(
        tmp_path / "out", "--onnx", tiny, "--calib-data", tmp_path / "none", capsys=capsys
    )
    assert "none" in err


def bomb() -> bytes:
    """A PNG of 60000 x 60000 pixels in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    size = (60000).to_bytes(4, "big")
    header = chunk(b"IHDR", size + size + bytes([8, 0, 0, 0, 0]))
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("content", [b"", b"not an image", bomb()], ids=["empty", "text", "bomb"])
def test_image_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "x.png").write_bytes(content)
    err = refused(
        tmp_path / "out",
        *("--onnx", DIGITS / "digits.onnx", "--calib-data", folder),
        *("--preprocess", DIGITS / "preprocess.yaml"),
        capsys=capsys,
    )
    assert "x.png" in err


def test_unknown_key_names_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "p.yaml"
    spec.write_text("colour: gray\nresize: [32, 32]\n")
    err = refused(
        tmp_path / "out",
        *("--onnx", DIGITS / "digits.onnx", "--calib-data", DIGITS / "calib", "--preprocess", spec),
        capsys=capsys,
    )
    assert "colour" in err
    assert "color" in err.replace("colour", "")


def test_output_folder_that_cannot_be_written(
    tmp_path: Path, tiny: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("a file")
    code, _, err = run(
        *("--onnx", tiny, "--calib-data", samples),
        *("--engine", tmp_path / "out" / "m.int8.engine"),
        capsys=capsys,
    )
    assert code == 2
    assert "is not writable" in err


def test_evaluation_on_calibration_samples_is_refused(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    data = rng.normal(size=(6, 16, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "a.npz", input=data, labels=np.zeros(6, np.int64))
    np.savez(tmp_path / "b.npz", input=data[4:], labels=np.zeros(2, np.int64))
    err = refused(
        tmp_path / "out",
        *("--onnx", tiny, "--calib-data", tmp_path / "a.npz", "--eval-data", tmp_path / "b.npz"),
        capsys=capsys,
    )
    assert "holds 2 of the calibration samples" in err


@pytest.mark.parametrize("target", ["tensorrt"])
def test_a_target_that_is_not_here_is_one_sentence(
    tmp_path: Path,
    tiny: Path,
    samples: Path,
    capsys: pytest.CaptureFixture[str],
    target: str,
) -> None:
    if engines.resolve_target("auto") == "tensorrt":
        pytest.skip("TensorRT and a GPU are here")
    err = refused(
        tmp_path / "out",
        *("--onnx", tiny, "--calib-data", samples, "--target", target),
        capsys=capsys,
    )
    assert "tensorrt" in err.lower()


def test_unknown_method(
    tmp_path: Path, tiny: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refused(
        tmp_path / "out",
        *("--onnx", tiny, "--calib-data", samples, "--calibrator", "entropie"),
        capsys=capsys,
    )
    assert "entropie" in err
