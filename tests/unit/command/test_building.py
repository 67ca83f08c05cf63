"""What the flags make of shapes and types, before any builder sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from engines import BuildOptions
from pipeline.building import build_options
from pipeline.flags import parse_job
from tests.engine_models import convnet


def options_of(words: list[str], target: str, model: onnx.ModelProto) -> BuildOptions:
    job = parse_job(words)
    return build_options(job.build, job.data, target, model)


def test_a_dla_gets_one_shape(tmp_path: Path, rng: np.random.Generator) -> None:
    samples = tmp_path / "x.npz"
    np.savez(samples, input=rng.uniform(-1, 1, (6, 3, 8, 8)).astype(np.float32))
    words = ["--onnx", "m.onnx", "--engine", "m.engine", "--calib-data", str(samples)]
    words += ["--calib-batch", "2", "--target", "tensorrt"]
    (gpu,) = options_of(words, "tensorrt", convnet(rng)).profiles
    assert [shape["input"][0] for shape in (gpu.min, gpu.opt, gpu.max)] == [1, 2, 8]
    words += ["--useDLACore", "0"]
    (dla,) = options_of(words, "tensorrt", convnet(rng)).profiles
    assert dict(dla.min) == dict(dla.opt) == dict(dla.max) == {"input": (2, 3, 8, 8)}


def test_the_float_part_reaches_a_builder_that_chooses_types(rng: np.random.Generator) -> None:
    words = ["--onnx", "m.onnx", "--engine", "m.engine", "--float-part", "fp32"]
    for target, expected in (("tensorrt", "fp32"), ("cpu", None)):
        options = options_of(words, target, convnet(rng, batch=1))
        assert options.float_part == expected
        assert not options.half or target == "cpu"
