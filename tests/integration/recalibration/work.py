"""An engine with the files of its build, and what a recorder kept of moved data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import engines
from int8.main import main
from tests.networks import Builder

SHIFT = 6.0
SPEC = {"scale": 1.0, "dtype": "float32", "layout": "nchw", "resize": [8, 8]}


def network(seed: int) -> onnx.ModelProto:
    """A classifier of (N, 3, 8, 8) whose classes hang together with how large inputs are."""
    net = Builder(seed=seed)
    hidden = net.relu(net.conv(net.input("x", ("N", 3, 8, 8)), 16))
    pooled = net.op("GlobalAveragePool", net.relu(net.conv(hidden, 16)))
    flat = net.op("Flatten", pooled)
    return net.build("net", net.gemm(flat, 16, 10))


def rows(rng: np.random.Generator, count: int, scale: float = 1.0) -> np.ndarray:
    """Samples that differ in their channels, so that classes do; none is far beyond the others."""
    channels = rng.uniform(-2, 2, (count, 3, 1, 1))
    return (scale * (channels + rng.uniform(-2, 2, (count, 3, 8, 8)))).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """An engine with the files of its build, and what a recorder kept of moved data."""

    folder: Path

    @property
    def engine(self) -> Path:
        return self.folder / "net.int8.engine"

    @property
    def new(self) -> Path:
        return self.folder / "net.v2.engine"

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    def hashes(self) -> dict[str, str]:
        """Of everything that the first build left."""
        found = sorted(self.folder.glob("net.*"))
        mine = [path for path in found if ".v" not in path.name]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in mine}

    def run(self, *words: object, engine: Path | None = None) -> int:
        return main(["recalibrate", str(engine or self.engine), *map(str, words)])

    def decision(self, name: str = "net.v2") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"{name}.decision.json").read_text())
        return found


def record(engine: Path, folder: Path, requests: np.ndarray) -> None:
    """A sample of requests as a service keeps them."""
    with (
        engines.Recorder(folder, share=1.0) as recorder,
        engines.load(engine, record=recorder) as loaded,
    ):
        for request in requests:
            loaded({"x": request[None]})
            while not recorder._waiting.empty():
                pass


def observed(work: Work, *flags: object, model: str = "net.prepared.onnx") -> Path:
    """Statistics of production, as they are made where the samples must stay."""
    placement = engines.read_manifest(work.engine)
    path = work.folder / "production.stats.npz"
    portable = ["--portable"] if placement.build.get("cpu_isa") == "portable" else []
    words = ["calibrate", "observe", str(work.folder / model), "--data", str(work.samples)]
    assert main([*words, "--profile", "cpu", *portable, "-o", str(path), *map(str, flags)]) == 0
    return path


def observed_as(work: Work, name: str) -> Path:
    """The same samples, of which nothing says how they were prepared."""
    kept = (work.folder / "production.stats.npz").rename(work.folder / "kept")
    made = observed(work).rename(work.folder / name)
    kept.rename(work.folder / "production.stats.npz")
    return made
