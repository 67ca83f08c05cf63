"""One small model that breaks each lint rule, and clean ones; in ONNX's text form."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from graphs.walk import walk

_PAIR = "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) "
_WEIGHT = "wd = DequantizeLinear <axis=0> (wq, ws, wz) "
_CONV = _PAIR + _WEIGHT + "c = Conv <pads=[1,1,1,1]> (d, wd, b) "
_SQUARE = _PAIR + "vd = DequantizeLinear <axis=0> (vq, vs, vz) "
_CLEAN = _CONV + "y = Relu (c)"
_SECOND = "q2 = QuantizeLinear ({0}, s2, z) d2 = DequantizeLinear (q2, {1}, z) "

# rule → (body, constants that differ, opset)
BROKEN: dict[str, tuple[str, dict[str, Any], int]] = {
    "zero-point": (_CLEAN, {"z": np.int8(3)}, 17),
    "uint8": (_CLEAN, {"z": np.uint8(0)}, 17),
    "int16": (_CLEAN, {"z": np.int16(0)}, 21),
    "int32-dequantize": (
        _PAIR + _WEIGHT + "bd = DequantizeLinear (bq, s) y = Conv <pads=[1,1,1,1]> (d, wd, bd)",
        {},
        17,
    ),
    "code-constant": (
        _PAIR
        + "k = Clip (wq, low, high) wd = DequantizeLinear <axis=0> (k, ws, wz) "
        + "y = Conv <pads=[1,1,1,1]> (d, wd, b)",
        {},
        17,
    ),
    "integer-operator": (
        "q = QuantizeLinear (x, s, z) c = QLinearConv <pads=[1,1,1,1]> (q, s, z, wq, ws, wz, s, z) "
        "y = DequantizeLinear (c, s, z)",
        {},
        17,
    ),
    "scale-value": (_CLEAN, {"s": np.float32(0)}, 17),
    "scale-constant": (
        "a = Abs (x) m = ReduceMax <keepdims=0> (a) q = QuantizeLinear (x, m, z) "
        "d = DequantizeLinear (q, m, z) " + _WEIGHT + "y = Conv <pads=[1,1,1,1]> (d, wd, b)",
        {},
        17,
    ),
    "scale-count": (
        _PAIR + "wd = DequantizeLinear <axis=0> (wq, s3, z3) y = Conv <pads=[1,1,1,1]> (d, wd, b)",
        {},
        17,
    ),
    "weight-axis": (
        _PAIR + "wd = DequantizeLinear <axis=1> (wq, vs, vz) y = Conv <pads=[1,1,1,1]> (d, wd, b)",
        {},
        17,
    ),
    "custom-operator": ("y = my.Blur (x)", {}, 17),
    "unsupported-operator": ("k = Det (x) y = Unsqueeze (k, axes)", {}, 17),
    "unsupported-setting": ("y = MaxPool <kernel_shape=[2,2], dilations=[2,2]> (x)", {}, 17),
    "unsupported-type": (
        "k = Cast <to=6> (x) r = Resize (k, , halves) y = Cast <to=1> (r)",
        {},
        17,
    ),
    "missing-plugin": (
        "n = NonZero (x) f = Cast <to=1> (n) y = Unsqueeze (f, axes)",
        {},
        17,
    ),
    "missing-kernel": (
        "b4 = Reshape (x, boxes) m = ReduceMax <axes=[2]> (b4) t = Transpose <perm=[0,2,1]> (m) "
        "n = NonMaxSuppression (b4, t, most) f = Cast <to=1> (n) y = Unsqueeze (f, axes)",
        {},
        17,
    ),
    "many-chosen": (
        "f = Reshape (x, flat) t, k = TopK <axis=1> (f, many) y = Unsqueeze (t, axes)",
        {},
        17,
    ),
    "changing-rank": (
        "m = ReduceMax <keepdims=0> (x) k = Greater (m, half) i = If (k) "
        "<then_branch = t () => (float[N,8,1,1] u) { u = GlobalMaxPool (x) }, "
        "else_branch = e () => (float[N,8] v) { v = ReduceMean <axes=[2,3], keepdims=0> (x) }> "
        "y = Reshape (i, again)",
        {},
        17,
    ),
    "growing-state": (
        "l = Loop (trips, yes, x) <body = b (int64 i, bool c, float[A,8,8,8] f) => "
        "(bool o, float[B,8,8,8] g) { o = Identity (c) g = Concat <axis=0> (f, row) }> "
        "y = Relu (l)",
        {},
        17,
    ),
    "scale-shape": (_CLEAN, {"s": np.full(1, 0.1, np.float32), "z": np.zeros(1, np.int8)}, 17),
    "training-mode": ("y = Dropout (x, half, yes)", {}, 17),
    "unpaired": ("q = QuantizeLinear (x, s, z) y = Cast <to=1> (q)", {}, 17),
    "half-quantized": (_PAIR + "y = Conv <pads=[1,1,1,1]> (d, w, b)", {}, 17),
    "float-island": (
        _SQUARE
        + "c = Conv <pads=[1,1,1,1]> (d, vd) e = Conv <pads=[1,1,1,1]> (c, v) "
        + _SECOND.format("e", "s2")
        + _WEIGHT
        + "y = Conv <pads=[1,1,1,1]> (d2, wd, b)",
        {},
        17,
    ),
    "pair-before-add": (
        _SQUARE
        + "c = Conv <pads=[1,1,1,1]> (d, vd) "
        + _SECOND.format("c", "s2")
        + "y = Add (d2, x)",
        {},
        17,
    ),
    "skip-float": (_SQUARE + "c = Conv <pads=[1,1,1,1]> (d, vd) y = Add (c, x)", {}, 17),
    "pair-before-activation": (_CONV + _SECOND.format("c", "s2") + "y = Relu (d2)", {}, 17),
    "concat-scales": (
        _PAIR + "r = Relu (x) " + _SECOND.format("r", "s2") + "y = Concat <axis=1> (d, d2)",
        {},
        17,
    ),
    "output-pair": (
        _PAIR + "q1 = QuantizeLinear (d, s, z) y = DequantizeLinear (q1, s, z)",
        {},
        17,
    ),
    "per-channel-activation": (
        "q = QuantizeLinear <axis=1> (x, vs, vz) d = DequantizeLinear <axis=1> (q, vs, vz) "
        "y = Relu (d)",
        {},
        17,
    ),
    "mismatched-pair": (
        "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s2, z) y = Relu (d)",
        {},
        17,
    ),
    "minimum-code": (_CLEAN, {"wq": np.full((16, 8, 3, 3), -128, np.int8)}, 17),
    "per-tensor-weight": (
        _PAIR + "wd = DequantizeLinear (wq, s, z) y = Conv <pads=[1,1,1,1]> (d, wd, b)",
        {},
        17,
    ),
    "scale-range": (_CLEAN, {"s": np.float32(1e-40)}, 17),
}

CLEAN: dict[str, tuple[str, dict[str, Any], int]] = {
    "floating point": ("c = Conv <pads=[1,1,1,1]> (x, w, b) y = Relu (c)", {}, 13),
    "conv": (_CLEAN, {}, 17),
    "conv, opset 13": (_CLEAN, {}, 13),
    "conv, opset 21": (_CLEAN, {}, 21),
    "float weight behind a pair": (
        _PAIR
        + "k = QuantizeLinear <axis=0> (w, ws, wz) wd = DequantizeLinear <axis=0> (k, ws, wz) "
        + "c = Conv <pads=[1,1,1,1]> (d, wd, b) y = Relu (c)",
        {},
        17,
    ),
    "codes reshaped": (
        "q = QuantizeLinear (x, s, z) p = Transpose <perm=[0,1,3,2]> (q) "
        "d = DequantizeLinear (p, s, z) " + _WEIGHT + "y = Conv <pads=[1,1,1,1]> (d, wd, b)",
        {},
        17,
    ),
    "resized to sizes of all axes": (
        "k = Shape <end=2> (x) e = Concat <axis=0> (k, sides) y = Resize (x, , , e)",
        {},
        18,
    ),
    "resized by scales of some axes": (
        "y = Resize <axes=[2,3]> (x, , twice)",
        {"twice": np.array([2, 2], np.float32)},
        18,
    ),
    "residual": (
        _SQUARE
        + "c = Conv <pads=[1,1,1,1]> (d, vd) a = Add (c, d) r = Relu (a) "
        + _SECOND.format("r", "s2")
        + _WEIGHT
        + "y = Conv <pads=[1,1,1,1]> (d2, wd, b)",
        {},
        17,
    ),
    "transposed convolution": (
        _PAIR + "td = DequantizeLinear <axis=1> (tq, ws, wz) y = ConvTranspose (d, td, b)",
        {},
        17,
    ),
    "concat": (
        _PAIR
        + "r = Relu (x) k = QuantizeLinear (r, s, z) e = DequantizeLinear (k, s, z) "
        + "y = Concat <axis=1> (d, e)",
        {},
        17,
    ),
    "constant node for a scale": (
        "s1 = Constant <value_float=0.1> () q = QuantizeLinear (x, s1, z) "
        "d = DequantizeLinear (q, s1, z) y = Relu (d)",
        {},
        17,
    ),
}


# What is found → body, constants that differ, opset: read by no parser of TensorRT-RTX.
def lint_model(body: str, constants: dict[str, Any], opset: int) -> onnx.ModelProto:
    """A model from x (N, 8, 8, 8) to y."""
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}, "my" : 1]> '
        f"lint (float[N,8,8,8] x) => (float[A,B,C,D] y) {{ {body} }}"
    )
    if "my." not in body:
        del model.opset_import[1:]
    values = _CONSTANTS | constants
    reads = {name for node in walk(model) for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(values[name]), name)
        for name in sorted(reads & set(values))
    )
    for node in model.graph.node:
        node.name = f"{node.op_type}:{node.output[0]}"
    return model


_RNG = np.random.default_rng(0)  # structure is what is tested; the numbers are any
_CONSTANTS: dict[str, Any] = {
    "s": np.float32(0.1),
    "s2": np.float32(0.2),
    "z": np.int8(0),
    "w": _RNG.normal(size=(16, 8, 3, 3)).astype(np.float32),
    "v": _RNG.normal(size=(8, 8, 3, 3)).astype(np.float32),
    "b": _RNG.normal(size=16).astype(np.float32),
    "wq": _RNG.integers(-127, 128, (16, 8, 3, 3)).astype(np.int8),
    "vq": _RNG.integers(-127, 128, (8, 8, 3, 3)).astype(np.int8),
    "tq": _RNG.integers(-127, 128, (8, 16, 3, 3)).astype(np.int8),
    "ws": np.full(16, 0.01, np.float32),
    "wz": np.zeros(16, np.int8),
    "vs": np.full(8, 0.01, np.float32),
    "vz": np.zeros(8, np.int8),
    "s3": np.full(3, 0.01, np.float32),
    "z3": np.zeros(3, np.int8),
    "low": np.int8(-127),
    "high": np.int8(127),
    "bq": np.zeros(16, np.int32),
    "boxes": np.array([0, 128, 4]),
    "flat": np.array([1, -1]),
    "again": np.array([-1, 8, 1, 1]),
    "many": np.array([4000]),
    "trips": np.array(3),
    "halves": np.array([1, 1, 0.5, 0.5], np.float32),
    "roi": np.array([0, 0, 0.1, 0.1, 1, 1, 0.9, 0.9], np.float32),
    "sides": np.array([6, 12]),
    "first": np.array([[0]]),
    "places": np.zeros((1, 8, 8, 8), np.int64),
    "row": np.ones((1, 8, 8, 8), np.float32),
    "most": np.array([5]),
    "half": np.float32(0.5),
    "box": np.array([[0, 0, 4, 4]], np.float32),
    "which": np.array([0]),
    "yes": np.array(True),
    "axes": np.array([2, 3]),
}


def with_domain(domain: str, body: str) -> onnx.ModelProto:
    """A model of one operator of a domain of ONNX's, which is not checked: ONNX may lack it."""
    return parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17, "{domain}" : 1]> '
        f"g (float[2, 4] x) => (float[2, 4] y) {{ {body} }}"
    )
