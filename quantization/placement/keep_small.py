"""Layers too small for INT8 tensor cores, and what OpenVINO has no INT8 kernel for."""

from __future__ import annotations

from graphs.operators import CONVOLUTION_OPS, PRODUCT_OPS
from graphs.view import GraphView, Node
from quantization.placement.draft import Draft
from quantization.placement.walk import never_negative

__all__ = [
    "few_channels",
    "few_group_channels",
    "gemv",
    "grouped_transposed",
    "halved_weights",
    "outer_product",
    "small_matmul",
    "unbounded_product",
    "vector_product",
]

_SOLID_RANK = 5  # of a weight with three axes behind its channels
_TILE = 16  # channels an INT8 tensor core works on at once


def few_channels(draft: Draft, node: Node) -> str | None:
    """A Conv with fewer than 16 input or output channels stays in floating point.

    Not where group is 1, one of them is divisible by 8, the kernel is square, and one of them is
    16 or more or the layer reads the graph's input.

    Why: tiny channels waste INT8 tiles.
    Source: [modelopt]
    """
    if node.op_type not in CONVOLUTION_OPS or node.integer("group", 1) != 1:
        return None
    outputs, inputs, kernel = _conv_sizes(draft.view, node)
    if min(outputs, inputs) >= _TILE:
        return None
    divisible = outputs % 8 == 0 or inputs % 8 == 0
    first = node.inputs[0] in draft.view.inputs
    if divisible and len(set(kernel)) <= 1 and (first or max(outputs, inputs) >= _TILE):
        return None
    return f"{outputs} output and {inputs} input channels, fewer than {_TILE}"


def few_group_channels(draft: Draft, node: Node) -> str | None:
    """A grouped Conv with few channels stays in floating point unless it is a useful depthwise.

    Few: output channels or input channels per group under 16. Kept: output channels divisible by
    8 and every kernel side 3 or more.

    Why: depthwise 3×3 has an INT8 kernel, 1×1 groups and odd channel counts have none worth it.
    Source: [modelopt], [modelopt#80]
    """
    groups = node.integer("group", 1)
    if node.op_type not in CONVOLUTION_OPS or groups == 1:
        return None
    outputs, inputs, kernel = _conv_sizes(draft.view, node)
    if min(outputs, inputs) >= _TILE or (outputs % 8 == 0 and min(kernel, default=0) >= 3):
        return None
    size = "×".join(map(str, kernel))
    return f"{groups} groups, {outputs} output channels, kernel {size}"


def gemv(draft: Draft, node: Node) -> str | None:
    """A Gemm or MatMul that is a matrix-vector product stays in floating point.

    An axis whose size is dynamic is taken to be larger than 1.

    Why: with one row or column no tensor core is used, and Q/DQ costs more than it saves.
    Source: [modelopt]
    """
    if node.op_type not in PRODUCT_OPS:
        return None
    rows, _, columns = _matmul_sizes(draft.view, node)
    if 1 not in (rows, columns):
        return None
    return f"a matrix-vector product: {_known(rows)} rows, {_known(columns)} columns"


def small_matmul(draft: Draft, node: Node) -> str | None:
    """A Gemm or MatMul with depth or columns under 16 stays in floating point.

    Why: it fills no INT8 tile.
    Source: [modelopt]
    """
    if node.op_type not in PRODUCT_OPS:
        return None
    _, depth, columns = _matmul_sizes(draft.view, node)
    if min(depth or _TILE, columns or _TILE) >= _TILE:
        return None
    return f"depth {_known(depth)} and {_known(columns)} columns, expected {_TILE} or more"


def grouped_transposed(draft: Draft, node: Node) -> str | None:
    """A ConvTranspose with groups stays in floating point.

    Why: OpenVINO 2026.4 executes it in float even with Q/DQ around it.
    Source: measured
    """
    groups = node.integer("group", 1)
    if node.op_type != "ConvTranspose" or groups == 1:
        return None
    return f"a transposed convolution with {groups} groups"


def vector_product(draft: Draft, node: Node) -> str | None:
    """A MatMul of a tensor of one axis stays in floating point.

    Why: OpenVINO 2026.4 computes something else of one on the left with Q/DQ around it.
    Source: measured
    """
    for name in node.inputs[:2] if node.op_type == "MatMul" else ():
        shape = draft.view.shape(name)
        if shape is not None and len(shape) == 1:
            return f"{name} has one axis"
    return None


def outer_product(draft: Draft, node: Node) -> str | None:
    """A Gemm or MatMul of depth 1 stays in floating point.

    Why: it sums nothing: each result is one product, which float does as well without codes.
    Source: ours
    """
    if node.op_type not in PRODUCT_OPS or _matmul_sizes(draft.view, node)[1] != 1:
        return None
    return "depth 1: it sums nothing"


def unbounded_product(draft: Draft, node: Node) -> str | None:
    """A product without a constant on the right stays in floating point for any x86 CPU.

    Why: without VNNI, sums of two products saturate unless the right side is bounded, which the
    codes of an activation cannot be without losing a bit of all of them.
    Source: measured
    """
    if draft.view.is_constant(node.inputs[1]):
        return None
    return f"its right side {node.inputs[1]} is computed: sums of its products would saturate"


def halved_weights(draft: Draft, node: Node) -> str | None:
    """What OpenVINO halves the weights of stays in floating point for any x86 CPU.

    A ConvTranspose, or a Conv with groups and three axes behind its channels, of values that may be
    negative. Not behind a ReLU.

    Why: without VNNI OpenVINO 2026.4 keeps their sums inside by taking a bit off the weights (the
    first with AVX-512 only): results are 31 to 47 dB from the graph's.
    Source: measured
    """
    groups, weight = node.integer("group", 1), draft.view.shape(node.inputs[1]) or ()
    solid = node.op_type == "Conv" and groups > 1 and len(weight) >= _SOLID_RANK
    if not (solid or node.op_type == "ConvTranspose"):
        return None
    if never_negative(draft.view, node.inputs[0]):
        return None
    return f"{node.inputs[0]} may be negative: without VNNI its weights would lose a bit"


def _matmul_sizes(view: GraphView, node: Node) -> tuple[int | None, int | None, int | None]:
    """Rows, depth and columns (M, K, N) of a Gemm or MatMul; None where unknown.

    Rows of a MatMul by a constant matrix count all leading axes: (8, 128, 768) gives 1024.
    """
    left, right = (view.shape(name) or () for name in node.inputs[:2])
    if node.op_type == "Gemm":
        if node.integer("transA", 0):
            left = left[::-1]
        if node.integer("transB", 0):
            right = right[::-1]
    if len(left) < 2 or len(right) < 2:
        # numpy's matmul: a vector stands for one row (left) or one column (right)
        rows = left[-2] if len(left) > 1 else 1 if left else None
        columns = right[-1] if len(right) > 1 else 1 if right else None
        return rows, left[-1] if left else None, columns
    rows = left[-2]
    if len(right) == 2:
        for size in left[:-2]:
            rows = None if rows is None or size is None else rows * size
    return rows, left[-1] if left[-1] is not None else right[-2], right[-1]


def _conv_sizes(view: GraphView, node: Node) -> tuple[int, int, tuple[int, ...]]:
    """Output channels, input channels per group, kernel sides."""
    first, second, *kernel = (dim or 0 for dim in view.shape(node.inputs[1]) or (0, 0))
    if node.op_type == "ConvTranspose":
        groups = node.integer("group", 1)
        return second * groups, first // max(groups, 1), tuple(kernel)
    return first, second, tuple(kernel)


def _known(size: int | None) -> str:
    return "unknown" if size is None else str(size)
