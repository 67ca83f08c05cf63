"""Fixtures of the tests of recalibration."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from build_engine import build
from quantization.measure.execution import load_onnxruntime
from tests.integration.recalibration.work import (
    SHIFT,
    SPEC,
    Work,
    network,
    record,
    rows,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Built once; tests work on copies."""
    folder = tmp_path_factory.mktemp("recalibrate")
    rng = np.random.default_rng()
    onnx.save(network(3), folder / "fp32.onnx")
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    work = Work(folder=folder)
    build(
        folder / "fp32.onnx",
        work.engine,
        target="cpu",
        calibrator="minmax",
        calib_data={"x": rows(rng, 40)},
        preprocess=folder / "spec.yaml",
    )
    record(work.engine, work.samples, rows(rng, 60, SHIFT))
    labelled = rows(rng, 300, SHIFT)
    scores = load_onnxruntime(folder / "fp32.onnx")({"x": labelled})
    labels = next(iter(scores.values())).argmax(axis=1)
    np.savez(folder / "labelled.npz", x=labelled, labels=labels)
    return work


@pytest.fixture
def work(made: Work, tmp_path: Path) -> Work:
    shutil.copytree(made.folder, tmp_path / "w")
    return Work(folder=tmp_path / "w")
