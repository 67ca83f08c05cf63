"""What a user gets wrong, and when it is noticed: before the samples are run, with nothing written.

No time is asserted: that calibration has not begun, and that no file is there, bounds the work.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import engines
from int8.main import main

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")


@dataclass(frozen=True)
class Desk:
    """What lies before the user."""

    folder: Path
    model: Path
    samples: Path
    rng: np.random.Generator

    @property
    def data(self) -> list[str]:
        return ["--calib-data", str(self.samples)]

    def labelled(self, labels: object, rows: int = 12) -> list[str]:
        x = self.rng.normal(size=(rows, 16, 8, 8)).astype(np.float32)
        np.savez(self.folder / "test.npz", input=x, labels=np.asarray(labels))
        return [*self.data, "--eval-data", str(self.folder / "test.npz")]

    def unlabelled(self) -> list[str]:
        np.savez(self.folder / "test.npz", input=np.zeros((4, 16, 8, 8), np.float32))
        return [*self.data, "--eval-data", str(self.folder / "test.npz")]

    def text(self, name: str, content: str) -> str:
        (self.folder / name).write_text(content)
        return str(self.folder / name)

    def file_as_folder(self) -> str:
        self.text("taken", "a file")
        return str(self.folder / "taken" / "c.cache")

    def array(self, *shape: int) -> list[str]:
        np.savez(self.folder / "other.npz", input=self.rng.normal(size=shape).astype(np.float32))
        return ["--calib-data", str(self.folder / "other.npz")]


@pytest.fixture
def desk(tmp_path: Path, tiny: Path, samples: Path, rng: np.random.Generator) -> Desk:
    return Desk(tmp_path, tiny, samples, rng)


Flags = Callable[[Desk], list[str]]
MISTAKES: dict[str, tuple[Flags, str]] = {
    "no samples": (lambda d: [], "nothing to take ranges from"),
    "samples not there": (lambda d: ["--calib-data", "nowhere"], "samples nowhere do not exist"),
    "loader not there": (lambda d: ["--calib-data", "no.py:load"], "no.py:load do not exist"),
    "evaluation not there": (
        lambda d: [*d.data, "--eval-data", "nowhere"],
        "samples nowhere do not exist",
    ),
    "spec not there": (lambda d: [*d.data, "--preprocess", "no.yaml"], "no.yaml does not exist"),
    "spec with a typo": (
        lambda d: [*d.data, "--preprocess", d.text("p.yaml", "colour: gray\n")],
        "colour",
    ),
    "task not there": (lambda d: [*d.data, "--task", "no.yaml"], "task spec no.yaml does not"),
    "unknown task": (
        lambda d: [*d.data, "--task", d.text("t.yaml", "task: classify\n")],
        "has task: 'classify', expected one of classification",
    ),
    "statistics not there": (
        lambda d: ["--statistics", "no.stats.npz"],
        "--statistics no.stats.npz does not exist",
    ),
    "cache not there": (
        lambda d: ["--calib", "no.cache", "--precision", "int8"],
        "--calib no.cache does not exist",
    ),
    "calibrator": (lambda d: [*d.data, "--calibrator", "entropie"], "'entropie'"),
    "TensorRT's calibrator": (
        lambda d: [*d.data, "--implicit", "--calibrator", "mse"],
        "expected one of TensorRT's own",
    ),
    "cache version": (
        lambda d: [*d.data, "--calib-cache", "c.cache", "--cache-version", "10"],
        "TensorRT version '10', expected three numbers",
    ),
    "cache is a folder": (
        lambda d: [*d.data, "--calib-cache", str(d.folder)],
        "is a folder, expected a file to write",
    ),
    "cache in a file": (
        lambda d: [*d.data, "--calib-cache", d.file_as_folder()],
        "is not writable",
    ),
    "timing cache is a folder": (
        lambda d: [*d.data, "--target", "tensorrt", "--timingCacheFile", str(d.folder)],
        "--timingCacheFile",
    ),
    "shape of another input": (
        lambda d: [*d.data, "--optShapes", "image:1x16x8x8"],
        "shapes are given for 'image', expected an input of the model: input",
    ),
    "shape with other axes": (
        lambda d: [*d.data, "--optShapes", "input:1x8x8"],
        "shape 1x8x8 is given for input input, expected one that fits Nx16x8x8",
    ),
    "shape of another size": (
        lambda d: [*d.data, "--minShapes", "input:1x3x8x8"],
        "shape 1x3x8x8 is given",
    ),
    "no labels": (lambda d: d.unlabelled(), "have no labels"),
    "short labels": (lambda d: d.labelled(np.zeros(9, np.int64)), "expected 12 labels"),
    "one-hot labels": (
        lambda d: d.labelled(np.eye(32, dtype=np.int64)[:12]),
        "a label of 32 values, expected one class number",
    ),
    "labels off by one": (
        lambda d: d.labelled(np.arange(21, 33)),
        "has class 32, expected 0 to 31 for a model with 32 classes",
    ),
    "samples of another size": (lambda d: d.array(6, 16, 8, 9), "[6, 16, 8, 9]"),
    "samples of another rank": (lambda d: d.array(6, 16), "[6, 16]"),
    "require-int8 as percent": (lambda d: [*d.data, "--require-int8", "90"], "write 90%?"),
    "trtexec's loadEngine": (lambda d: ["--loadEngine=m.engine"], "int8 bench"),
    "key not there": (lambda d: [*d.data, "--sign", "no.pem"], "no.pem"),
    "recipe not there": (lambda d: [*d.data, "--recipe", "no.yaml"], "no.yaml"),
    "promise without labels": (
        lambda d: [*d.data, "--max-drop", "0.5"],
        "--max-drop without --eval-data",
    ),
}


def run(flags: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    try:
        code = main(["build", *flags])
    except SystemExit as ended:  # a flag that argparse refuses
        code = int(str(ended.code))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_a_sentence_before_calibration_begins(
    name: str, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, said = MISTAKES[name]
    engine = desk.folder / "out" / "m.int8.engine"
    base = ["--onnx", str(desk.model), "--engine", str(engine), "--target", "cpu"]
    code, out, err = run([*base, *flags(desk)], capsys)
    assert code == 2
    assert said in err
    assert err.count("\n") <= 2
    assert "[2/5]" not in out
    assert not engine.parent.exists()


def test_an_engine_that_is_a_folder(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--onnx", str(desk.model), "--engine", str(desk.folder), *desk.data]
    code, out, err = run(flags, capsys)
    assert (code, out) == (2, "")
    assert "is a folder, expected a file to write" in err


def test_a_target_that_is_not_here(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    if engines.resolve_target("auto") == "tensorrt":
        pytest.skip("TensorRT and a GPU are here")
    flags = ["--onnx", str(desk.model), "--engine", str(desk.folder / "out/m.engine")]
    code, out, err = run([*flags, *desk.data, "--target", "tensorrt"], capsys)
    assert (code, out) == (2, "")
    assert "tensorrt" in err.lower()
    assert not (desk.folder / "out").exists()


def test_an_operator_that_the_target_lacks(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """onnxruntime runs StringNormalizer's kin; OpenVINO's reader has no Det."""
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("Det", ["input"], ["output"], name="det")]
    graph = helper.make_graph(
        nodes,
        "det",
        [info("input", TensorProto.FLOAT, ["N", 4, 4])],
        [info("output", TensorProto.FLOAT, ["N"])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, desk.folder / "det.onnx")
    engine = desk.folder / "out/m.engine"
    flags = ["--onnx", str(desk.folder / "det.onnx"), "--engine", str(engine), "--target", "cpu"]
    np.savez(desk.folder / "det.npz", input=desk.rng.normal(size=(6, 4, 4)).astype(np.float32))
    code, out, err = run([*flags, "--calib-data", str(desk.folder / "det.npz")], capsys)
    assert code == 2
    assert "is refused by OpenVINO" in err
    assert "Det" in err
    assert "[2/5]" not in out


def test_a_mistake_as_json(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--onnx", str(desk.model), "--engine", str(desk.folder / "out/m.engine"), "--json"]
    code, out, err = run(flags, capsys)
    told = json.loads(out)
    assert code == told["exit_code"] == 2
    assert "nothing to take ranges from" in told["error"]
    assert told["error"] in err
    assert told["files"] == []
