"""Which tensors take one scale."""

from __future__ import annotations

from graphs.operators import RESIZE_OPS
from quantization.placement.draft import Draft

__all__ = ["concat", "linear_resize"]


def concat(draft: Draft) -> None:
    """The inputs of a Concat and its output take one scale, the largest.

    Across reshapes, MaxPool, Split and nested Concats too. Ops that only move values (Reshape,
    Transpose, MaxPool, Split, nearest Resize, ...) use the scale of what they read. Not where one
    of them is read elsewhere, too, and its range is known to be more than 4 times smaller.

    Why: TensorRT moves Q and DQ across only where scales are equal; else it inserts requantize
    kernels. It costs accuracy where the inputs differ in range: 2 dB at a ratio of 2, 7 at 4.
    Source: [explicit], [modelopt]
    """
    for edge in draft.edges:
        above = draft.sources(edge.tensor)
        if len(above) > 1:
            draft.share([edge.observed, *above])


def linear_resize(draft: Draft) -> None:
    """A linear Resize that reads INT8 shares its scale with what it writes.

    Why: interpolated values stay within the range of their neighbours, so one scale fits both.
    Source: [explicit]
    """
    for node in draft.view.nodes:
        if node.op_type in RESIZE_OPS and draft.is_quantized(node, 0):
            draft.share([*draft.sources(node.inputs[0]), node.outputs[0]])
