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

import quantization
from artefacts.errors import BuilderError
from engines import Profile
from engines.onnx_layers import read_onnx
from engines.tensorrt.build import build_plan
from tests.contract.drive import GPU, PROFILE, SHAPE, build, cached, options, tensor
from tests.contract.drive_matrix import matrix
from tests.contract.drive_opset import opsets
from tests.contract.surface import Stand
from tests.engine_models import convnet, save


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


def dla_pools(folder: Path) -> dict[str, Any]:
    """Bytes that each pool gets, and what is said of sizes that a DLA does not take."""
    given: dict[str, int] = {}
    taken = {
        "IBuilderConfig.set_memory_pool_limit": lambda s, p, size: given.update({p.name: size})
    }
    more = {"profiles": (ONE_SHAPE,), "dla_core": 1, "workspace_mib": None}
    sizes = {"dlaSRAM": 0.5, "dlaLocalDRAM": 16.0, "DLA_GLOBAL_DRAM": 1 / 256, "workspace": 0.3}
    said = [build(folder, cached(folder, memory_pools_mib=sizes, **more), False, **taken)]
    for size in (0.75, 1 / 512, 0.5000001):
        pools = {"dlaSRAM": size}
        said.append(build(folder, cached(folder, memory_pools_mib=pools, **more), False))
    return {"bytes": given, "said": [each.get("error", "") for each in said]}


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
    dla_pools,
    dla_of_pairs,
    shape_tensor,
    sizes_of_the_data,
    broken_inspector,
    halved_pairs,
    matrix,
    opsets,
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
