"""ONNX → a TensorRT plan: every generation from 8.6 on, and TensorRT-RTX, by one path."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from artefacts.errors import ArtefactError, BuilderError, UnsupportedError
from engines.built import BuiltEngine, Report
from engines.onnx_layers import has_float16, has_qdq, small_enough
from engines.options import BuildOptions
from engines.progress import cancellable, create_monitor
from engines.tensorrt.cache_calibrator import create_cache_calibrator
from engines.tensorrt.config import configure
from engines.tensorrt.inspection import inspect_plan
from engines.tensorrt.layers import tensorrt_precisions
from engines.tensorrt.library import MODULES, tensorrt_log, title
from engines.tensorrt.network import choose_typing, network_specs, parse_network
from engines.tensorrt.plan_log import logged_precisions
from engines.tensorrt.timing_cache import attach_timing_cache, save_timing_cache
from graphs.walk import nodes

__all__ = ["build_plan", "try_parser"]


def build_plan(
    trt: Any,
    path: Path,
    model: onnx.ModelProto,
    options: BuildOptions,
    device: Mapping[str, str] | None,
    report: Report,
) -> BuiltEngine:
    """Build a plan.

    Args:
        trt: the module ``tensorrt`` or ``tensorrt_rtx``.
        path: of the model; the parser reads it with its external data.
        model: the same model, checked.
        options: what to build.
        device: facts of the GPU; ``None`` for TensorRT-RTX without one.
        report: hears of the progress.

    Raises:
        ModelError: the parser refuses the model.
        UnsupportedError: this release or device cannot do it; the message has its log.
        ArtefactError: TensorRT rejects the calibration cache.
        KeyboardInterrupt: Ctrl-C stopped the build.
    """
    with warnings.catch_warnings():
        # What is deprecated in one release is the only way in another; detected, not guessed.
        warnings.simplefilter("ignore", DeprecationWarning)
        log = tensorrt_log(trt)
        builder = _create_builder(trt, log)
        typing = choose_typing(trt, model, options)
        network = parse_network(trt, builder, log, path, typing)
        inputs, outputs = network_specs(network)
        config = configure(trt, builder, options, typing, inputs)
        # The configuration keeps raw pointers: these must live until the build has returned.
        calibrator = _attach_calibrator(trt, config, options)
        monitor = _attach_monitor(trt, config, report)
        cached = attach_timing_cache(trt, config, options.timing_cache)
        log.layers.clear()
        with cancellable(monitor):
            plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise _failure(trt, log, calibrator, options, model)
        if cached and options.timing_cache is not None:
            save_timing_cache(config, options.timing_cache)
        data, flags = bytes(plan), _flags(trt, config)
        del plan, config, network, builder  # their memory is free before the plan takes some
        inspected = None if device is None else inspect_plan(trt, log, data, options, outputs)
        precisions, source = _precisions(log, model, inspected)
    return BuiltEngine(
        data=data,
        library={"name": MODULES[options.target][0], "version": trt.__version__},
        device=device or {"name": "any GPU of the compute capabilities in options"},
        inputs=inputs,
        outputs=outputs,
        profiles=options.profiles,
        precisions=precisions,
        source=source,
        facts={"typing": typing, "flags": flags},
    )


def try_parser(trt: Any, model: onnx.ModelProto) -> None:
    """Parse a model and build nothing, before a long run ends there; the largest are not tried.

    Raises:
        ModelError: the parser refuses it, or inputs and outputs that a plan cannot have.
        UnsupportedError: the library does not start on this machine.
    """
    data = small_enough(model)
    if data is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        log = tensorrt_log(trt)
        builder = _create_builder(trt, log)
        network_specs(parse_network(trt, builder, log, data, "weak"))


def _create_builder(trt: Any, log: Any) -> Any:
    try:
        return trt.Builder(log)
    except (TypeError, RuntimeError) as err:  # pybind11: the factory returned a null pointer
        raise UnsupportedError(
            f"{title(trt)} cannot start its builder "
            f"({'; '.join(log.take_errors()) or err}), expected a working GPU driver and library; "
            "check the installation with nvidia-smi"
        ) from err


def _attach_calibrator(trt: Any, config: Any, options: BuildOptions) -> Any:
    """Set and return the calibrator; the caller keeps it alive."""
    calibrator = options.calibrator
    if options.calibration_cache is not None:
        calibrator = create_cache_calibrator(trt, options.calibration_cache)
    if calibrator is not None:
        config.int8_calibrator = calibrator
    return calibrator


def _attach_monitor(trt: Any, config: Any, report: Report) -> Any:
    """Set and return the progress monitor; the caller keeps it alive. None before TensorRT 10."""
    monitor = create_monitor(trt, report)
    if monitor is not None:
        config.progress_monitor = monitor
    return monitor


def _failure(
    trt: Any, log: Any, calibrator: Any, options: BuildOptions, model: onnx.ModelProto
) -> BuilderError:
    said = "; ".join(log.take_errors())
    if getattr(calibrator, "rejected", False):
        return ArtefactError(
            f"calibration cache {options.calibration_cache} is rejected by {title(trt)} "
            f"({said}), expected one whose header has this release; write it for this release"
        )
    # Pairs with float16 scales do not compile on Orin with 10.16.2 (NVIDIA/TensorRT#4832).
    halved = has_qdq(model) and has_float16(model)
    return UnsupportedError(
        f"{title(trt)} cannot build the model ({said}), "
        "expected every layer to have a kernel on this device; raise --workspace, leave the "
        f"named layer unquantized{', build with --float-part fp32' if halved else ''} or try "
        "another release"
    )


def _precisions(
    log: Any, model: onnx.ModelProto, inspected: dict[str, Any] | None
) -> tuple[dict[str, str] | None, str]:
    """ONNX name → precision and who says so; None where neither inspector nor log tell."""
    if inspected is not None:
        order = [node.name for node in nodes(model)]
        return tensorrt_precisions(inspected, order), "TensorRT engine inspector"
    return logged_precisions(log.layers) or None, "TensorRT-RTX builder's list of layers"


def _flags(trt: Any, config: Any) -> list[str]:
    """Names of the builder flags that are set (numbers mean other flags in other releases)."""
    names = trt.BuilderFlag.__members__
    return sorted(name for name, flag in names.items() if config.get_flag(flag))
