"""Every reader of a file that somebody else may have made: a valid one, what it reads, odd ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.accuracy.coco import CocoTruth
from benchmarks.accuracy.task import read_task
from benchmarks.report.codec import load_report
from calibrators import Preprocess, Ranges, decode_image, input_specs
from calibrators.preprocessing.detect import detect, read_description, stated_classes
from calibrators.preprocessing.tflite import read_tflite
from calibrators.samples.labels import labels_beside
from calibrators.tensorrt.cache import read_cache
from engines import Manifest
from quantization import load_model
from quantization.search.recipe import Recipe
from tests.soak.valid_files import (
    COCO,
    JSON,
    PRETRAINED,
    PROCESSOR,
    RANGES,
    RECIPE,
    REPORT,
    SPEC,
    STATE,
    STATS,
    ULTRALYTICS,
    YAML,
    changed,
    image,
    meta_with,
    scans,
    sparse,
    stats_with,
    tiny_model,
    use_state,
    use_statistics,
    with_keys,
)
from tests.unit.calibrators.test_tflite_metadata import tflite
from tests.unit.engines.test_manifest import manifest

__all__ = ["READERS", "Reader"]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A reader under attack.

    Attributes:
        name: of the file, as the reader wants it.
        valid: what it accepts.
        read: reads a file.
        hostile: made by hand, each of which once got through.
    """

    name: str
    valid: bytes
    read: Callable[[Path], object]
    hostile: tuple[bytes, ...] = ()


IMAGE = (None, 3, None, None)


def _described(path: Path) -> object:
    metadata = {entry.key: entry.value for entry in load_model(path).metadata_props}
    return detect(path, metadata, IMAGE), stated_classes(path, metadata)


READERS: dict[str, Reader] = {
    "recipe": Reader(
        name="recipe.yaml",
        valid=RECIPE,
        read=Recipe.load,
        hostile=(
            *YAML,
            with_keys(RECIPE, methods=["a"]),
            with_keys(RECIPE, methods=7),
            with_keys(RECIPE, found=None),
            with_keys(RECIPE, found=[[[[]]]]),
            with_keys(RECIPE, exclude="abc"),
            with_keys(RECIPE, k=1) + b"7: 3\n",
            RECIPE + b"seed: " + b"9" * 5000,
            RECIPE.replace(b"exclude: []", b"exclude: [" + b"x," * 2_000_000 + b"]"),
        ),
    ),
    "search state": Reader(
        name="x.search.json",
        valid=STATE,
        read=use_state,
        hostile=(
            *JSON,
            changed(STATE, scores={"x": 10**400}),
            changed(STATE, scores={"x": "31"}),
            changed(STATE, scores=None),
            changed(STATE, saved_ms={"a": "1"}),
            changed(STATE, saved_ms=[1]),
            changed(STATE, sensitivities=[{"group": "a"}]),
            changed(STATE, sensitivities=[{"group": ["a"], "alone": {}, "without": {}}]),
            changed(STATE, sensitivities=7),
        ),
    ),
    "statistics": Reader(
        name="x.stats.npz",
        valid=STATS,
        read=use_statistics,
        hostile=(
            b"PK\x05\x06" + bytes(18),
            stats_with(header=b"{'descr': '<i8', 'fortran_order': False, 'shape': (2, 1"),
            stats_with(header=b"(" * 110),
            stats_with(header=b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 1)}"),
            stats_with(header=b"{'descr': '<i8', 'fortran_order': False, 'shape': (9**9**9,)}"),
            stats_with(meta=meta_with(preprocess={"scale": float("nan")})),
            stats_with(meta=meta_with(preprocess={"\ud800": 1})),
            stats_with(meta=meta_with(samples=None)),
            stats_with(meta=meta_with(tensors=7)),
            stats_with(meta=meta_with(levels=10**400)),
            stats_with(meta=b"[" * 100_000),
        ),
    ),
    "ranges": Reader(
        name="x.ranges.json",
        valid=RANGES,
        read=Ranges.load,
        hostile=(
            *JSON,
            changed(RANGES, tensors={"x": {"amax": 10**400, "method": "mse"}}),
            changed(RANGES, preprocess={"\ud800": 1}),
            changed(RANGES, preprocess={"scale": float("nan")}),
        ),
    ),
    "report": Reader(
        name="report.json",
        valid=REPORT,
        read=load_report,
        hostile=(
            *JSON,
            changed(REPORT, batch=10**400),
            changed(REPORT, systems=[{}]),
            changed(REPORT, systems={"a": 1}),
            changed(REPORT, warnings=7),
            changed(REPORT, steadiness=None),
            changed(REPORT, environment={"a": 7}),
            REPORT.replace(b"0.", b"1e999", 3),
        ),
    ),
    "preprocessing": Reader(
        name="preprocess.yaml",
        valid=yaml.safe_dump(SPEC).encode(),
        read=Preprocess.from_yaml,
        hostile=(
            *YAML,
            b"resize: " + b"9" * 5000,
            b"resize: 0x" + b"f" * 5000,
            b"scale: [" + b"1," * 20_000 + b"]",
            b"inputs: {1: {scale: 1}}",
            b"scale: '\\x1b'",
        ),
    ),
    "task": Reader(
        name="task.yaml",
        valid=b"task: classification\n",
        read=read_task,
        hostile=(*YAML, b"task: [1]", b"task: {a: 1}", b"task: " + b"9" * 5000, b"1: 2"),
    ),
    "manifest": Reader(
        name="m.engine.json",
        valid=manifest().to_bytes(),
        read=lambda path: Manifest.from_bytes(path.read_bytes()),
        hostile=JSON,
    ),
    "calibration cache": Reader(
        name="x.calib.cache",
        valid=b"TRT-100300-EntropyCalibration2\nx: 3c010a14\ny: 3c810a14\n",
        read=lambda path: read_cache(path.read_bytes()),
        hostile=(b"", b"\n", b"TRT-100300-EntropyCalibration2\nx: 7fc00000\n"),
    ),
    "labels": Reader(
        name="labels.json",
        valid=b'{"a.png": 1, "b.png": 0}',
        read=lambda path: labels_beside(path.parent, ["a.png", "b.png"], []),
        hostile=(*JSON, b'{"a.png": ' + b"9" * 4000 + b"}", b'{"a.png": [1e999]}'),
    ),
    "annotations": Reader(
        name="instances.json",
        valid=json.dumps(COCO).encode(),
        read=CocoTruth.read,
        hostile=(
            *JSON,
            json.dumps({**COCO, "images": [{"file_name": "a", "id": 1e400}]}).encode(),
            json.dumps({**COCO, "annotations": [7]}).encode(),
            json.dumps({**COCO, "images": 7}).encode(),
        ),
    ),
    "preprocessor_config.json": Reader(
        name="preprocessor_config.json",
        valid=json.dumps(PROCESSOR).encode(),
        read=lambda path: read_description(path, IMAGE),
        hostile=tuple(
            json.dumps({**PROCESSOR, **odd}).encode()
            for odd in (
                {"size": {"height": [], "width": {}}},
                {"size": {"shortest_edge": 10**400}},
                {"image_mean": {"a": 1}},
                {"image_std": [float("nan")] * 3},
                {"rescale_factor": "1e999"},
                {"resample": [1]},
            )
        ),
    ),
    "config.json": Reader(
        name="config.json",
        valid=json.dumps({"pretrained_cfg": PRETRAINED}).encode(),
        read=lambda path: read_description(path, IMAGE),
        hostile=tuple(
            json.dumps({"pretrained_cfg": {**PRETRAINED, **odd}}).encode()
            for odd in (
                {"input_size": "abc"},
                {"crop_pct": [1]},
                {"crop_pct": 1e-300},
                {"mean": {"a": 1}},
                {"interpolation": [1]},
            )
        ),
    ),
    "tflite": Reader(
        name="m.tflite",
        valid=tflite([127.5], [128.0], "cat\ndog\n"),
        read=read_tflite,
        hostile=(b"", b"\xff\xff\xff\x7fTFL3"),
    ),
    "Ultralytics' metadata": Reader(
        name="m.onnx",
        valid=tiny_model(**ULTRALYTICS),
        read=_described,
        hostile=tuple(
            tiny_model(**{**ULTRALYTICS, **odd})
            for odd in ({"imgsz": "[0x" + "f" * 5000 + ", 1]"},)
        ),
    ),
    "note of samples": Reader(
        name="m.onnx",
        valid=tiny_model(sample_axes='{"axes": {"x": 0}, "apart": true}'),
        read=lambda path: input_specs(load_model(path)),
        hostile=tuple(
            tiny_model(sample_axes=odd)
            for odd in (
                "[" * 100_000,
                "7",
                '{"axes": {"x": 9}}',
                '{"axes": {"x": ' + "9" * 4000 + "}}",
            )
        ),
    ),
    "model": Reader(name="m.onnx", valid=tiny_model(), read=load_model, hostile=(sparse(),)),
    **{
        f"{form} image": Reader(
            name="image",
            valid=image(form, **options),
            read=lambda path: decode_image(path.read_bytes(), name="x"),
            hostile=hostile,
        )
        for form, options, hostile in (
            ("PNG", {}, ()),
            ("JPEG", {"progressive": True}, (scans(),)),
            ("WEBP", {}, ()),
            ("BMP", {}, ()),
        )
    },
}
