"""Preprocessing and class names that the model says; numbers that labels say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import engines
from build_engine import main

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

COLORS = ("blue", "green", "red")  # sorted, as class folders are
YOLO = {"task": "classify", "imgsz": "[16, 16]", "stride": "1"}


def classifier(path: Path, *, classes: int = 3, first: int = 0, **metadata: str) -> Path:
    """Says which colour an RGB image of 0..1 has most of; ``first`` classes are never right."""
    rng = np.random.default_rng(0)
    weight = np.zeros((classes, 3, 3, 3), np.float32)
    for number, channel in enumerate((2, 1, 0)):
        weight[first + number, channel] = 1 / 9
    weight += rng.normal(scale=1e-3, size=weight.shape).astype(np.float32)
    # White is 1: pixels of 0..255 saturate, and all classes become equal.
    nodes = [
        helper.make_node("Clip", ["image", "low", "high"], ["c"], name="clip"),
        helper.make_node("Conv", ["c", "w"], ["r"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["scores"], name="flat"),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "colors",
        [info("image", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [info("scores", TensorProto.FLOAT, ["N", classes])],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.float32(0), "low"),
            numpy_helper.from_array(np.float32(1), "high"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def pictures(root: Path, rng: np.random.Generator, count: int, *, folders: bool = True) -> Path:
    """Class folders of images with a lot of one colour."""
    for name, channel in zip(COLORS, (2, 1, 0), strict=True):
        folder = root / name if folders else root
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(0, 90, (20, 24, 3), dtype=np.uint8)
            pixels[:, :, channel] += 120
            Image.fromarray(pixels).save(folder / f"{name}{number}.png")
    return root


def run(*flags: object) -> int:
    return main([str(flag) for flag in flags])


def test_a_model_that_says_its_preprocessing_needs_no_flag(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    model = classifier(tmp_path / "m.onnx", names=str(dict(enumerate("bgr"))), **YOLO)
    calib = pictures(tmp_path / "calib", rng, 3)
    data = pictures(tmp_path / "val", rng, 4)
    engine = tmp_path / "out/m.int8.engine"
    words = ["--onnx", model, "--engine", engine, "--target", "cpu", "--calib-data", calib]
    assert run(*words, "--eval-data", data) == 0
    said, warned = capsys.readouterr()
    assert "preprocessing of Ultralytics' metadata in" in said
    assert "FP32 ONNX: top1 100.00%" in said
    assert "warning" not in warned
    manifest = engines.read_manifest(engine)
    assert manifest.passport.preprocess["resize"] == 16
    assert manifest.passport.labels == ("b", "g", "r")
    # An engine in FP32 has them, too: a service needs them for either.
    plain = tmp_path / "out/m.fp32.engine"
    assert run("--onnx", model, "--engine", plain, "--target", "cpu", "--precision", "fp32") == 0
    assert engines.read_manifest(plain).passport.preprocess == manifest.passport.preprocess
    assert engines.read_manifest(plain).passport.labels == ("b", "g", "r")


def test_class_names_of_folders_come_with_the_label_offset(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    model = classifier(tmp_path / "m.onnx", classes=4, first=1)
    calib = pictures(tmp_path / "calib", rng, 3, folders=False)
    (tmp_path / "task.yaml").write_text("task: classification\nlabel_offset: 1\n")
    engine = tmp_path / "m.int8.engine"
    words = ["--onnx", model, "--engine", engine, "--target", "cpu", "--calib-data", calib]
    words += ["--preprocess", "ultralytics-classify", "--task", tmp_path / "task.yaml"]
    assert run(*words, "--eval-data", pictures(tmp_path / "val", rng, 2)) == 0
    assert engines.read_manifest(engine).passport.labels == ("background", *COLORS)


def test_names_that_are_not_as_many_as_classes_are_left_out(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    model = classifier(tmp_path / "m.onnx")
    (tmp_path / "classes.txt").write_text("one\ntwo\n")
    engine = tmp_path / "m.fp32.engine"
    assert run("--onnx", model, "--engine", engine, "--target", "cpu", "--precision", "fp32") == 0
    assert "warning: 2 class names for a model of 3 classes" in capsys.readouterr().err
    assert engines.read_manifest(engine).passport.labels is None


def test_the_order_of_colours_that_fits_the_labels_is_named(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two classes, red and blue: with the colours exchanged every answer is wrong."""
    model = classifier(tmp_path / "m.onnx")
    (tmp_path / "p.yaml").write_text("resize: [16, 16]\ncolor: bgr\nscale: 1/255\n")
    words = ["--onnx", model, "--engine", tmp_path / "m.int8.engine", "--target", "cpu"]
    words += ["--calib-data", pictures(tmp_path / "calib", rng, 3, folders=False)]
    data = pictures(tmp_path / "val", rng, 12)
    for picture in (data / "green").iterdir():
        picture.unlink()
    labels = {p.name: COLORS.index(p.parent.name) for p in data.rglob("*.png")}
    (data / "labels.json").write_text(json.dumps(labels))
    (data / "green").rmdir()
    words += ["--preprocess", tmp_path / "p.yaml", "--eval-data", data]
    assert run(*words) == 0
    warned = capsys.readouterr().err
    assert "FP32 has top1 0.00% on 24 samples" in warned
    assert "color: rgb gives 100.00% on 24 of them; write it into the preprocessing spec" in warned
    assert run(*words, "--max-drop", "1") == 2
    assert "--max-drop 1 has a baseline near chance: FP32 has top1 0.00%" in (
        capsys.readouterr().err
    )


def test_the_numbers_that_fit_the_labels_are_named(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fed with 0..255 where 0..1 is meant."""
    model = classifier(tmp_path / "m.onnx", classes=12, first=0)
    words = ["--onnx", model, "--engine", tmp_path / "m.int8.engine", "--target", "cpu"]
    words += ["--calib-data", pictures(tmp_path / "calib", rng, 3, folders=False)]
    (tmp_path / "p.yaml").write_text("resize: [16, 16]\nscale: 1\n")
    words += ["--preprocess", tmp_path / "p.yaml", "--eval-data", pictures(tmp_path / "v", rng, 30)]
    assert run(*words) == 0
    assert "scale: 1/255, mean: 0, std: 1 gives 100.00% on" in capsys.readouterr().err


def test_a_grey_model_fed_with_colours_is_told_so(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = Path(__file__).parents[2] / "examples" / "01_digits"
    (tmp_path / "p.yaml").write_text("resize: [32, 32]\nscale: 1/255\n")
    code = run(
        *("--onnx", digits / "digits.onnx", "--engine", tmp_path / "m.engine", "--target", "cpu"),
        *("--calib-data", digits / "calib", "--preprocess", tmp_path / "p.yaml"),
    )
    assert code == 2
    assert "set 'color: gray' in the preprocessing spec" in capsys.readouterr().err
