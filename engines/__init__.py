"""ONNX → engine file and manifest → running engine.

In: an ONNX model. Out: ``*.engine`` and ``*.engine.json``; ``load(path)`` gives a callable.
May import: itself, artefacts, graphs; one file per runtime imports tensorrt / tensorrt_rtx,
openvino.
"""

from __future__ import annotations

from engines.build_openvino import compiled_call
from engines.building import build
from engines.coverage import Int8Coverage, NodeCoverage
from engines.cpu_isa import cpu_isa, needed_cpu_isa, resolve_cpu_isa
from engines.engine import Engine
from engines.environment import has_module
from engines.layer_times import LayerTime
from engines.loading import load
from engines.manifest import Manifest, add_measured, read_manifest
from engines.network_tensorrt import takes_types_from_graph
from engines.options import BuildOptions, resolve_target
from engines.pool import EnginePool, PoolStatistics
from engines.signing import sign
from engines.tensors import Profile, TensorSpec

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
