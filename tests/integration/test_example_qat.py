"""examples/02 and 03 run from end to end, shortened; what they claim, `make examples` shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

from quantization.lint.lint import lint

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(program: str, out: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # small tensors: threads would only wait
    command = [sys.executable, EXAMPLES / program, "--quick", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def results(out: Path) -> Any:
    return json.loads((out / "results.json").read_text())


def width(path: Path) -> int:
    with Image.open(path) as picture:
        return picture.width


def test_qat_on_digits(tmp_path: Path) -> None:
    printed = run("02_qat_digits/train_qat.py", tmp_path)
    for name, result in results(tmp_path).items():
        assert f"| {name} | " in printed
        assert set(result["ptq"]) == {"minmax", "entropy", "mse"}
        # The three are one model: fake-quantized, as ONNX, as engine. 100 images here.
        assert abs(result["qat"] - result["qat_onnx"]) <= 0.02
        assert abs(result["qat"] - result["qat_engine"]) <= 0.02
        assert lint(onnx.load(tmp_path / f"{name}.qat.onnx")) == ()
        assert (tmp_path / f"{name}.qat.engine.json").is_file()
    assert width(tmp_path / "precision.png") > 800


def test_person_detector(tmp_path: Path) -> None:
    printed = run("03_person_detector/train_detector.py", tmp_path)
    assert "qat" in printed
    found = results(tmp_path)
    assert found["qat"] == pytest.approx(found["qat_engine"], abs=0.02)
    truth = json.loads((tmp_path / "test.json").read_text())
    assert len(truth["images"]) == 16
    assert all(min(a["bbox"][2:]) > 0 for a in truth["annotations"])
    assert lint(onnx.load(tmp_path / "person.qat.onnx")) == ()
    for name in ("map.png", "detections.png"):
        assert width(tmp_path / name) > 500
