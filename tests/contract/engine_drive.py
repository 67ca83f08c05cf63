"""Drives our builder and runner over the bindings of one TensorRT, and prints what it touched.

Run in a process of its own: ``python -m tests.contract.engine_drive folder``.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorrt as trt

import quantization
from artefacts.errors import BuilderError
from command.building import build_options, halve
from command.flags import parse_job
from command.screen import Screen
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


ONE_SHAPE = Profile(min=PROFILE.opt, opt=PROFILE.opt, max=PROFILE.opt)


def dla(folder: Path) -> dict[str, Any]:
    settings = cached(folder, dla_core=1, profiles=(ONE_SHAPE,), allow_gpu_fallback=True)
    return build(folder, settings, quantized=False)


def dla_alone(folder: Path) -> dict[str, Any]:
    settings = cached(folder, dla_core=1, profiles=(ONE_SHAPE,))
    return build(folder, settings, quantized=False)


def dla_of_a_range(folder: Path) -> dict[str, Any]:
    return build(folder, cached(folder, dla_core=1), quantized=False)


def dla_with_odd_pool(folder: Path) -> dict[str, Any]:
    settings = cached(
        folder, dla_core=1, profiles=(ONE_SHAPE,), memory_pools_mib={"dlaLocalDRAM": 24}
    )
    return build(folder, settings, quantized=False)


def dla_of_pairs(folder: Path) -> dict[str, Any]:
    settings = options(folder, dla_core=1, profiles=(ONE_SHAPE,))
    return build(folder, settings, quantized=True)


def shape_tensor(folder: Path) -> dict[str, Any]:
    return build(folder, options(folder), quantized=True, **{"ITensor.is_shape_tensor": True})


def sizes_of_the_data(folder: Path) -> dict[str, Any]:
    """A size that stays open when the network is parsed, or when the plan has its shapes."""
    fixed = {"INetworkDefinition.get_input": lambda s, i: tensor(s, "input", SHAPE)}
    opened = {"IExecutionContext.get_tensor_shape": lambda s, name: (-1, 16)}
    settings = options(folder, profiles=())
    return {
        "parsed": build(folder, settings, quantized=True, **fixed),
        "built": build(folder, options(folder), quantized=True, **opened),
    }


def broken_inspector(folder: Path) -> dict[str, Any]:
    """No JSON, another JSON, an error of pybind11, a refused plan: each is built all the same."""

    def fail(*given: Any) -> Any:
        raise RuntimeError("no inspector")

    broken = {
        "text": {"EngineInspector.get_engine_information": "no JSON"},
        "list": {"EngineInspector.get_engine_information": "[]"},
        "error": {"ICudaEngine.create_engine_inspector": fail},
        "engine": {"Runtime.deserialize_cuda_engine": lambda *given: None},
    }
    return {name: build(folder, options(folder), True, **more) for name, more in broken.items()}


def halved_pairs(folder: Path) -> dict[str, Any]:
    """What is said when a builder refuses pairs with float16 scales."""
    more = {"Builder.build_serialized_network": lambda *given: None}
    model = quantization.to_float16(convnet(np.random.default_rng(0))).model
    return build(folder, options(folder), True, model=model, **more)


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
        path = halve(job, "tensorrt", source, {}, Screen(bars=False, steps=5))
    surface = Surface(trt, answers())
    prepared = read_onnx(source)
    settings = build_options(job, "tensorrt", prepared)
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


def cached(folder: Path, **changes: Any) -> BuildOptions:
    cache = folder / "calib.cache"
    cache.write_bytes(b"TRT-101601-MinMaxCalibration\ninput: 3c010204\n")
    return options(folder, calibration_cache=cache, **changes)


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
    dla_alone,
    dla_of_a_range,
    dla_with_odd_pool,
    dla_of_pairs,
    shape_tensor,
    sizes_of_the_data,
    broken_inspector,
    halved_pairs,
    matrix,
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
