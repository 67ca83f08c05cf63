"""ONNX's operator Attention (opset 23), written as the products and the Softmax that it is.

As one operator it is float for placement, TensorRT-RTX 1.7.1 has no kernel for heads of 8 channels,
and its builder ends in a crash where one tensor is Q, K and V. Written out, it is the attention
that runtimes fuse and placement knows:

    Y = Softmax(Q Kᵀ * scale + mask) V,      scale = 1 / sqrt(channels of a head) by default

Left as it is: a past of keys, heads that share keys, a soft cap, scores as an output, sizes that
are not known. Source: https://onnx.ai/onnx/operators/onnx__Attention.html
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto

from graphs.walk import attributes
from quantization.prepare.writer import Writer

__all__ = ["write_attention"]

_SHORTER_MASKS = 24  # the opset whose masks may end before the keys do
_NOTHING = -65504.0
"""Score of what is masked: no probability beside any other, and finite in float16, where a row that
is masked altogether would become NaN."""


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """Heads, channels of each, and positions: None where a length is free."""

    heads: int
    channels: int
    queries: int | None
    keys: int | None


def write_attention(writer: Writer, node: NodeProto) -> list[NodeProto]:
    """The nodes that take the place of an Attention; none where it stays."""
    given = attributes(node)
    sizes = _sizes(writer, node, given)
    mask = node.input[3] if len(node.input) > 3 else ""
    if sizes is None or given.get("softcap", 0.0) or not _is_plain(writer, node):
        return []
    causal = bool(given.get("is_causal", 0))
    if (mask and not _fits(writer, mask, sizes)) or (causal and not (sizes.queries and sizes.keys)):
        return []
    written: list[NodeProto] = []

    def step(op_type: str, *inputs: str, last: bool = False, **more: object) -> str:
        written.append(writer.step(node, op_type, inputs, last=last, **more))
        return str(written[-1].output[0])

    folded = writer.rank(node.input[0]) == 3
    query, key, value = _by_heads(writer, node, sizes, step) if folded else node.input[:3]
    if not folded:
        key = step("Transpose", key, perm=[0, 1, 3, 2])
    scale = given.get("scale", 1.0 / math.sqrt(sizes.channels))
    scores = step("Mul", step("MatMul", query, key), writer.constant(node, "scale", scale, "f4"))
    if causal:
        seen = np.tri(sizes.queries or 0, sizes.keys, dtype=np.float32)
        hidden = writer.constant(node, "causal", np.where(seen, 0.0, _NOTHING), np.float32)
        scores = step("Add", scores, hidden)
    if mask and writer.kind(mask) == TensorProto.BOOL:
        scores = step("Where", mask, scores, writer.constant(node, "masked", _NOTHING, np.float32))
    elif mask:
        scores = step("Add", scores, mask)
    found = step("MatMul", step("Softmax", scores, axis=-1), value, last=not folded)
    if folded:
        shape = writer.constant(node, "joined", [0, 0, -1], np.int64)
        step("Reshape", step("Transpose", found, perm=[0, 2, 1, 3]), shape, last=True)
    return written


def _by_heads(
    writer: Writer, node: NodeProto, sizes: _Sizes, step: Callable[..., str]
) -> list[str]:
    """Q, Kᵀ and V as (N, heads, …) of (N, positions, heads * channels)."""
    shape = writer.constant(node, "heads", [0, 0, sizes.heads, -1], np.int64)
    orders = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    return [
        step("Transpose", step("Reshape", tensor, shape), perm=order)
        for tensor, order in zip(node.input[:3], orders, strict=True)
    ]


def _sizes(writer: Writer, node: NodeProto, given: Mapping[str, object]) -> _Sizes | None:
    """Sizes of an attention whose heads each have keys of their own; None of another."""
    query, key = node.input[:2]
    width = writer.size(query, -1) if writer.rank(query) else None
    if writer.rank(query) == 3:
        heads, keyed = given.get("q_num_heads"), given.get("kv_num_heads")
        if not isinstance(heads, int) or heads < 1 or width is None or width % heads:
            return None
        channels: int | None = width // heads
    elif writer.rank(query) == 4:
        heads, keyed, channels = writer.size(query, 1), writer.size(key, 1), width
    else:
        return None
    if not isinstance(heads, int) or heads != keyed or not channels:
        return None
    queries, keys = writer.size(query, -2), writer.size(key, -2)
    return _Sizes(heads=heads, channels=channels, queries=queries, keys=keys)


def _is_plain(writer: Writer, node: NodeProto) -> bool:
    """Whether there is no past, nothing but Y is read, and all is float32."""
    floats = all(writer.kind(name) == TensorProto.FLOAT for name in node.input[:3])
    alike = len({writer.rank(name) for name in node.input[:3]}) == 1
    return floats and alike and not any(node.input[4:]) and not any(node.output[1:])


def _fits(writer: Writer, mask: str, sizes: _Sizes) -> bool:
    """Whether a mask is of a type that is known, and as long as the keys."""
    if not writer.rank(mask) or writer.kind(mask) not in (TensorProto.FLOAT, TensorProto.BOOL):
        return False
    length = writer.size(mask, -1)
    return writer.opset < _SHORTER_MASKS or (length is not None and length == sizes.keys)
