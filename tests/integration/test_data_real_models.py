"""Real models on real data: the preprocessing is right if the published models recognise things."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from calibrators.preprocessing.preprocess import Preprocess
from calibrators.samples.checks import check_unnormalised, refuse_overlap
from calibrators.samples.data import Samples, batches, input_specs, open_samples, require_labels

COCO_IDS = [*range(1, 12), *range(13, 26), 27, 28, *range(31, 45), *range(46, 66), 67, 70]
COCO_IDS += [*range(72, 83), *range(84, 91)]
MOBILENET = {"resize": 256, "crop": 224, "scale": 1, "mean": 128, "std": 128}
CIFAR = {"scale": "1/255", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
YOLOX = {
    "color": "bgr",
    "letterbox": {"size": 416, "pad": 114, "anchor": "top-left"},
    "antialias": False,
    "scale": 1,
}


class Network:
    """A model in onnxruntime with the samples that fit it."""

    def __init__(self, path: Path) -> None:
        self.inputs = input_specs(onnx.load(path))
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def samples(self, path: Path, spec: dict[str, Any], limit: int | None = None) -> Samples:
        preprocess = Preprocess.from_dict(spec)
        return open_samples(path, inputs=self.inputs, preprocess=preprocess, limit=limit)

    def accuracy(self, samples: Samples, *, background: int = 0) -> float:
        require_labels(samples)
        hits = []
        for batch in batches(samples, 16, inputs=self.inputs):
            scores = self.session.run(None, batch.inputs)[0][: batch.count]
            found = scores.reshape(batch.count, -1).argmax(1) - background
            hits += list(found == [sample.label for sample in batch.samples])
        return float(np.mean(hits))


def test_imagenet_folder(assets: Path) -> None:
    network = Network(assets / "models" / "mobilenet_v2_1.0_224_fp32.onnx")
    samples = network.samples(assets / "imagenet" / "test", MOBILENET, limit=60)
    assert len(samples.classes) == 1000
    assert network.accuracy(samples, background=1) > 0.7
    assert check_unnormalised(samples) == ()
    swapped = network.samples(assets / "imagenet" / "test", {**MOBILENET, "std": 1}, limit=60)
    assert network.accuracy(swapped, background=1) < 0.3


def test_small_imagenet_model(assets: Path) -> None:
    network = Network(assets / "models" / "mobilenet_v1_0.25_128_fp32.onnx")
    spec = {**MOBILENET, "resize": 146, "crop": 128}
    samples = network.samples(assets / "imagenet" / "test", spec, limit=120)
    assert network.accuracy(samples, background=1) > 0.33


def test_cifar_npz(assets: Path) -> None:
    network = Network(assets / "models" / "cifar_resnet20.onnx")
    samples = network.samples(assets / "cifar10" / "test.npz", CIFAR, limit=400)
    assert network.accuracy(samples) > 0.75
    refuse_overlap(
        {s.digest for s in network.samples(assets / "cifar10" / "calib.npz", CIFAR)}, samples
    )


def test_keyword_features(assets: Path) -> None:
    network = Network(assets / "models" / "kws_dscnn_fp32.onnx")
    spec = {"inputs": {"input": {"scale": 0.5847029, "zero_point": 83}}}
    samples = network.samples(assets / "kws" / "kws01_1000.npz", spec)
    assert len(samples) == 1000
    assert network.accuracy(samples[::2]) > 0.85


def decode(output: np.ndarray) -> np.ndarray:
    """YOLOX: rows (x centre, y centre, width, height, objectness, classes) in input pixels."""
    grids, strides = [], []
    for stride in (8, 16, 32):
        cells = 416 // stride
        y, x = np.mgrid[:cells, :cells]
        grids.append(np.stack([x, y], -1).reshape(-1, 2))
        strides.append(np.full((cells * cells, 1), stride))
    grid, stride = np.concatenate(grids), np.concatenate(strides)
    boxes = np.concatenate([(output[:, :2] + grid) * stride, np.exp(output[:, 2:4]) * stride], 1)
    return np.concatenate([boxes, output[:, 4:]], 1)


def overlap_of_boxes(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of (left, top, right, bottom)."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.clip(high - low, 0, None))
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))


@pytest.mark.parametrize("anchor", ["top-left", "centre"])
def test_detector_finds_objects_where_they_are(anchor: str, assets: Path) -> None:
    network = Network(assets / "models" / "yolox_nano.onnx")
    spec = {**YOLOX, "letterbox": {"size": 416, "anchor": anchor}}
    samples = network.samples(assets / "coco" / "val", spec, limit=30)
    truth = json.loads((assets / "coco" / "instances_val.json").read_text())
    ids = {image["file_name"]: image["id"] for image in truth["images"]}
    hits = []
    for batch in batches(samples, 8, inputs=network.inputs):
        (sample,) = batch.samples
        rows = decode(network.session.run(None, batch.inputs)[0][0])
        best = rows[np.argmax(rows[:, 4] * rows[:, 5:].max(1))]
        if best[4] * best[5:].max() < 0.6:
            continue
        corners = np.array([best[:2] - best[2:4] / 2, best[:2] + best[2:4] / 2])
        assert sample.size is not None
        assert samples.preprocess is not None
        found = samples.preprocess.geometry(*sample.size).to_source(corners).ravel()
        category = COCO_IDS[int(best[5:].argmax())]
        boxes = [
            np.array([x, y, x + w, y + h])
            for x, y, w, h in (
                entry["bbox"]
                for entry in truth["annotations"]
                if entry["image_id"] == ids[sample.name] and entry["category_id"] == category
            )
        ]
        hits.append(max((overlap_of_boxes(found, box) for box in boxes), default=0.0) > 0.6)
    assert len(hits) >= 10
    assert np.mean(hits) > 0.8
