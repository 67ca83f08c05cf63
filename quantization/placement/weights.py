"""Which axis of a weight is its output channel."""

from __future__ import annotations

from graphs.view import GraphView, Node

__all__ = ["channel_axis"]


def channel_axis(view: GraphView, node: Node, index: int) -> int | None:
    """Axis of the constant at input ``index`` that gets one scale per slice; None: one scale.

    Conv (O, I/g, kh, kw): 0. ConvTranspose (I, O/g, kh, kw): 1, and per tensor with groups, as
    output channel o of every group shares slice o and some TensorRT versions refuse it. Gemm: 0
    for transB=1 weights (N, K), else 1. MatMul (K, N): 1. A constant on the left gets the mirror
    image: its rows are the output channels. Stacks of matrices get one scale: onnxruntime's
    integer MatMul refuses more (seen, 1.31).
    Source: TensorRT 8.5 developer guide 7.4.2; github.com/NVIDIA/Model-Optimizer ort_utils.py.
    """
    rank = len(view.shape(node.inputs[index]) or ())
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if node.integer("group", 1) == 1 else None
    if node.op_type == "Gemm":
        transposed = node.integer("transB" if index else "transA", 0)
        return int(transposed == 0) if index else int(transposed != 0)
    if node.op_type == "MatMul" and rank == 2:
        return int(index == 1)
    return None
