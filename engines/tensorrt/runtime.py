"""TensorRT and TensorRT-RTX, as the rest of the project knows them: two libraries, one path."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artefacts.errors import EngineError
from engines.built import BuiltEngine, Feeds, Report
from engines.environment import has_gpu
from engines.manifest import Manifest
from engines.options import BuildOptions
from engines.rebuild import check_version, rebuild_command
from engines.runtime import Runtime
from engines.tensorrt.library import MODULES, check_gpu, is_strongly_typed, tensorrt
from engines.tensorrt.plan import Plan
from engines.tensorrt.runner import TensorrtRunner

if TYPE_CHECKING:  # a service has no onnx
    import onnx

__all__ = ["TENSORRT", "TENSORRT_RTX"]

PLAIN, RTX = "tensorrt", "tensorrt-rtx"
SHARED = frozenset(
    {
        "workspace_mib",
        "memory_pools_mib",
        "timing_cache",
        "optimization_level",
        "hardware_compatibility",
        "version_compatible",
        "tactic_sources",
        "preview_features",
    }
)
CALIBRATED = frozenset({"calibrator", "calibration_shapes", "calibration_cache"})


def _build(
    path: Path, model: onnx.ModelProto, options: BuildOptions, report: Report, feeds: Feeds
) -> BuiltEngine:
    """TensorRT times kernels on the GPU that the plan is for."""
    from engines.tensorrt.build import build_plan

    trt = tensorrt(PLAIN)
    return build_plan(trt, path, model, options, check_gpu(PLAIN, "build on"), report)


def _build_rtx(
    path: Path, model: onnx.ModelProto, options: BuildOptions, report: Report, feeds: Feeds
) -> BuiltEngine:
    """TensorRT-RTX compiles without a GPU."""
    from engines.tensorrt.build import build_plan

    return build_plan(tensorrt(RTX), path, model, options, None, report)


def _load(
    target: str, path: Path, manifest: Manifest, data: bytes, device: int, threads: int | None
) -> TensorrtRunner:
    return TensorrtRunner(
        Plan(
            tensorrt(target),
            data,
            manifest.inputs,
            manifest.outputs,
            manifest.profiles,
            device=device,
            dla_core=manifest.options.get("dla_core"),
        )
    )


def _check(path: Path, manifest: Manifest, device: int) -> None:
    """Same compute capability, name and size; a compatibility level of the build loosens that."""
    check_version(path, manifest, tensorrt(PLAIN).__version__)
    here = check_gpu(PLAIN, "run the engine", device)
    found, level = here["compute_capability"], manifest.options.get("hardware_compatibility")
    if level == "ampere+":
        fits, expected = int(found.split(".")[0]) >= 8, "8.0 or newer"
    elif level == "same-compute-capability":
        expected = str(manifest.device.get("compute_capability"))
        fits = found == expected
    else:
        expected = _kind_of_gpu(manifest.device, manifest.device)
        fits = _kind_of_gpu(here, manifest.device) == expected
    if not fits:
        raise _other_gpu(path, manifest, expected, here)


def _check_rtx(path: Path, manifest: Manifest, device: int) -> None:
    check_version(path, manifest, tensorrt(RTX).__version__)
    here = check_gpu(RTX, "run the engine", device)
    listed = manifest.options.get("compute_capabilities")
    if listed and here["compute_capability"] not in listed:
        raise _other_gpu(path, manifest, f"one of {', '.join(listed)}", here)


def _other_gpu(
    path: Path, manifest: Manifest, expected: str, here: Mapping[str, Any]
) -> EngineError:
    return EngineError(
        f"engine {path} was built for a GPU of compute capability {expected}, found "
        f"{_kind_of_gpu(here, here)}, expected the same; {rebuild_command(path, manifest)}"
    )


def _kind_of_gpu(gpu: Mapping[str, Any], recorded: Mapping[str, Any]) -> str:
    """What a plan is bound to, as far as ``recorded`` has it: engines of before lack the number."""
    number = (
        f", {gpu.get('multiprocessors')} multiprocessors" if "multiprocessors" in recorded else ""
    )
    return f"{gpu.get('compute_capability')} ({gpu['name']}{number})"


def _ready() -> None:
    """Ask another process for the GPU: CUDA in this one would be lost to its forks."""
    tensorrt(PLAIN)
    if not has_gpu():
        check_gpu(PLAIN, "build on")


def _ready_rtx() -> None:
    tensorrt(RTX)


def _check_model(model: onnx.ModelProto) -> None:
    from engines.tensorrt.network import refuse_opset, refuse_passed_inputs

    refuse_opset(tensorrt(PLAIN), model)
    refuse_passed_inputs(model)


def _check_model_rtx(model: onnx.ModelProto) -> None:
    from engines.tensorrt.network import refuse_passed_inputs

    refuse_passed_inputs(model)


def _check_operators_rtx(model: onnx.ModelProto, options: BuildOptions) -> None:
    from engines.tensorrt.build import try_parser

    try_parser(tensorrt(RTX), model)


def _takes_types() -> bool:
    return is_strongly_typed(tensorrt(PLAIN))


def _always() -> bool:
    return True


TENSORRT = Runtime(
    library=MODULES[PLAIN][0],
    placement="tensorrt",
    linted=True,
    options=SHARED | CALIBRATED | {"float_part", "dla_core", "allow_gpu_fallback"},
    build=_build,
    load=partial(_load, PLAIN),
    check=_check,
    check_model=_check_model,
    # Not `check_operators`: its parser needs a builder, which takes CUDA, see `_ready`.
    takes_types=_takes_types,
    ready=_ready,
    triton="tensorrt_plan",
)
TENSORRT_RTX = Runtime(
    library=MODULES[RTX][0],
    placement="tensorrt",
    lacks_int8=frozenset({"ConvTranspose"}),
    linted=True,
    options=SHARED | {"compute_capabilities"},
    build=_build_rtx,
    load=partial(_load, RTX),
    check=_check_rtx,
    check_model=_check_model_rtx,
    check_operators=_check_operators_rtx,
    takes_types=_always,
    ready=_ready_rtx,
)
