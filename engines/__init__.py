"""ONNX → engine file and manifest → running engine.

In: an ONNX model. Out: ``*.engine`` and ``*.engine.json``; ``load(path)`` gives a callable.
May import: itself, artefacts, graphs; one file per runtime imports tensorrt / tensorrt_rtx,
openvino.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from engines.coverage import Int8Coverage, NodeCoverage
from engines.engine import Engine
from engines.environment import has_module
from engines.history import add_measured, add_version, versions_of
from engines.layer_times import LayerTime
from engines.loading import load
from engines.manifest import Manifest, read_manifest
from engines.monitoring.drift import InputDrift
from engines.monitoring.recorder import Recorder, RecorderStatistics
from engines.openvino.cpu_isa import cpu_isa, resolve_cpu_isa
from engines.options import BuildOptions, resolve_target
from engines.passport import (
    FloatLayer,
    FloatOperator,
    InputSummary,
    Passport,
    PlacementRecord,
    PromiseRecord,
    RecipeRecord,
    VersionRecord,
)
from engines.runtime import Runtime
from engines.runtimes import RUNTIMES, runtime_of
from engines.serving.agreement import OutputAgreement
from engines.serving.metrics import Family, prometheus_text
from engines.serving.pool import EnginePool
from engines.serving.pool_statistics import PoolStatistics
from engines.serving.release import Expected, Release
from engines.serving.shadow import Shadow, ShadowStatistics
from engines.serving.signing import sign
from engines.tensors import Profile, TensorSpec

if TYPE_CHECKING:
    from engines.building import build
    from engines.openvino.needed_isa import needed_cpu_isa

__all__ = [
    "RUNTIMES",
    "BuildOptions",
    "Engine",
    "EnginePool",
    "Expected",
    "Family",
    "FloatLayer",
    "FloatOperator",
    "InputDrift",
    "InputSummary",
    "Int8Coverage",
    "LayerTime",
    "Manifest",
    "NodeCoverage",
    "OutputAgreement",
    "Passport",
    "PlacementRecord",
    "PoolStatistics",
    "Profile",
    "PromiseRecord",
    "RecipeRecord",
    "Recorder",
    "RecorderStatistics",
    "Release",
    "Runtime",
    "Shadow",
    "ShadowStatistics",
    "TensorSpec",
    "VersionRecord",
    "add_measured",
    "add_version",
    "build",
    "cpu_isa",
    "has_module",
    "load",
    "needed_cpu_isa",
    "prometheus_text",
    "read_manifest",
    "resolve_cpu_isa",
    "resolve_target",
    "runtime_of",
    "sign",
    "versions_of",
]

# Building needs onnx, which a service that loads engines has no use for: imported when asked for.
_BUILDING = {
    "build": "engines.building",
    "needed_cpu_isa": "engines.openvino.needed_isa",
}


def __getattr__(name: str) -> Any:
    if name not in _BUILDING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_BUILDING[name]), name)
