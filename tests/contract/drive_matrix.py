"""The command's own choices, from its flags to what the parser and the builder are given."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorrt as trt

from artefacts.errors import BuilderError
from engines.onnx_layers import read_onnx
from engines.tensorrt.build import build_plan
from pipeline.building import build_options, convert_to_float16
from pipeline.flags import parse_job
from pipeline.screen import Screen
from tests.contract.drive import GPU, answers
from tests.contract.surface import Surface
from tests.engine_models import convnet, save


def matrix(folder: Path) -> dict[str, Any]:
    """The command's own choices, from its flags to what the parser and the builder are given."""
    seen = {}
    for words in MATRIX:
        place = folder / words.replace(" ", "_").strip("-")
        place.mkdir()
        seen[words] = commanded(place, words.split())
    return seen


MATRIX = (
    "--precision fp32",
    "--precision fp16",
    "--precision int8",
    "--precision int8 --float-part fp32",
    "--precision int8 --implicit",
    "--precision int8 --implicit --float-part fp32",
    "--precision int8 --implicit --useDLACore 0",
    "--precision int8 --implicit --useDLACore 0 --float-part fp32",
)


def commanded(folder: Path, words: list[str]) -> dict[str, Any]:
    quantized = "int8" in words and "--implicit" not in words
    source = save(convnet(np.random.default_rng(0), quantized=quantized), folder)
    cache = folder / "calib.cache"
    cache.write_bytes(b"TRT-101601-MinMaxCalibration\ninput: 3c010204\n")
    given = ["--onnx", str(folder / "x.onnx"), "--engine", str(folder / "m.engine"), *words]
    given += ["--target", "tensorrt", *(("--calib", str(cache)) if "--implicit" in words else ())]
    for name in ("min", "opt", "max"):
        given += [f"--{name}Shapes", "input:4x3x8x8"]
    job = parse_job(given)
    with contextlib.redirect_stdout(io.StringIO()):
        screen = Screen(bars=False, steps=5)
        converted = convert_to_float16(
            job.paths, job.data, job.build, "tensorrt", source, None, screen
        )
    path = converted.source
    surface = Surface(trt, answers())
    prepared = read_onnx(source)
    settings = build_options(job.build, job.data, "tensorrt", prepared)
    try:
        built = build_plan(surface, path, read_onnx(path), settings, GPU, lambda *event: None)
    except BuilderError as err:
        return {"error": str(err), "kind": type(err).__name__}
    model = read_onnx(path)
    weights = {w.name: onnx.TensorProto.DataType.Name(w.data_type) for w in model.graph.initializer}
    scales = {n.input[1] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    return {
        **built.facts,
        "opset": model.opset_import[0].version,
        "scales": sorted({weights.get(name, "computed") for name in scales}),
    }
