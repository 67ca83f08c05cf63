"""ONNX file → engine file and manifest."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from artefacts.errors import GateMissedError, ModelError, UnsupportedError
from artefacts.files import sha256_bytes, sha256_file
from artefacts.groups import replace_group
from engines.built import BuiltEngine, Feeds
from engines.coverage import Int8Coverage, coverage_of
from engines.manifest import Manifest, manifest_path
from engines.onnx_layers import external_files, has_float16, has_qdq, read_onnx, weighted_layers
from engines.options import BuildOptions, Precision
from engines.passport import Passport
from engines.progress import show_progress
from engines.runtimes import runtime_of, settle_target
from engines.serving.signing import signature_path

__all__ = ["build"]

logger = logging.getLogger(__name__)

NO_PASSPORT = (
    "engine %s was built without a passport: its manifest has no preprocessing for those who call "
    "it, and no calibration samples to tell from those of an evaluation; give "
    "engines.Passport(preprocess=..., calibration_samples=...)"
)


def build(
    onnx_path: str | Path,
    engine_path: str | Path,
    options: BuildOptions | None = None,
    passport: Passport | None = None,
    feeds: Feeds = (),
    bar: bool = True,
) -> Manifest:
    """Build an engine and write it with its manifest beside it: both or neither.

    Args:
        onnx_path: FP32, FP16 or Q/DQ model.
        engine_path: e.g. ``out/model.engine``.
        options: what to build; by default for ``auto`` and in the precision that the model says.
        passport: preprocessing and calibration samples; INT8 engines without are said to lack them.
        feeds: inputs as requests are; a cpu engine, read back, is held against itself on them.
        bar: show the builder's progress, on a terminal.

    Raises:
        ModelError: the model cannot be read, or the runtime refuses it.
        MissingLibraryError: the runtime is not installed.
        UnsupportedError: this machine or library version cannot do it.
        GateMissedError: less work runs INT8 than ``options.require_int8``.
    """
    onnx_path, engine_path = Path(onnx_path), Path(engine_path)
    options = settle_target(options or BuildOptions())
    model = read_onnx(onnx_path)
    precision = options.precision or _stated_precision(model, options)
    options = replace(options, precision=precision)
    # Before the build, which may take minutes and end with an engine of another precision.
    _check_quantization(model, options)
    start = time.perf_counter()
    with show_progress(f"build for {options.target}", wanted=bar) as report:
        built = runtime_of(options.target).build(onnx_path, model, options, report, feeds)
    facts = {**built.facts, "seconds": round(time.perf_counter() - start, 3)}
    coverage = _coverage(model, built, options, passport)
    # A missed gate leaves no file; where nothing tells the coverage, the engine is kept (below).
    check_coverage(coverage, options)
    manifest = Manifest(
        engine_sha256=sha256_bytes(built.data),
        engine_bytes=len(built.data),
        target=options.target,
        precision=precision,
        onnx=_onnx_facts(onnx_path),
        library=built.library,
        device=built.device,
        inputs=built.inputs,
        outputs=built.outputs,
        profiles=built.profiles,
        options=options.to_json(),
        build=facts,
        coverage=coverage,
        passport=passport or Passport(),
    )
    _write(engine_path, built.data, manifest)
    if passport is None and precision == "int8":
        logger.warning(NO_PASSPORT, engine_path)
    if coverage is None and options.require_int8 is not None:
        raise _unanswered(engine_path)
    return manifest


def _unanswered(path: Path) -> UnsupportedError:
    return UnsupportedError(
        f"engine {path} is written, and nothing here tells which of its layers run INT8, expected "
        "an answer for --require-int8; drop it, or build where the GPU is and with another release"
    )


def _write(path: Path, data: bytes, manifest: Manifest) -> None:
    # A signature is of the engine that goes.
    names = (path, manifest_path(path))
    with replace_group(*names, gone=[signature_path(path)]) as (engine, beside):
        engine.write_bytes(data)
        beside.write_bytes(manifest.to_bytes())


def _stated_precision(model: onnx.ModelProto, options: BuildOptions) -> Precision:
    """What the model says, or a calibration beside it."""
    # Q/DQ before float16: the float part of an INT8 model may be in float16.
    if options.implicit or has_qdq(model):
        return "int8"
    return "fp16" if has_float16(model) else "fp32"


def check_coverage(coverage: Int8Coverage | None, options: BuildOptions) -> None:
    """Warn of layers that were promised INT8 and do not get it; hold the gate.

    Raises:
        GateMissedError: the share of INT8 work is below ``options.require_int8``.
    """
    if coverage is None:
        return
    if broken := coverage.broken_promises:
        logger.warning(
            "%d layers have Q/DQ and are not seen to run INT8: %s%s",
            len(broken),
            ", ".join(f"{node.name} ({node.precision})" for node in broken[:5]),
            " …" if len(broken) > 5 else "",
        )
    if options.require_int8 is not None and coverage.int8_mac_share < options.require_int8:
        raise GateMissedError(
            f"{coverage.int8_mac_share:.1%} of the multiply-accumulates run INT8, expected at "
            f"least {options.require_int8:.1%}; not INT8 are: "
            f"{', '.join(coverage.float_layers[:10])}; quantize them or lower --require-int8"
        )


def _check_quantization(model: onnx.ModelProto, options: BuildOptions) -> None:
    """INT8 comes from the graph or from a calibration, never from both or neither."""
    if options.implicit and has_qdq(model):
        raise ModelError(
            "model has QuantizeLinear or DequantizeLinear nodes beside a calibration, expected "
            "one kind of quantization; give the model without Q/DQ or drop the calibration"
        )
    if options.precision == "int8" and not options.implicit and not has_qdq(model):
        raise ModelError(
            "model has no QuantizeLinear or DequantizeLinear nodes, expected a Q/DQ model for "
            "precision int8; quantize it first or give a calibration cache"
        )


def _coverage(
    model: onnx.ModelProto, built: BuiltEngine, options: BuildOptions, passport: Passport | None
) -> Int8Coverage | None:
    if built.precisions is None:
        return None
    # Multiply-accumulates depend on free sizes: those that placement counted by, so that what it
    # says and what runs are shares of one whole, else the first profile's usual shape.
    usual = options.profiles[0].opt if options.profiles else {}
    told = None if passport is None or passport.placement is None else passport.placement.shapes
    layers = weighted_layers(model, dict(told or usual))
    return coverage_of(layers, built.precisions, source=built.source, kernels=built.kernels)


def _onnx_facts(path: Path) -> dict[str, Any]:
    return {
        "name": path.name,
        "sha256": sha256_file(path),
        # Weights may lie in files of their own: the .onnx alone would hash the same without them.
        "external": {file.name: sha256_file(file) for file in external_files(path)},
    }
