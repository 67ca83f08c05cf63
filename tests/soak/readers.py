"""Every reader of a file that somebody else may have made: a valid one, what it reads, odd ones."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import numpy_helper, parser
from PIL import Image

from benchmarks.accuracy.coco import CocoTruth
from benchmarks.accuracy.task import read_task
from benchmarks.report.codec import load_report, save_report
from calibrators import Preprocess, Ranges, Statistics, decode_image
from calibrators.samples.labels import labels_beside
from calibrators.statistics.tensor_statistics import BINS, TensorStatistics
from calibrators.tensorrt.cache import read_cache
from engines import Manifest
from quantization import load_model
from quantization.improve.methods import Methods
from quantization.search.recipe import Recipe
from quantization.search.state import SearchState
from tests.unit.benchmarks.made import made_report
from tests.unit.engines.test_manifest import manifest

__all__ = ["READERS", "Reader"]

HASH = "0123456789abcdef" * 4


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


def _aliases(key: str) -> bytes:
    """A few lines that stand for 2^30 entries."""
    lines = [f"{key}: &a0 [x, x]"] + [f"k{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 30)]
    return "\n".join(lines).encode()


YAML = (
    _aliases("found"),
    b"&a [*a]",
    b"seed: 1" + b":59" * 20_000,
    b"seed: " + b"9" * 5000,
    b"[" * 5000,
    b"? [1, 2]\n: 3",
    b"!!timestamp x",
    b"!!map [a]",
    b"a: 9999-99-99",
    b"\xff\xfe\x00",
)
JSON = (
    b"[" * 100_000,
    b"null",
    b"[]",
    b"{}",
    b"1" * 5000,
    b'"\\ud800"',
    b"NaN",
    b"\xef\xbb\xbf{}",
    b"\xff",
)


def _changed(valid: bytes, **changes: Any) -> bytes:
    return json.dumps(json.loads(valid) | changes).encode()


def _recipe() -> bytes:
    recipe = Recipe(
        graph_hash=HASH, profile="cpu", calibrator="mse", methods=Methods(), samples_digest=HASH
    )
    return _written(recipe.save, "recipe.yaml")


def _with(valid: bytes, **changes: Any) -> bytes:
    return yaml.safe_dump(yaml.safe_load(valid) | changes).encode()


def _written(save: Callable[[Path], object], name: str) -> bytes:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        save(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def _state(path: Path) -> SearchState:
    return SearchState(path, "key", ["a", "b"])


def _use_state(path: Path) -> object:
    """As a search does: what was read is used."""
    from quantization.placement.fusion_groups import Group

    state = _state(path)
    groups = [
        Group(name=name, op_type="Conv", nodes=(name,), position=0, macs=1) for name in ("a", "b")
    ]
    total = sum(value for value in (state.saved_ms or {}).values())
    return state.sensitivities(groups), total, state.score(["a"], [])


def _fill_state(path: Path) -> None:
    state = _state(path)
    state.add_score(["a"], [], 31.5)
    state.add_saved_ms({"a": 0.5, "b": 0.25})


def _statistics() -> Statistics:
    cell = TensorStatistics()
    cell.add(np.linspace(-1, 1, 100, dtype=np.float32))
    spec = {"scale": 0.5}
    return Statistics(
        graph_hash=HASH,
        preprocess=spec,
        samples=(HASH,),
        tensors={"x": cell},
        subsets=({"x": cell},),
    )


def _stats_with(meta: bytes | None = None, header: bytes | None = None) -> bytes:
    """The statistics' file with another ``meta``, or another header of an array."""
    found = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_STATS)) as old, zipfile.ZipFile(found, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if meta is not None and entry.filename == "meta.npy":
                buffer = io.BytesIO()
                np.save(buffer, np.frombuffer(meta, np.uint8))
                data = buffer.getvalue()
            if header is not None and entry.filename == "count.npy":
                data = data[:10] + header.ljust(118) + data[128:]
            new.writestr(zipfile.ZipInfo(entry.filename), data)
    return found.getvalue()


def _meta(**changes: Any) -> bytes:
    with zipfile.ZipFile(io.BytesIO(_STATS)) as archive:
        raw = np.load(io.BytesIO(archive.read("meta.npy"))).tobytes()
    return json.dumps(json.loads(raw) | changes).encode()


def _use_statistics(path: Path) -> object:
    return Statistics.load(path).digest


def _model() -> bytes:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        tiny (float[N,4] x) => (float[N,4] y) { h = MatMul (x, w) y = Relu (h) }"""
    )
    model.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
    return model.SerializeToString()


def _sparse() -> bytes:
    model = onnx.ModelProto.FromString(_model())
    values = numpy_helper.from_array(np.ones(1, np.float32), "huge")
    at = numpy_helper.from_array(np.zeros(1, np.int64), "at")
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, at, [90_000] * 2))
    return model.SerializeToString()


def _image(form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (24, 40, 3), np.uint8)).save(file, form, **options)
    return file.getvalue()


def _scans() -> bytes:
    file = io.BytesIO()
    Image.new("L", (4000, 4000)).save(file, "JPEG", progressive=True)
    raw = file.getvalue()
    return raw[:-2] + raw[raw.rindex(b"\xff\xda") : -2] * 400 + raw[-2:]


_COCO: Mapping[str, Any] = {
    "images": [{"file_name": "a.png", "id": 1, "height": 4, "width": 4}],
    "categories": [{"id": 1, "name": "x"}],
    "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "id": 1}],
}
_SPEC = {"resize": 16, "crop": [8, 8], "scale": "1/255", "mean": [0.1, 0.2, 0.3]}
_RECIPE = _recipe()
_STATS = _written(_statistics().save, "x.stats.npz")
_RANGES = json.dumps(
    {
        "format": 1,
        "graph_hash": HASH,
        "statistics_digest": HASH,
        "method": "mse",
        "samples": 3,
        "preprocess": None,
        "tensors": {"x": {"amax": 1.5, "method": "mse", "why": ""}},
    }
).encode()
_STATE = _written(_fill_state, "x.search.json")
_REPORT = _written(lambda path: save_report(made_report(), path), "report.json")

READERS: dict[str, Reader] = {
    "recipe": Reader(
        name="recipe.yaml",
        valid=_RECIPE,
        read=Recipe.load,
        hostile=(
            *YAML,
            _with(_RECIPE, methods=["a"]),
            _with(_RECIPE, methods=7),
            _with(_RECIPE, found=None),
            _with(_RECIPE, found=[[[[]]]]),
            _with(_RECIPE, exclude="abc"),
            _with(_RECIPE, k=1) + b"7: 3\n",
            _RECIPE + b"seed: " + b"9" * 5000,
            _RECIPE.replace(b"exclude: []", b"exclude: [" + b"x," * 2_000_000 + b"]"),
        ),
    ),
    "search state": Reader(
        name="x.search.json",
        valid=_STATE,
        read=_use_state,
        hostile=(
            *JSON,
            _changed(_STATE, scores={"x": 10**400}),
            _changed(_STATE, scores={"x": "31"}),
            _changed(_STATE, scores=None),
            _changed(_STATE, saved_ms={"a": "1"}),
            _changed(_STATE, saved_ms=[1]),
            _changed(_STATE, sensitivities=[{"group": "a"}]),
            _changed(_STATE, sensitivities=[{"group": ["a"], "alone": {}, "without": {}}]),
            _changed(_STATE, sensitivities=7),
        ),
    ),
    "statistics": Reader(
        name="x.stats.npz",
        valid=_STATS,
        read=_use_statistics,
        hostile=(
            b"PK\x05\x06" + bytes(18),
            _stats_with(header=b"{'descr': '<i8', 'fortran_order': False, 'shape': (2, 1"),
            _stats_with(header=b"(" * 110),
            _stats_with(header=b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 1)}"),
            _stats_with(header=b"{'descr': '<i8', 'fortran_order': False, 'shape': (9**9**9,)}"),
            _stats_with(meta=_meta(preprocess={"scale": float("nan")})),
            _stats_with(meta=_meta(preprocess={"\ud800": 1})),
            _stats_with(meta=_meta(samples=None)),
            _stats_with(meta=_meta(tensors=7)),
            _stats_with(meta=_meta(levels=10**400)),
            _stats_with(meta=b"[" * 100_000),
        ),
    ),
    "ranges": Reader(
        name="x.ranges.json",
        valid=_RANGES,
        read=Ranges.load,
        hostile=(
            *JSON,
            _changed(_RANGES, tensors={"x": {"amax": 10**400, "method": "mse"}}),
            _changed(_RANGES, preprocess={"\ud800": 1}),
            _changed(_RANGES, preprocess={"scale": float("nan")}),
        ),
    ),
    "report": Reader(
        name="report.json",
        valid=_REPORT,
        read=load_report,
        hostile=(
            *JSON,
            _changed(_REPORT, batch=10**400),
            _changed(_REPORT, systems=[{}]),
            _changed(_REPORT, systems={"a": 1}),
            _changed(_REPORT, warnings=7),
            _changed(_REPORT, steadiness=None),
            _changed(_REPORT, environment={"a": 7}),
            _REPORT.replace(b"0.", b"1e999", 3),
        ),
    ),
    "preprocessing": Reader(
        name="preprocess.yaml",
        valid=yaml.safe_dump(_SPEC).encode(),
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
        valid=json.dumps(_COCO).encode(),
        read=CocoTruth.read,
        hostile=(
            *JSON,
            json.dumps({**_COCO, "images": [{"file_name": "a", "id": 1e400}]}).encode(),
            json.dumps({**_COCO, "annotations": [7]}).encode(),
            json.dumps({**_COCO, "images": 7}).encode(),
        ),
    ),
    "model": Reader(name="m.onnx", valid=_model(), read=load_model, hostile=(_sparse(),)),
    **{
        f"{form} image": Reader(
            name="image",
            valid=_image(form, **options),
            read=lambda path: decode_image(path.read_bytes(), name="x"),
            hostile=hostile,
        )
        for form, options, hostile in (
            ("PNG", {}, ()),
            ("JPEG", {"progressive": True}, (_scans(),)),
            ("WEBP", {}, ()),
            ("BMP", {}, ()),
        )
    },
}
assert BINS
