"""ONNX → engine file and manifest → running engine.

In: an ONNX model. Out: ``*.engine`` and ``*.engine.json``; ``load(path)`` gives a callable.
May import: itself, artefacts, graphs; one file per runtime imports tensorrt / tensorrt_rtx,
openvino.
"""

from __future__ import annotations

from engines.building import build
from engines.coverage import Int8Coverage, NodeCoverage
from engines.engine import Engine
from engines.environment import has_module
from engines.layer_times import LayerTime
from engines.loading import load
from engines.manifest import Manifest, add_measured, read_manifest
from engines.openvino.build import compiled_call
from engines.openvino.cpu_isa import cpu_isa, needed_cpu_isa, resolve_cpu_isa
from engines.options import BuildOptions, resolve_target
from engines.reading import check_readable
from engines.serving.pool import EnginePool, PoolStatistics
from engines.serving.signing import sign
from engines.tensorrt.network import check_opset, takes_types_from_graph
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
    "check_opset",
    "check_readable",
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
