"""ONNX's operator Attention (opset 23), written as the products and the Softmax that it is.

As one operator it is float for placement, and TensorRT-RTX 1.7.1 takes it in few forms: no heads of
8 channels, none that share keys, no soft cap, no outputs but the first, and its builder ends in a
crash where one tensor is Q, K and V. Written out, it is the attention that runtimes fuse and
placement knows:

    Y = Softmax(cap(Q Kᵀ * scale) + mask) V,     scale = 1 / sqrt(channels of a head) by default
    cap(S) = softcap * Tanh(S / softcap) where there is one
    K, V = the past's, then these; each for several heads where queries have more

Left as it is: numbers of heads and channels that are not known, masks that may be shorter than the
keys, lengths of what is padding, scores as an output that runtimes do not agree on, and attributes
that later opsets may add.
Source: https://onnx.ai/onnx/operators/onnx__Attention.html
"""

from __future__ import annotations

import math

from onnx import NodeProto, TensorProto

from graphs.walk import attributes
from quantization.prepare.attention_masks import hide
from quantization.prepare.attention_steps import (
    MASK,
    PAST_KEY,
    PAST_VALUE,
    PRESENT_KEY,
    PRESENT_VALUE,
    SCORES,
    UNPADDED,
    Given,
    Sizes,
    given_float,
    given_int,
    is_made,
    read,
)
from quantization.prepare.writer import Steps, Writer

__all__ = ["write_attention"]

_SHORTER_MASKS = 24  # the opset whose masks may end before the keys do
_PRODUCTS, _PROBABILITIES = 0, 3  # what the scores are, of qk_matmul_output_mode
_ATTRIBUTES = {
    *("is_causal", "left_window_size", "right_window_size", "scale", "softcap"),
    *("kv_num_heads", "q_num_heads", "qk_matmul_output_mode", "softmax_precision"),
}


def write_attention(writer: Writer, node: NodeProto) -> list[NodeProto]:
    """The nodes that take the place of an Attention; none where it stays."""
    given = attributes(node)
    sizes = _sizes(writer, node, given)
    mask = read(node, MASK)
    if sizes is None or not _is_known(writer, node, given):
        return []
    if mask and not _fits(writer, node, mask, sizes):
        return []
    step = Steps(writer, node)
    query, key, value = _by_heads(step, sizes)
    products = _products(step, sizes, given, query, key)
    scores, sighted = hide(step, sizes, given, query, _capped(step, given, products))
    wanted = SCORES if is_made(node, SCORES) else None
    shares = given_int(given, "qk_matmul_output_mode", _PRODUCTS) == _PROBABILITIES
    if sighted and shares and wanted:
        shown = step("Softmax", scores, axis=-1)
        probabilities, sighted = step("Mul", shown, sighted, makes=wanted), ""
    else:
        probabilities = step("Softmax", scores, makes=wanted if shares else None, axis=-1)
    folded = writer.rank(node.input[0]) == 3
    last = None if folded else 0
    found = step("MatMul", probabilities, value, makes=None if sighted else last)
    if sighted:
        found = step("Mul", found, sighted, makes=last)
    if folded:
        shape = step.constant("joined", [0, 0, -1])
        step("Reshape", step("Transpose", found, perm=[0, 2, 1, 3]), shape, makes=0)
    return step.written


def _by_heads(step: Steps, sizes: Sizes) -> tuple[str, str, str]:
    """Q, Kᵀ and V as (N, heads, …), with those of the past."""
    node, writer = step.node, step.writer
    query, key, value = node.input[:3]
    plain = sizes.heads == sizes.keyed and not _keeps(node)
    if writer.rank(query) == 3:
        own = step.constant("heads", [0, 0, sizes.heads, -1])
        keyed = own if plain else step.constant("keyed", [0, 0, sizes.keyed, -1])
        turned = [0, 2, 3, 1] if plain else [0, 2, 1, 3]
        query = step("Transpose", step("Reshape", query, own), perm=[0, 2, 1, 3])
        key = step("Transpose", step("Reshape", key, keyed), perm=turned)
        value = step("Transpose", step("Reshape", value, keyed), perm=[0, 2, 1, 3])
        if plain:
            return query, key, value
    key = _shared(step, sizes, _with_past(step, key, PAST_KEY), sizes.channels)
    value = _shared(step, sizes, _with_past(step, value, PAST_VALUE), sizes.values)
    return query, step("Transpose", key, perm=[0, 1, 3, 2]), value


def _with_past(step: Steps, tensor: str, index: int) -> str:
    """Keys or values behind those of the past; what is asked for as the next past is made here."""
    past = read(step.node, index)
    output = index - PAST_KEY + PRESENT_KEY
    makes = output if is_made(step.node, output) else None
    if past:
        return step("Concat", past, tensor, makes=makes, axis=2)
    return tensor if makes is None else step("Identity", tensor, makes=makes)


def _shared(step: Steps, sizes: Sizes, tensor: str, channels: int) -> str:
    """Keys or values once for each head of the queries: neighbours share."""
    if sizes.heads == sizes.keyed:
        return tensor
    times = step.constant("shared", [1, 1, sizes.heads // sizes.keyed, 1, 1])
    alone = step("Unsqueeze", tensor, step.constant("group", [2]))
    shape = step.constant("repeated", [0, sizes.heads, -1, channels])
    return step("Reshape", step("Expand", alone, times), shape)


def _products(step: Steps, sizes: Sizes, given: Given, query: str, key: str) -> str:
    """Q Kᵀ * scale; the output of scores where that is what they are."""
    scale = given_float(given, "scale", 1.0 / math.sqrt(sizes.channels))
    makes = SCORES if is_made(step.node, SCORES) else None
    if given.get("qk_matmul_output_mode", 0) != _PRODUCTS:
        makes = None
    product = step("MatMul", query, key)
    return step("Mul", product, step.number("scale", scale), makes=makes)


def _capped(step: Steps, given: Given, scores: str) -> str:
    cap = given_float(given, "softcap", 0.0)
    if not cap:
        return scores
    number = step.number("cap", cap)
    return step("Mul", step("Tanh", step("Div", scores, number)), number)


def _sizes(writer: Writer, node: NodeProto, given: Given) -> Sizes | None:
    """Sizes of an attention; None where heads or channels are not known, or do not fit."""
    query, key, value = node.input[:3]
    ranks = {writer.rank(name) for name in (query, key, value)}
    if ranks == {3}:
        heads, keyed = given.get("q_num_heads"), given.get("kv_num_heads")
    elif ranks == {4}:
        heads, keyed = writer.size(query, 1), writer.size(key, 1)
    else:
        return None
    widths = [writer.size(name, -1) for name in (query, value)]
    if not (isinstance(heads, int) and isinstance(keyed, int) and heads > 0 and keyed > 0):
        return None
    parts = (heads, keyed) if ranks == {3} else (1, 1)
    channels, values = (
        width // part if width and width % part == 0 else None
        for width, part in zip(widths, parts, strict=True)
    )
    if heads % keyed or not channels or not values:
        return None
    past = read(node, PAST_KEY)
    return Sizes(
        heads=heads,
        keyed=keyed,
        channels=channels,
        values=values,
        queries=writer.size(query, -2),
        keys=writer.size(key, -2),
        past=writer.size(past, 2) if past else 0,
    )


def _is_known(writer: Writer, node: NodeProto, given: Given) -> bool:
    """Whether it reads and makes nothing but what is written here, all in float32."""
    past = [read(node, index) for index in (PAST_KEY, PAST_VALUE)]
    mode = given.get("qk_matmul_output_mode", 0)
    scores = is_made(node, SCORES)
    agreed = mode == _PROBABILITIES or (mode == _PRODUCTS and not given.get("softcap", 0.0))
    floats = [*node.input[:3], *filter(None, past)]
    return (
        given.keys() <= _ATTRIBUTES
        and all(writer.kind(name) == TensorProto.FLOAT for name in floats)
        and all(past) == any(past)
        and all(writer.rank(name) == 4 for name in filter(None, past))
        and not read(node, UNPADDED)
        and (not scores or agreed)
    )


def _fits(writer: Writer, node: NodeProto, mask: str, sizes: Sizes) -> bool:
    """Whether a mask is of a type that is known, and as long as the keys."""
    if not writer.rank(mask) or writer.kind(mask) not in (TensorProto.FLOAT, TensorProto.BOOL):
        return False
    length = writer.length(mask, -1)
    keys = sizes.seen if read(node, PAST_KEY) else writer.length(node.input[1], -2)
    return writer.opset < _SHORTER_MASKS or (length is not None and length == keys)


def _keeps(node: NodeProto) -> bool:
    """Whether there is a past, or a next one is asked for."""
    return bool(read(node, PAST_KEY)) or any(
        is_made(node, index) for index in (PRESENT_KEY, PRESENT_VALUE)
    )
