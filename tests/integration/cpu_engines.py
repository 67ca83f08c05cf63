"""Engines of the cpu target, and what onnxruntime says of their models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

import engines
from engines import BuildOptions, Passport
from tests.engine_models import save

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Built:
    """An engine and the model it was built from."""

    model: Path
    engine: Path
    manifest: engines.Manifest


def build(
    folder: Path,
    model: onnx.ModelProto,
    passport: Passport | None = None,
    **options: object,
) -> Built:
    path, engine = save(model, folder), folder / "model.engine"
    settings = {"target": "cpu", "threads": 2} | options
    manifest = engines.build(path, engine, BuildOptions(**settings), passport)  # type: ignore[arg-type]
    return Built(path, engine, manifest)


def answers(
    folder: Path, model: onnx.ModelProto, feeds: Mapping[str, NDArray], precision: str = "int8"
) -> dict[str, NDArray]:
    """What an engine of a model, on one thread, answers to its first request."""
    built = build(folder, model, threads=1, precision=precision)
    with engines.load(built.engine) as engine:
        return dict(engine(feeds))


def images(rng: np.random.Generator, batch: int) -> Floats:
    return rng.standard_normal((batch, 3, 8, 8)).astype(np.float32)


def reference(model: Path, feeds: dict[str, NDArray]) -> Floats:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["output"], feeds)[0]
