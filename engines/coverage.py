"""Which layers really run INT8: what the runtime executes, mapped back to ONNX nodes.

    OpenVINO   executed graph: originalLayersNames, layerType, runtimePrecision
    TensorRT   engine inspector JSON (layers_tensorrt.py)

A runtime fuses, renames and drops nodes. A layer that cannot be found again is ``unknown``:
never counted as INT8, never hidden.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a service reads coverage without onnx
    from engines.onnx_layers import Layer

__all__ = [
    "Int8Coverage",
    "NodeCoverage",
    "coverage_of",
    "executed_kernel",
    "openvino_kernels",
    "openvino_precisions",
]

INT8 = "int8"
UNKNOWN = "unknown"
# What OpenVINO appends to the name of a node when it splits it into simpler ones.
OPENVINO_SUFFIX = re.compile(r"(/WithoutBiases|/DequantizationMultiply|_original)+$")
OPENVINO_COMPUTE = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
OPENVINO_PRECISION = {"i8": INT8, "u8": INT8, "f32": "fp32", "f16": "fp16", "bf16": "bf16"}


@dataclass(frozen=True, kw_only=True)
class NodeCoverage:
    """One weighted ONNX node: what the graph promised and what the runtime executes.

    ``aliases`` are its outputs, and what it may be fused into: a runtime may call it by one.
    """

    name: str
    op_type: str
    promised: bool
    precision: str
    macs: int
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Int8Coverage:
    """The weighted layers of an engine; ``source`` says where the precisions were read."""

    source: str
    nodes: tuple[NodeCoverage, ...]

    @property
    def int8_layers(self) -> tuple[str, ...]:
        """Names of the ONNX nodes that run INT8."""
        return tuple(node.name for node in self.nodes if node.precision == INT8)

    @property
    def float_layers(self) -> tuple[str, ...]:
        """Names of the ONNX nodes that run in floating point, or could not be found again."""
        return tuple(node.name for node in self.nodes if node.precision != INT8)

    @property
    def broken_promises(self) -> tuple[NodeCoverage, ...]:
        """Nodes that have Q/DQ on both operands and are not seen to run INT8 all the same.

        ``unknown`` among them is a node that the runtime fused so that its name is gone: it may
        run INT8.
        """
        return tuple(n for n in self.nodes if n.promised and n.precision != INT8)

    @property
    def int8_mac_share(self) -> float:
        """Multiply-accumulates that run INT8, of those of all weighted layers; 0 to 1."""
        total = sum(node.macs for node in self.nodes)
        return sum(n.macs for n in self.nodes if n.precision == INT8) / total if total else 0.0

    def to_json(self) -> dict[str, Any]:
        """As the manifest stores it."""
        nodes = [vars(node) | {"aliases": list(node.aliases)} for node in self.nodes]
        return {"source": self.source, "nodes": nodes}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Int8Coverage:
        """From what the manifest stores."""
        nodes = [node | {"aliases": tuple(node.get("aliases", ()))} for node in data["nodes"]]
        return cls(source=data["source"], nodes=tuple(NodeCoverage(**node) for node in nodes))


def coverage_of(
    layers: Sequence[Layer],
    precisions: Mapping[str, str],
    *,
    source: str,
    kernels: Mapping[str, str] | None = None,
) -> Int8Coverage:
    """Join the layers of the ONNX graph with the precisions that a runtime reports by name.

    Args:
        layers: of the graph that was built.
        precisions: ONNX name → precision.
        source: where they were read.
        kernels: ONNX name → kernel, for the aliases.
    """
    return Int8Coverage(
        source=source,
        nodes=tuple(
            NodeCoverage(
                name=layer.name,
                op_type=layer.op_type,
                promised=layer.promised,
                precision=_first(precisions, layer.names)
                or _first(precisions, layer.fused_with)
                or UNKNOWN,
                macs=layer.macs,
                aliases=_aliases(layer, kernels or {}),
            )
            for layer in layers
        ),
    )


def _aliases(layer: Layer, kernels: Mapping[str, str]) -> tuple[str, ...]:
    names = layer.names | layer.fused_with
    return tuple(sorted((names | {kernels[n] for n in names if n in kernels}) - {layer.name}))


def _first(precisions: Mapping[str, str], names: Iterable[str]) -> str:
    return next((precisions[name] for name in names if name in precisions), "")


def openvino_precisions(executed: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """ONNX name → precision, from the ``rt_info`` of the nodes of OpenVINO's executed graph.

    Args:
        executed: one mapping a node, with ``layerType``, ``originalLayersNames`` (the names of
            everything that was fused into it, comma-separated) and ``runtimePrecision``; its
            ``weight``, where that is known.
    """
    found: dict[str, str] = {}
    nodes = list(executed)
    # A fused attention is a Subgraph; other Subgraphs must not hide the layers they follow.
    for kinds in (OPENVINO_COMPUTE, ("Subgraph",)):
        for info in (node for node in nodes if node["layerType"] in kinds):
            _, precision = executed_kernel(info)
            for name in _known_by(info):
                found.setdefault(name, precision)
    return found


def openvino_kernels(executed: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """ONNX name → the kernel that computes it.

    A blob that was exported and imported keeps the kernels' names, and of what OpenVINO fused
    before it exported nothing else.

    Args:
        executed: as above, with ``name``.
    """
    found: dict[str, str] = {}
    for info in executed:
        kernel = OPENVINO_SUFFIX.sub("", info["name"])
        for name in _known_by(info):
            found.setdefault(name, kernel)
    return found


def _known_by(info: Mapping[str, str]) -> tuple[str, ...]:
    """ONNX names of one executed node, and of the weight that it alone multiplies by."""
    weight = info.get("weight")
    return (*executed_kernel(info)[0], *([weight] if weight else []))


def executed_kernel(info: Mapping[str, str]) -> tuple[tuple[str, ...], str]:
    """ONNX names and precision of one node of OpenVINO's executed graph.

    Args:
        info: with ``originalLayersNames`` and ``runtimePrecision``, as above.
    """
    precision = OPENVINO_PRECISION.get(info["runtimePrecision"], info["runtimePrecision"])
    names = (OPENVINO_SUFFIX.sub("", name) for name in info["originalLayersNames"].split(","))
    return tuple(dict.fromkeys(filter(None, names))), precision
