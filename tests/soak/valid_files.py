"""Files that our readers accept, and parts of them to be changed."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import numpy_helper, parser
from PIL import Image

from benchmarks.report.codec import save_report
from calibrators import Statistics
from calibrators.statistics.tensor_statistics import TensorStatistics
from quantization.improve.methods import Methods
from quantization.search.recipe import Recipe
from quantization.search.state import SearchState
from tests.unit.benchmarks.made import made_report

HASH = "0123456789abcdef" * 4


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


def changed(valid: bytes, **changes: Any) -> bytes:
    return json.dumps(json.loads(valid) | changes).encode()


def _recipe() -> bytes:
    recipe = Recipe(
        graph_hash=HASH, profile="cpu", calibrator="mse", methods=Methods(), samples_digest=HASH
    )
    return _written(recipe.save, "recipe.yaml")


def with_keys(valid: bytes, **changes: Any) -> bytes:
    return yaml.safe_dump(yaml.safe_load(valid) | changes).encode()


def _written(save: Callable[[Path], object], name: str) -> bytes:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        save(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def _state(path: Path) -> SearchState:
    return SearchState(path, "key", ["a", "b"])


def use_state(path: Path) -> object:
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


def stats_with(meta: bytes | None = None, header: bytes | None = None) -> bytes:
    """The statistics' file with another ``meta``, or another header of an array."""
    found = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(STATS)) as old, zipfile.ZipFile(found, "w") as new:
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


def meta_with(**changes: Any) -> bytes:
    with zipfile.ZipFile(io.BytesIO(STATS)) as archive:
        raw = np.load(io.BytesIO(archive.read("meta.npy"))).tobytes()
    return json.dumps(json.loads(raw) | changes).encode()


def use_statistics(path: Path) -> object:
    return Statistics.load(path).digest


def tiny_model(**metadata: str) -> bytes:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        tiny (float[N,4] x) => (float[N,4] y) { h = MatMul (x, w) y = Relu (h) }"""
    )
    model.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
    onnx.helper.set_model_props(model, metadata)
    return model.SerializeToString()


def sparse() -> bytes:
    model = onnx.ModelProto.FromString(tiny_model())
    values = numpy_helper.from_array(np.ones(1, np.float32), "huge")
    at = numpy_helper.from_array(np.zeros(1, np.int64), "at")
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, at, [90_000] * 2))
    return model.SerializeToString()


def image(form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (24, 40, 3), np.uint8)).save(file, form, **options)
    return file.getvalue()


def scans() -> bytes:
    file = io.BytesIO()
    Image.new("L", (4000, 4000)).save(file, "JPEG", progressive=True)
    raw = file.getvalue()
    return raw[:-2] + raw[raw.rindex(b"\xff\xda") : -2] * 400 + raw[-2:]


COCO: Mapping[str, Any] = {
    "images": [{"file_name": "a.png", "id": 1, "height": 4, "width": 4}],
    "categories": [{"id": 1, "name": "x"}],
    "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "id": 1}],
}
# What Hugging Face, timm and Ultralytics write beside or into a model.
PROCESSOR: Mapping[str, Any] = {
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "resample": 2,
    "do_normalize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
}
PRETRAINED: Mapping[str, Any] = {
    "input_size": [3, 32, 32],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "crop_pct": 0.875,
    "interpolation": "bicubic",
    "crop_mode": "center",
}
ULTRALYTICS: Mapping[str, str] = {
    "task": "detect",
    "imgsz": "[32, 32]",
    "names": "{0: 'x'}",
    "stride": "32",
}
SPEC = {"resize": 16, "crop": [8, 8], "scale": "1/255", "mean": [0.1, 0.2, 0.3]}
RECIPE = _recipe()
STATS = _written(_statistics().save, "x.stats.npz")
RANGES = json.dumps(
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
STATE = _written(_fill_state, "x.search.json")
REPORT = _written(lambda path: save_report(made_report(), path), "report.json")
