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
from engines.layer_times import LayerTime
from engines.loading import load
from engines.manifest import Manifest, add_measured, read_manifest
from engines.openvino.cpu_isa import cpu_isa, resolve_cpu_isa
from engines.options import BuildOptions, resolve_target
from engines.serving.pool import EnginePool, PoolStatistics
from engines.serving.signing import sign
from engines.tensors import Profile, TensorSpec

if TYPE_CHECKING:
    from engines.building import build
    from engines.openvino.build import compiled_call
    from engines.openvino.needed_isa import needed_cpu_isa
    from engines.tensorrt.network import check_opset, takes_types_from_graph

__all__ = [
    "BuildOptions",
    "Engine",
    "EnginePool",
    "Int8Coverage",
    "LayerTime",
    "Manifest",
    "NodeCoverage",
    "PoolStatistics",
    "Profile",
    "TensorSpec",
    "add_measured",
    "build",
    "check_opset",
    "compiled_call",
    "cpu_isa",
    "has_module",
    "load",
    "needed_cpu_isa",
    "read_manifest",
    "resolve_cpu_isa",
    "resolve_target",
    "sign",
    "takes_types_from_graph",
]

# Building needs onnx, which a service that loads engines has no use for: imported when asked for.
_BUILDING = {
    "build": "engines.building",
    "check_opset": "engines.tensorrt.network",
    "compiled_call": "engines.openvino.build",
    "needed_cpu_isa": "engines.openvino.needed_isa",
    "takes_types_from_graph": "engines.tensorrt.network",
}


def __getattr__(name: str) -> Any:
    if name not in _BUILDING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_BUILDING[name]), name)
