"""ONNX file → engine file and manifest."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from artefacts.errors import GateMissedError
from artefacts.files import replace_atomic, sha256_bytes, sha256_file
from engines import openvino_runtime
from engines.coverage import Int8Coverage, coverage_of, openvino_precisions
from engines.manifest import Manifest, manifest_path
from engines.onnx_layers import external_files, read_onnx, weighted_layers
from engines.options import BuildOptions, resolve_target

__all__ = ["build"]

logger = logging.getLogger(__name__)


def build(
    onnx_path: str | Path,
    engine_path: str | Path,
    options: BuildOptions,
    passport: Mapping[str, Any],
) -> Manifest:
    """Build an engine and write it with its manifest beside it: both or neither.

    Args:
        onnx_path: FP32, FP16 or Q/DQ model.
        engine_path: e.g. ``out/model.engine``.
        options: what to build.
        passport: what the caller knows and the manifest should carry (see the schema).

    Raises:
        ModelError: the model cannot be read, or the runtime refuses it.
        MissingLibraryError: the runtime is not installed.
        UnsupportedError: this machine or library version cannot do it.
        GateMissedError: fewer layers run INT8 than ``options.require_int8``.
    """
    onnx_path, engine_path = Path(onnx_path), Path(engine_path)
    options = replace(options, target=resolve_target(options.target))  # type: ignore[arg-type]
    model = read_onnx(onnx_path)
    start = time.perf_counter()
    blob = openvino_runtime.compile_blob(onnx_path, options, *graph_names(model))
    layers = weighted_layers(model)
    coverage = coverage_of(layers, openvino_precisions(blob.executed), source="OpenVINO graph")
    check_coverage(coverage, options)
    manifest = Manifest(
        engine_sha256=sha256_bytes(blob.data),
        engine_bytes=len(blob.data),
        target=options.target,
        precision=options.precision,
        onnx={
            "name": onnx_path.name,
            "sha256": sha256_file(onnx_path),
            "external": {p.name: sha256_file(p) for p in external_files(onnx_path)},
        },
        library={"name": "openvino", "version": openvino_runtime.library_version()},
        device=openvino_runtime.cpu_facts(),
        inputs=blob.inputs,
        outputs=blob.outputs,
        profiles=options.profiles,
        options=options.to_json(),
        build={
            "seconds": round(time.perf_counter() - start, 3),
            "inference_precision": blob.precision,
        },
        coverage=coverage,
        passport=passport,
    )
    with (
        replace_atomic(engine_path) as engine,
        replace_atomic(manifest_path(engine_path)) as beside,
    ):
        engine.write_bytes(blob.data)
        beside.write_bytes(manifest.to_bytes())
    return manifest


def graph_names(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Names of inputs and outputs; older models list their weights among the inputs."""
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in weights]
    return inputs, [value.name for value in model.graph.output]


def check_coverage(coverage: Int8Coverage, options: BuildOptions) -> None:
    """Warn of layers that were promised INT8 and do not get it; hold the gate.

    Raises:
        GateMissedError: the share of INT8 work is below ``options.require_int8``.
    """
    if broken := coverage.broken_promises:
        logger.warning(
            "%d layers have Q/DQ and do not run INT8: %s%s",
            len(broken), ", ".join(broken[:5]), " …" if len(broken) > 5 else "",
        )  # fmt: skip
    if options.require_int8 is not None and coverage.int8_mac_share < options.require_int8:
        raise GateMissedError(
            f"{coverage.int8_mac_share:.1%} of the multiply-accumulates run INT8, expected at "
            f"least {options.require_int8:.1%}; not INT8 are: "
            f"{', '.join(coverage.float_layers[:10])}; quantize them or lower --require-int8"
        )
