"""One build over the bindings of one TensorRT, and what it touched there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorrt as trt

from artefacts.errors import BuilderError
from engines import BuildOptions, Profile
from engines.onnx_layers import read_onnx
from engines.tensorrt.build import build_plan
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
        "ITensor.is_shape_tensor": False,
        "IHostMemory.__bytes__": b"plan",
        "IExecutionContext.get_tensor_shape": lambda s, name: (4, 16),
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


def build(
    folder: Path,
    settings: BuildOptions,
    quantized: bool,
    model: onnx.ModelProto | None = None,
    **more: Any,
) -> dict[str, Any]:
    """What a build touched, or the sentence it ended with."""
    surface = Surface(trt, answers() | more)
    path = save(model or convnet(np.random.default_rng(0), quantized=quantized), folder)
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


def cached(folder: Path, **changes: Any) -> BuildOptions:
    cache = folder / "calib.cache"
    cache.write_bytes(b"TRT-101601-MinMaxCalibration\ninput: 3c010204\n")
    return options(folder, calibration_cache=cache, **changes)
