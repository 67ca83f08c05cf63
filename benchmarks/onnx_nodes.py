"""The weighted nodes of an ONNX file, and which of onnxruntime's kernels computes each.

onnxruntime fuses before it runs. Its profile names a kernel after a node, or after the tensor that
the fused node writes, with what it did appended: ``conv1``, ``relu_1_nchwc``, ``fused conv1``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

import onnx

from benchmarks.report.document import KernelReport, LayerReport
from graphs.names import stem
from graphs.operators import WEIGHTED_OPS
from graphs.view import GraphView, Node

__all__ = ["name_nodes", "weighted_nodes"]

FUSED_KINDS = ("Conv", "Gemm", "MatMul")  # in the names of fused operators: FusedConv, QLinearConv
ADDED = re.compile(r"^fused |_nchwc$|_quant$|_token_\d+$|/MatMul\w+Fusion/?$")


def weighted_nodes(model: onnx.ModelProto) -> tuple[LayerReport, ...]:
    """Every weighted node as a layer whose precision onnxruntime does not tell."""
    return tuple(
        LayerReport(name=node.name, op_type=node.op_type, precision="unknown", macs=0)
        for node in GraphView(model).nodes
        if node.op_type in WEIGHTED_OPS
    )


def name_nodes(model: onnx.ModelProto, kernels: Iterable[KernelReport]) -> tuple[KernelReport, ...]:
    """Kernels with the ONNX nodes that they compute, as far as their names tell.

    A fused kernel is named after the tensor that it writes: from there the graph is walked back,
    by first inputs, to the weighted node whose result that is.
    """
    view = GraphView(model)
    nodes = {stem(node.proto): node for node in view.nodes}  # as onnxruntime calls them
    return tuple(replace(kernel, nodes=_nodes_of(kernel, nodes, view)) for kernel in kernels)


def _nodes_of(kernel: KernelReport, nodes: Mapping[str, Node], view: GraphView) -> tuple[str, ...]:
    name = ADDED.sub("", kernel.name)
    node = nodes.get(name) or view.producer(name)
    if node is None:
        return ()
    found = [node.name]
    while node.op_type not in WEIGHTED_OPS and any(word in kernel.kind for word in FUSED_KINDS):
        before = view.producer(node.inputs[0]) if node.inputs else None
        if before is None:
            break
        node = before
        found.append(node.name)
    return tuple(reversed(found))
