"""The tutorials: what is fenced as bash or python runs, in order, on models made here.

Blocks fenced as console need a device or a network; nothing runs them, and the pages say so.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from build_engine import build
from tests.networks.builder import Builder
from tests.networks.transformer import bert

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "tutorials"
CLASSES = ("bird", "cat", "dog")


def photographs(folder: Path, rng: np.random.Generator, count: int, *, classes: bool) -> None:
    """Pictures with much red, green or blue."""
    for channel, name in enumerate(CLASSES):
        inside = folder / name if classes else folder
        inside.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(0, 120, (72, 80, 3), dtype=np.uint8)
            pixels[:, :, channel] += 110
            file = f"{number + 1:04}.jpg" if classes else f"{name}{number}.jpg"
            Image.fromarray(pixels).save(inside / file)


def classifier(folder: Path, rng: np.random.Generator) -> None:
    """Says which colour there is most of, as torchvision would feed it."""
    net = Builder(3)
    image = net.input("input", ("N", 3, 32, 32))
    weight = np.zeros((16, 3, 3, 3), np.float32)
    weight[:] = rng.normal(scale=0.02, size=weight.shape)
    for channel in range(3):
        weight[channel, channel] += 1 / 9
    features = net.op("Conv", image, net.constant(weight, "w"), pads=[1] * 4, kernel_shape=[3, 3])
    pooled = net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", features)))
    head = np.zeros((16, 3), np.float32)
    head[[0, 1, 2], [0, 1, 2]] = 4
    scores = net.op("MatMul", pooled, net.constant(head, "head"))
    onnx.save(net.build("classifier", scores), folder / "model.onnx")
    photographs(folder / "photos/train", rng, 8, classes=False)
    photographs(folder / "photos/val", rng, 6, classes=True)


def yolo(folder: Path, rng: np.random.Generator) -> None:
    """The shape of Ultralytics' output, (1, 4 + classes, boxes), with its metadata."""
    net = Builder(4)
    image = net.input("images", (1, 3, 64, 64))
    weight = net.weight((16, 3, 8, 8), 192, 0, 1.0)
    features = net.op("Conv", image, weight, strides=[8, 8], kernel_shape=[8, 8])
    head = net.weight((6, 16, 1, 1), 16, 0, 1.0)
    maps = net.op("Sigmoid", net.op("Conv", net.op("Relu", features), head, kernel_shape=[1, 1]))
    model = net.build("yolo", net.op("Reshape", maps, net.ints(1, 6, 64)))
    names = str({0: "bird", 1: "cat"})
    helper.set_model_props(
        model, {"task": "detect", "imgsz": "[64, 64]", "names": names, "stride": "8"}
    )
    onnx.save(model, folder / "yolo11n.onnx")
    for part, count in (("train", 12), ("val", 6)):
        (folder / "images" / part).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / part / f"{number}.png")
    truth = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 60, "width": 80} for n in range(6)],
        "categories": [{"id": 1, "name": "bird"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [4, 4, 30, 30], "area": 900.0}
            | {"iscrowd": 0}
            for n in range(6)
        ],
    }
    (folder / "images/val.json").write_text(json.dumps(truth))
    (text,) = blocks("yolo", "yaml")
    (folder / "task.yaml").write_text(text)


def text_model(folder: Path, rng: np.random.Generator) -> None:
    onnx.save(bert(batch="N"), folder / "bert.onnx")


def engine(folder: Path, rng: np.random.Generator) -> None:
    net = Builder(5)
    image = net.input("input", ("N", 3, 16, 16), TensorProto.FLOAT)
    scores = net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", image)))
    onnx.save(net.build("small", net.gemm(scores, 3, 4)), folder / "model.onnx")
    build(
        folder / "model.onnx",
        folder / "out/model.int8.engine",
        target="cpu",
        calib_data=rng.normal(size=(8, 3, 16, 16)).astype(np.float32),
        calibrator="minmax",
    )


def nothing(folder: Path, rng: np.random.Generator) -> None:
    pytest.importorskip("torchao", reason="needs pip install '.[qat]'")


MATERIAL: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "classifier": classifier,
    "yolo": yolo,
    "bert": text_model,
    "jetson": classifier,
    "service": engine,
    "qat": nothing,
}


def installed(folder: Path) -> Path:
    """A folder with the command as pip would install it for this interpreter."""
    command = folder / "bin" / "build-engine"
    command.parent.mkdir()
    program = "import sys; from build_engine import main; sys.exit(main())"
    command.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{program}' \"$@\"\n")
    command.chmod(0o755)
    return command.parent


def blocks(page: str, *kinds: str) -> list[str]:
    """Fenced blocks of these kinds, in order; of several kinds with their kind in front."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    if len(kinds) == 1:
        return [body for kind, body in found if kind in kinds]
    return [f"{kind}\n{body}" for kind, body in found if kind in kinds]


def test_every_tutorial_has_its_material() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == set(MATERIAL)


@pytest.mark.parametrize("page", MATERIAL)
def test_the_blocks_of_a_tutorial_run(page: str, tmp_path: Path, rng: np.random.Generator) -> None:
    MATERIAL[page](tmp_path, rng)
    environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONWARNINGS="ignore")
    environment["PATH"] = os.pathsep.join(
        [str(installed(tmp_path)), str(Path(sys.executable).parent), environment["PATH"]]
    )
    parts = blocks(page, "bash", "python")
    assert len(parts) >= 2
    for part in parts:
        kind, _, text = part.partition("\n")
        program = ["bash", "-euo", "pipefail", "-c", text]
        if kind == "python":
            program = [sys.executable, "-c", text]
        done = subprocess.run(
            program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_what_is_not_run_needs_what_is_not_here() -> None:
    """A console block is one of these commands, so that no ordinary one hides there."""
    allowed = (
        "sudo",
        "python3 -m venv",
        "pip install",
        "make gpu-smoke",
        "curl",
        "/usr/src/tensorrt",
    )
    for page in MATERIAL:
        for text in blocks(page, "console"):
            for line in re.findall(r"^\$ (.*)", text, re.MULTILINE):
                device = "--target tensorrt" in text or "app.py" in line
                assert device or line.startswith(allowed), f"{page}: {line}"
