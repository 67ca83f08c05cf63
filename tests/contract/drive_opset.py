"""Models of newer opsets than the parser of TensorRT 8.6 knows."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx.version_converter import convert_version

from artefacts.errors import BuilderError
from pipeline.flags import parse_job
from pipeline.screen import Screen
from pipeline.steps import run
from tests.contract.drive import SHAPE, build, cached, options
from tests.engine_models import convnet, save


def opsets(folder: Path) -> dict[str, Any]:
    """The same network by opset, quantized and not, and as the command meets it."""
    rng = np.random.default_rng()
    pairs, plain = convnet(rng), convnet(rng, quantized=False)
    newer = convert_version(pairs, 19)
    lowered = convert_version(newer, 17)
    return {
        "pairs": build(folder, options(folder), True, model=newer),
        "plain": build(folder, cached(folder), False, model=convert_version(plain, 18)),
        "lowered": build(folder, options(folder), True, model=lowered)
        | {"same": computes_the_same(newer, lowered, rng)},
        "commanded": commanded(folder / "commanded", newer),
    }


def computes_the_same(
    one: onnx.ModelProto, other: onnx.ModelProto, rng: np.random.Generator
) -> bool:
    """What the refusal offers as a remedy changes no result."""
    feeds = {"input": rng.normal(size=SHAPE).astype(np.float32)}
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    results = [
        onnxruntime.InferenceSession(model.SerializeToString(), plain).run(None, feeds)[0]
        for model in (one, other)
    ]
    return bool(np.array_equal(*results))


def commanded(folder: Path, model: onnx.ModelProto) -> dict[str, Any]:
    """The command's whole run, and the files that it leaves."""
    folder.mkdir()
    source = save(model, folder)
    words = ["--onnx", str(source), "--engine", str(folder / "m.engine"), "--target", "tensorrt"]
    said = ""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            run(parse_job(words), Screen(bars=False, steps=5))
        except BuilderError as err:
            said = str(err)
    made = sorted(path.name for path in folder.iterdir() if path != source)
    return {"error": said, "files": made}
