"""Transformers: a vision transformer and a BERT encoder with a mask."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from tests.networks.builder import Builder


def vit(
    *,
    size: int = 32,
    width: int = 64,
    layers: int = 2,
    heads: int = 2,
    batch: int | str = 1,
    class_last: bool = False,
    seed: int = 7,
) -> onnx.ModelProto:
    """Patches of 8×8, a class token, pre-norm blocks with GELU, logits from the class token.

    With ``class_last`` the token joins behind the positions; a free batch then hides their number.
    """
    net = Builder(seed)
    image = net.input("image", (batch, 3, size, size))
    weight = net.weight((width, 3, 8, 8), 3 * 64, 0, 1.0)
    sides = {"kernel_shape": [8, 8], "strides": [8, 8], "pads": [0] * 4}
    patches = net.op("Conv", image, weight, net.bias(width), **sides)
    tokens = net.op("Transpose", net.op("Reshape", patches, net.ints(0, width, -1)), perm=[0, 2, 1])
    count = (size // 8) ** 2 + 1
    cls = net.constant((0.5 * net.rng.standard_normal((1, 1, width))).astype(np.float32), "cls")
    if batch != 1:
        shape = net.op("Concat", _batch_of(net, image), net.ints(1), net.ints(width), axis=0)
        cls = net.op("Expand", cls, shape)
    place = (0.3 * net.rng.standard_normal((1, count, width))).astype(np.float32)
    if class_last:
        tokens = net.op("Add", tokens, net.constant(place[:, 1:], "position"))
        x = net.op("Concat", cls, tokens, axis=1)
    else:
        x = net.op("Add", net.op("Concat", cls, tokens, axis=1), net.constant(place, "position"))
    length = 0 if class_last else count
    for _ in range(layers):
        x = net.op("Add", x, _attention(net, net.layer_norm(x, width), width, heads, length))
        hidden = net.gelu(net.linear(net.layer_norm(x, width), width, 4 * width))
        x = net.op("Add", x, net.linear(hidden, 4 * width, width))
    token = net.op("Gather", net.layer_norm(x, width), net.constant(np.int64(0), "first"), axis=1)
    return net.build("vit", net.gemm(token, width, 20))


def bert(
    *,
    length: int | str = 16,
    width: int = 64,
    layers: int = 2,
    heads: int = 2,
    vocabulary: int = 100,
    batch: int | str = 1,
    seed: int = 8,
) -> onnx.ModelProto:
    """Token ids and an attention mask in, hidden states out; post-norm blocks with GELU."""
    net = Builder(seed)
    ids = net.input("input_ids", (batch, length), TensorProto.INT64)
    mask = net.input("attention_mask", (batch, length), TensorProto.INT64)
    table = net.constant(net.rng.standard_normal((vocabulary, width)).astype(np.float32), "table")
    x = net.layer_norm(net.op("Gather", table, ids, axis=0), width)
    allowed = net.op("Cast", net.op("Unsqueeze", mask, net.ints(1, 2)), to=TensorProto.FLOAT)
    bias = net.op("Mul", net.op("Sub", net.scalar(1.0), allowed), net.scalar(-10000.0))
    size = length if isinstance(length, int) else 0
    for _ in range(layers):
        y = _attention(net, x, width, heads, size, bias=bias)
        x = net.layer_norm(net.op("Add", y, x), width)
        hidden = net.gelu(net.linear(x, width, 4 * width))
        x = net.layer_norm(net.op("Add", net.linear(hidden, 4 * width, width), x), width)
    return net.build("bert", x)


def sliced_attention(
    *, heads: int = 2, way: str = "split", width: int = 64, length: int = 16, values: bool = True
) -> onnx.ModelProto:
    """Attention whose Q, K and V one product makes; ``n_MatMul_0``, then ``_1`` and ``_2``.

    Without ``values`` the probabilities are what is asked for, and nothing reads V.
    """
    net = Builder()
    size = width // heads
    x = net.linear(net.input("x", (1, length, width)), width, 3 * width)
    if way == "slice":
        cut = [
            net.op("Slice", x, net.ints(n * width), net.ints((n + 1) * width), net.ints(2))
            for n in range(3)
        ]
        parts = [net.op("Reshape", part, net.ints(1, length, heads, size)) for part in cut]
        q, k, v = (net.op("Transpose", part, perm=[0, 2, 1, 3]) for part in parts)
    else:
        x = net.op("Reshape", x, net.ints(1, length, 3, heads, size))
        x = net.op("Transpose", x, perm=[2, 0, 3, 1, 4])
        if way == "gather":
            q, k, v = (
                net.op("Gather", x, net.constant(np.int64(n), "n"), axis=0) for n in range(3)
            )
        else:
            first = net.op("Split", x, outputs=3, axis=0)
            cut = (first, f"{first}.1", f"{first}.2")
            q, k, v = (net.op("Squeeze", part, net.ints(0)) for part in cut)
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = net.op("Div", scores, net.scalar(float(np.sqrt(size))))
    found = net.op("Softmax", scores, axis=-1)
    if not values:
        seen = net.op("ReduceMean", found, axes=[1], keepdims=0)
        return net.build("seen", net.linear(net.linear(seen, length, width), width, width))
    mixed = net.op("MatMul", found, v)
    y = net.op("Reshape", net.op("Transpose", mixed, perm=[0, 2, 1, 3]), net.ints(1, length, width))
    return net.build("fused", net.linear(net.relu(net.linear(y, width, width)), width, width))


def cross_attention(
    *, queries: int = 16, keys: int = 16, heads: int = 2, size: int = 32
) -> onnx.ModelProto:
    """Positions of one input attend to those of another; ``n_MatMul_3`` and ``_4``, GELU behind."""
    net = Builder()
    width = heads * size
    x = net.layer_norm(net.input("x", (1, queries, width)), width)
    memory = net.layer_norm(net.input("memory", (1, keys, width)), width)
    q, k, v = (
        net.op(
            "Transpose",
            net.op("Reshape", net.linear(t, width, width), net.ints(1, length, heads, size)),
            perm=[0, 2, 1, 3],
        )
        for t, length in ((x, queries), (memory, keys), (memory, keys))
    )
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = net.op("Div", scores, net.scalar(float(np.sqrt(size))))
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    mixed = net.op("Transpose", mixed, perm=[0, 2, 1, 3])
    y = net.op("Reshape", mixed, net.ints(1, queries, width))
    y = net.op("Add", x, net.linear(y, width, width))
    return net.build(
        "cross", net.linear(net.gelu(net.linear(y, width, 2 * width)), 2 * width, width)
    )


def _attention(
    net: Builder, x: str, width: int, heads: int, length: int, bias: str | None = None
) -> str:
    """Multi-head attention; ``length`` 0 stands for a dynamic one."""
    size = width // heads
    split = net.ints(0, length or 0, heads, size)
    q, k, v = (net.op("Reshape", net.linear(x, width, width), split) for _ in range(3))
    q, v = (net.op("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 3, 1]))
    scores = net.op("Div", scores, net.scalar(float(np.sqrt(size))))
    if bias is not None:
        scores = net.op("Add", scores, bias)
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    joined = net.op("Transpose", mixed, perm=[0, 2, 1, 3])
    return net.linear(net.op("Reshape", joined, net.ints(0, length or 0, width)), width, width)


def _batch_of(net: Builder, x: str) -> str:
    return net.op("Slice", net.op("Shape", x), net.ints(0), net.ints(1))
