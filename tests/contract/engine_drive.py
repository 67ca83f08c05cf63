"""Drives our builder and runner over the bindings of one TensorRT, and prints what it touched.

Run in a process of its own: ``python -m tests.contract.engine_drive folder``.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt as trt

from artefacts.errors import BuilderError
from engines import BuildOptions, Profile
from engines.build_tensorrt import build_plan
from engines.onnx_layers import read_onnx
from tests.contract.surface import Stand, Surface
from tests.engine_models import convnet, save

GPU = {"name": "a GPU", "compute_capability": "8.6", "driver_cuda": "13.0"}
SHAPE = (1, 3, 8, 8)
INSPECTED = {
    "Layers": [
        {
            "Name": "conv1",
            "Metadata": "[ONNX Layer: conv1_node]",
            "Inputs": [{"Format/Datatype": "Int8"}],
            "Weights": {"Type": "Int8", "Count": 9},
        }
    ]
}
PROFILE = Profile(
    min={"input": SHAPE}, opt={"input": (4, *SHAPE[1:])}, max={"input": (8, *SHAPE[1:])}
)


def tensor(stand: Stand, name: str, shape: tuple[int, ...]) -> Stand:
    made = Stand(stand._surface, trt.ITensor)
    made.values.update(name=name, shape=shape, dtype=trt.DataType.FLOAT)
    return made


def answers() -> dict[str, Any]:
    return {
        "Builder.num_DLA_cores": 2,
        "INetworkDefinition.num_inputs": 1,
        "INetworkDefinition.num_outputs": 1,
        "INetworkDefinition.get_input": lambda s, i: tensor(s, "input", (-1, 3, 8, 8)),
        "INetworkDefinition.get_output": lambda s, i: tensor(s, "output", (-1, 16)),
        "IHostMemory.__bytes__": b"plan",
        "EngineInspector.get_engine_information": json.dumps(INSPECTED),
        "IBuilderConfig.get_flag": lambda s, flag: flag in s.values.get("set", []),
        "IBuilderConfig.set_flag": lambda s, flag: s.values.setdefault("set", []).append(flag),
    }


def options(folder: Path, **changes: Any) -> BuildOptions:
    settings: dict[str, Any] = {
        "target": "tensorrt",
        "precision": "int8",
        "profiles": (PROFILE,),
        "workspace_mib": 64,
        "memory_pools_mib": {"DLA_LOCAL_DRAM": 16, "dlaGlobalDRAM": 16},
        "timing_cache": folder / "timing.cache",
        "optimization_level": 4,
        "tf32": False,
        "hardware_compatibility": "ampere+",
        "version_compatible": True,
        "tactic_sources": ("-JIT_CONVOLUTIONS", "+EDGE_MASK_CONVOLUTIONS"),
    }
    return BuildOptions(**(settings | changes))


def build(folder: Path, settings: BuildOptions, quantized: bool, **more: Any) -> dict[str, Any]:
    """What a build touched, or the sentence it ended with."""
    surface = Surface(trt, answers() | more)
    path = save(convnet(np.random.default_rng(0), quantized=quantized), folder)
    try:
        built = build_plan(surface, path, read_onnx(path), settings, GPU, lambda *event: None)
    except BuilderError as err:
        return {"error": str(err), "kind": type(err).__name__, "touched": surface.touched}
    return {
        "touched": surface.touched,
        "facts": built.facts,
        "library": built.library,
        "precisions": built.precisions,
        "data": built.data.decode(),
        "inputs": [spec.to_json() for spec in built.inputs],
    }


def explicit(folder: Path) -> dict[str, Any]:
    first = build(folder, options(folder), quantized=True)
    return first | {"again": build(folder, options(folder), quantized=True)["touched"]}


def stale_timing_cache(folder: Path) -> dict[str, Any]:
    """A cache of another GPU: the configuration refuses it and takes an empty one."""
    (folder / "timing.cache").write_bytes(b"of another GPU")
    given: list[bytes] = []

    def create(stand: Stand, data: bytes) -> Stand:
        given.append(bytes(data))
        return Stand(stand._surface, trt.ITimingCache)

    more = {
        "IBuilderConfig.create_timing_cache": create,
        "IBuilderConfig.set_timing_cache": lambda s, cache, ignore: given[-1] == b"",
    }
    seen = build(folder, options(folder), quantized=True, **more)
    return seen | {"given": [data.decode() for data in given]}


def no_library(folder: Path) -> dict[str, Any]:
    """NVIDIA's own ``Builder`` over libraries that make none, as without a driver."""
    path = save(convnet(np.random.default_rng(0)), folder)
    try:
        build_plan(trt, path, read_onnx(path), options(folder), GPU, lambda *event: None)
    except BuilderError as err:
        return {"error": str(err), "kind": type(err).__name__}
    return {}


def fp16(folder: Path) -> dict[str, Any]:
    return build(folder, options(folder, precision="fp16"), quantized=False)


def dla(folder: Path) -> dict[str, Any]:
    settings = options(folder, dla_core=1, allow_gpu_fallback=True)
    return build(folder, settings, quantized=True)


def implicit_cache(folder: Path) -> dict[str, Any]:
    return build(folder, cached(folder), quantized=False)


def rejected_cache(folder: Path) -> dict[str, Any]:
    """A builder that asks for batches, as it does when it does not like the header."""

    def refuse(stand: Stand, network: Stand, config: Stand) -> None:
        calibrator = config.values["int8_calibrator"]
        assert calibrator.read_calibration_cache().startswith(b"TRT-")
        assert calibrator.get_batch_size() == 1
        assert calibrator.get_batch(["input"]) is None

    more = {"Builder.build_serialized_network": refuse}
    return build(folder, cached(folder), quantized=False, **more)


def cached(folder: Path) -> BuildOptions:
    cache = folder / "calib.cache"
    cache.write_bytes(b"TRT-101601-MinMaxCalibration\ninput: 3c010204\n")
    return options(folder, calibration_cache=cache)


def implicit_calibrator(folder: Path) -> dict[str, Any]:
    class Calibrator(trt.IInt8EntropyCalibrator2):
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)

    settings = options(folder, calibrator=Calibrator(), calibration_shapes={"input": SHAPE})
    return build(folder, settings, quantized=False)


def parser_errors(folder: Path) -> dict[str, Any]:
    def error(stand: Stand, index: int) -> Stand:
        made = Stand(stand._surface, trt.ParserError)
        made.values["index"] = index
        return made

    more = {
        "OnnxParser.parse_from_file": False,
        "OnnxParser.num_errors": 2,
        "OnnxParser.get_error": error,
        "ParserError.node": lambda s: 7 + s.values["index"],
        "ParserError.node_name": lambda s: f"name{s.values['index']}",
        "ParserError.node_operator": "Odd",
        "ParserError.desc": "no such operator",
    }
    return build(folder, options(folder), quantized=True, **more)


SCENARIOS = (
    explicit,
    stale_timing_cache,
    no_library,
    fp16,
    dla,
    implicit_cache,
    implicit_calibrator,
    rejected_cache,
    parser_errors,
)


def main(folder: Path) -> None:
    """One JSON object: scenario → what it saw, or the trace of what broke."""
    seen = {}
    for scenario in SCENARIOS:
        if scenario is implicit_calibrator and not hasattr(trt, "IInt8EntropyCalibrator2"):
            continue  # there is no class to derive a calibrator from
        (folder / scenario.__name__).mkdir()
        try:
            seen[scenario.__name__] = scenario(folder / scenario.__name__)
        except (AssertionError, AttributeError, NotImplementedError, TypeError):
            seen[scenario.__name__] = {"broken": traceback.format_exc()}
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
