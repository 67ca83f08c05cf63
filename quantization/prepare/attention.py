"""ONNX's operator Attention (opset 23), written as the products and the Softmax that it is.

As one operator it is float for placement, and TensorRT-RTX 1.7.1 takes it in few forms: no heads of
8 channels, none that share keys, no soft cap, no outputs but the first, and its builder ends in a
crash where one tensor is Q, K and V. Written out, it is the attention that runtimes fuse and
placement knows:

    Y = Softmax(cap(Q Kᵀ * scale) + mask) V,     scale = 1 / sqrt(channels of a head) by default
    cap(S) = softcap * Tanh(S / softcap) where there is one
    K, V = the past's, then these; each for several heads where queries have more

Left as it is: numbers of heads and channels that are not known, masks that may be shorter than the
keys, lengths of what is padding, scores as an output that runtimes do not agree on.
Source: https://onnx.ai/onnx/operators/onnx__Attention.html
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from onnx import NodeProto, TensorProto

from graphs.walk import attributes
from quantization.prepare.writer import Writer

__all__ = ["write_attention"]

_SHORTER_MASKS = 24  # the opset whose masks may end before the keys do
_NOTHING = -65504.0
"""Score of what is masked: no probability beside any other, and finite in float16, where a row that
is masked altogether would become NaN."""
_MASK, _PAST_KEY, _PAST_VALUE, _UNPADDED = 3, 4, 5, 6  # inputs
_PRESENT_KEY, _PRESENT_VALUE, _SCORES = 1, 2, 3  # outputs
_PRODUCTS, _PROBABILITIES = 0, 3  # what the scores are, of qk_matmul_output_mode


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """Heads of queries and of keys, channels of each, and positions: None where a length is free.

    ``values`` are the channels of V, ``past`` the positions before these: 0 where there are none.
    """

    heads: int
    keyed: int
    channels: int
    values: int
    queries: int | None
    keys: int | None
    past: int | None

    @property
    def seen(self) -> int | None:
        """Positions that are attended to."""
        return None if self.keys is None or self.past is None else self.keys + self.past


class _Steps:
    """The nodes that take the place of an Attention, one after the other."""

    def __init__(self, writer: Writer, node: NodeProto) -> None:
        self.writer, self.node = writer, node
        self.written: list[NodeProto] = []

    def __call__(self, op_type: str, *inputs: str, makes: int | None = None, **more: object) -> str:
        """One more node; ``makes`` is the output of the Attention that it makes."""
        last = makes is not None
        step = self.writer.step(self.node, op_type, inputs, last=last, makes=makes or 0, **more)
        self.written.append(step)
        return str(step.output[0])

    def constant(self, word: str, value: ArrayLike) -> str:
        return self.writer.constant(self.node, word, value, np.int64)

    def number(self, word: str, value: ArrayLike) -> str:
        return self.writer.constant(self.node, word, value, np.float32)


def write_attention(writer: Writer, node: NodeProto) -> list[NodeProto]:
    """The nodes that take the place of an Attention; none where it stays."""
    given = attributes(node)
    sizes = _sizes(writer, node, given)
    mask = _read(node, _MASK)
    if sizes is None or not _is_known(writer, node, given):
        return []
    if mask and not _fits(writer, node, mask, sizes):
        return []
    step = _Steps(writer, node)
    query, key, value = _by_heads(step, sizes)
    products = _products(step, sizes, given, query, key)
    scores = _masked(step, _capped(step, given, products), mask)
    if given.get("is_causal", 0):
        scores = step("Add", scores, _later_positions(step, sizes, query))
    folded = writer.rank(node.input[0]) == 3
    wanted = _SCORES if _made(node, _SCORES) else None
    shares = given.get("qk_matmul_output_mode", 0) == _PROBABILITIES
    probabilities = step("Softmax", scores, makes=wanted if shares else None, axis=-1)
    found = step("MatMul", probabilities, value, makes=None if folded else 0)
    if folded:
        shape = step.constant("joined", [0, 0, -1])
        step("Reshape", step("Transpose", found, perm=[0, 2, 1, 3]), shape, makes=0)
    return step.written


def _by_heads(step: _Steps, sizes: _Sizes) -> tuple[str, str, str]:
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
    key = _shared(step, sizes, _with_past(step, key, _PAST_KEY), sizes.channels)
    value = _shared(step, sizes, _with_past(step, value, _PAST_VALUE), sizes.values)
    return query, step("Transpose", key, perm=[0, 1, 3, 2]), value


def _with_past(step: _Steps, tensor: str, index: int) -> str:
    """Keys or values behind those of the past; what is asked for as the next past is made here."""
    past = _read(step.node, index)
    output = index - _PAST_KEY + _PRESENT_KEY
    makes = output if _made(step.node, output) else None
    if past:
        return step("Concat", past, tensor, makes=makes, axis=2)
    return tensor if makes is None else step("Identity", tensor, makes=makes)


def _shared(step: _Steps, sizes: _Sizes, tensor: str, channels: int) -> str:
    """Keys or values once for each head of the queries: neighbours share."""
    if sizes.heads == sizes.keyed:
        return tensor
    times = step.constant("shared", [1, 1, sizes.heads // sizes.keyed, 1, 1])
    alone = step("Unsqueeze", tensor, step.constant("group", [2]))
    shape = step.constant("repeated", [0, sizes.heads, -1, channels])
    return step("Reshape", step("Expand", alone, times), shape)


def _products(
    step: _Steps, sizes: _Sizes, given: Mapping[str, object], query: str, key: str
) -> str:
    """Q Kᵀ * scale; the output of scores where that is what they are."""
    scale = _float(given, "scale", 1.0 / math.sqrt(sizes.channels))
    makes = _SCORES if _made(step.node, _SCORES) else None
    if given.get("qk_matmul_output_mode", 0) != _PRODUCTS:
        makes = None
    product = step("MatMul", query, key)
    return step("Mul", product, step.number("scale", scale), makes=makes)


def _capped(step: _Steps, given: Mapping[str, object], scores: str) -> str:
    cap = _float(given, "softcap", 0.0)
    if not cap:
        return scores
    number = step.number("cap", cap)
    return step("Mul", step("Tanh", step("Div", scores, number)), number)


def _masked(step: _Steps, scores: str, mask: str) -> str:
    if mask and step.writer.kind(mask) == TensorProto.BOOL:
        return step("Where", mask, scores, step.number("masked", _NOTHING))
    return step("Add", scores, mask) if mask else scores


def _later_positions(step: _Steps, sizes: _Sizes, query: str) -> str:
    """What hides from each query the keys behind it; those of the past are before all."""
    if sizes.queries and sizes.seen and sizes.past is not None:
        before = np.tri(sizes.queries, sizes.seen, sizes.past)
        return step.number("causal", np.where(before, 0.0, _NOTHING))
    zero, one = step.constant("zero", 0), step.constant("one", 1)

    def length(tensor: str, axis: int) -> str:
        return step("Squeeze", step("Shape", tensor, start=axis, end=axis + 1))

    positions = step("Range", zero, length(query, 2), one)
    key = step.node.input[1]
    keys = length(key, 1 if step.writer.rank(key) == 3 else 2)
    if past := _read(step.node, _PAST_KEY):
        earlier = length(past, 2)
        positions, keys = step("Add", positions, earlier), step("Add", keys, earlier)
    rows = step("Unsqueeze", positions, step.constant("column", [1]))
    seen = step("LessOrEqual", step("Range", zero, keys, one), rows)
    return step("Where", seen, step.number("seen", 0.0), step.number("causal", _NOTHING))


def _sizes(writer: Writer, node: NodeProto, given: Mapping[str, object]) -> _Sizes | None:
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
    past = _read(node, _PAST_KEY)
    return _Sizes(
        heads=heads,
        keyed=keyed,
        channels=channels,
        values=values,
        queries=writer.size(query, -2),
        keys=writer.size(key, -2),
        past=writer.size(past, 2) if past else 0,
    )


def _is_known(writer: Writer, node: NodeProto, given: Mapping[str, object]) -> bool:
    """Whether it reads and makes nothing but what is written here, all in float32."""
    past = [_read(node, index) for index in (_PAST_KEY, _PAST_VALUE)]
    mode = given.get("qk_matmul_output_mode", 0)
    scores = _made(node, _SCORES)
    agreed = mode == _PROBABILITIES or (mode == _PRODUCTS and not given.get("softcap", 0.0))
    floats = [*node.input[:3], *filter(None, past)]
    return (
        all(writer.kind(name) == TensorProto.FLOAT for name in floats)
        and all(past) == any(past)
        and all(writer.rank(name) == 4 for name in filter(None, past))
        and not _read(node, _UNPADDED)
        and (not scores or agreed)
    )


def _fits(writer: Writer, node: NodeProto, mask: str, sizes: _Sizes) -> bool:
    """Whether a mask is of a type that is known, and as long as the keys."""
    if not writer.rank(mask) or writer.kind(mask) not in (TensorProto.FLOAT, TensorProto.BOOL):
        return False
    length = writer.length(mask, -1)
    keys = sizes.seen if _read(node, _PAST_KEY) else writer.length(node.input[1], -2)
    return writer.opset < _SHORTER_MASKS or (length is not None and length == keys)


def _keeps(node: NodeProto) -> bool:
    """Whether there is a past, or a next one is asked for."""
    return bool(_read(node, _PAST_KEY)) or any(
        _made(node, index) for index in (_PRESENT_KEY, _PRESENT_VALUE)
    )


def _float(given: Mapping[str, object], name: str, default: float) -> float:
    value = given.get(name, default)
    return value if isinstance(value, float) else default


def _read(node: NodeProto, index: int) -> str:
    return str(node.input[index]) if len(node.input) > index else ""


def _made(node: NodeProto, index: int) -> bool:
    return len(node.output) > index and bool(node.output[index])
