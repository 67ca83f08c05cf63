"""Models as old and odd exporters write them, in ONNX's text form, and a plain way to run one."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import parser

Feeds = dict[str, np.ndarray]

# Name → body. Each reads x and makes y; weights named w* are filled with random numbers.
_BODIES: dict[str, tuple[int, str]] = {
    # PyTorch 1.0 to 1.4: attributes that became inputs later
    "opset9_upsample_nearest": (9, 'y = Upsample <mode="nearest"> (x, s)'),
    "opset9_upsample_linear": (9, 'y = Upsample <mode="linear"> (x, s)'),
    "opset10_resize_linear": (10, 'y = Resize <mode="linear"> (x, s)'),
    "opset10_resize_nearest": (10, 'y = Resize <mode="nearest"> (x, t)'),
    "opset10_resize_shrink": (10, 'y = Resize <mode="nearest"> (x, h)'),
    "opset7_upsample": (7, 'y = Upsample <mode="nearest", scales=[1.0,1.0,2.0,2.0]> (x)'),
    "opset9_slice": (9, "y = Slice <axes=[2], starts=[1], ends=[3]> (x)"),
    "opset10_pad_clip": (
        10,
        "p = Pad <pads=[0,0,1,1,0,0,1,1]> (x) y = Clip <min=0.0, max=0.5> (p)",
    ),
    "opset7_dropout": (7, "y = Dropout <ratio=0.5> (x)"),
    "opset8_batchnorm": (8, "c = Conv (x, w) y = BatchNormalization (c, g, b, m, v)"),
    "opset11_softmax": (11, "y = Softmax <axis=1> (x)"),
    "opset9_topk": (9, "y, i = TopK <k=2> (x)"),
    "opset12_squeeze": (12, "r = ReduceSum <axes=[2], keepdims=1> (x) y = Squeeze <axes=[2]> (r)"),
    "opset12_dropout_mask": (12, "d, k = Dropout (x) y = Where (k, d, x)"),
    # tf2onnx and Keras: channels last around each convolution, BatchNormalization taken apart
    "tf_transposes": (
        13,
        "a = Transpose <perm=[0,2,3,1]> (x) b2 = Transpose <perm=[0,3,1,2]> (a) c = Conv (b2, w) "
        "d = Mul (c, s4) e = Add (d, o4) y = Relu (e)",
    ),
    "keras_dense": (13, "f = Flatten (x) c = MatMul (f, wd) d = Add (c, bd) y = Mul (d, gd)"),
    "tf_sub_div": (13, "c = Conv (x, w) d = Sub (c, o4) e = Div (d, s4) y = Sub (o4, e)"),
    # weights computed in the graph, Constant nodes, identities
    "weight_transposed": (13, "t2 = Transpose <perm=[1,0,2,3]> (wt) y = Conv (x, t2)"),
    "weight_tied": (
        13,
        "i = Identity (w) a = Conv <pads=[1,1,1,1]> (x, w) k = Conv <pads=[1,1,1,1]> (x, i) "
        "y = Add (a, k)",
    ),
    "batchnorm_shares_weight": (
        13,
        "a = Conv (x, w) k = Conv (x, w) n = BatchNormalization (a, g, b, m, v) y = Add (n, k)",
    ),
    "batchnorm_read_twice": (
        13,
        "c = Conv (x, w) n = BatchNormalization (c, g, b, m, v) y = Add (c, n)",
    ),
    "batchnorm_first": (13, "n = BatchNormalization (x, g, b, m, v) y = Conv (n, w)"),
    "batchnorm_transposed": (
        13,
        "c = ConvTranspose (x, w) n = BatchNormalization (c, g, b, m, v) y = Relu (n)",
    ),
    "batchnorm_gemm": (
        13,
        "f = Flatten (x) c = Gemm <alpha=0.5, beta=2.0> (f, wd, bd) "
        "y = BatchNormalization (c, gd, bd, md, vd)",
    ),
    "batchnorm_gemm_transposed": (
        13,
        "f = Flatten (x) c = Gemm <transB=1> (f, wg) y = BatchNormalization (c, gd, bd, md, vd)",
    ),
    "batchnorm_training": (
        14,
        "c = Conv (x, w) y, u1, u2 = BatchNormalization <training_mode=1> (c, g, b, m, v)",
    ),
    "constants": (
        13,
        "one = Constant <value_float=1.0> () a = Mul (x, one) z = Constant <value_int=0> () "
        "s0 = Shape (a) n = Gather (s0, z) ax = Constant <value_ints=[0]> () "
        "n1 = Unsqueeze (n, ax) l = Constant <value_ints=[-1]> () "
        "q = Concat <axis=0> (n1, l) y = Reshape (a, q)",
    ),
    "noops": (
        13,
        "a = Identity (x) k = Cast <to=1> (a) d = Dropout (k) t0 = Transpose <perm=[0,1,2,3]> (d) "
        "p0 = Pad (t0, zero8) r = Relu (p0) c1 = Concat <axis=0> (r) y = Identity (c1)",
    ),
    "all_noops": (13, "a = Identity (x) y = Identity (a)"),
    "output_is_read": (13, "y = Relu (x) z = Identity (y)"),
    "reversed_slice": (13, "y = Slice (x, st, en, ax1, neg)"),
    "mul_by_one_adds_axis": (13, "k = ReduceSum <keepdims=0> (x) y = Mul (k, one1)"),
    "resnet_shape_maths": (
        13,
        "s0 = Shape (x) lo = Constant <value_ints=[1]> () hi = Constant <value_ints=[4]> () "
        "t0 = Slice (s0, lo, hi) f = ReduceProd <keepdims=1> (t0) "
        "l = Constant <value_ints=[-1]> () "
        "q = Concat <axis=0> (l, f) y = Reshape (x, q)",
    ),
    # sequences, as TorchScript exports chunk and stack
    "chunks": (
        13,
        "s0 = SplitToSequence <axis=1> (x, two) c0 = SequenceAt (s0, first) "
        "c1 = SequenceAt (s0, last) l = SequenceConstruct (c1, c0) "
        "j = ConcatFromSequence <axis=1> (l) y = Conv (j, w)",
    ),
    # control flow
    "if_constant": (
        13,
        "y = If (yes) <then_branch = t1 () => (float[N,C,H,W] o) {r = Relu (x) o = Conv (r, w)}, "
        "else_branch = e1 () => (float[N,C,H,W] o) {o = Identity (x)}>",
    ),
    "if_dynamic": (
        15,
        "i = Identity (x) k = ReduceMax <keepdims=0> (i) z = CastLike (zero, k) "
        "big = Greater (k, z) "
        "y = If (big) <then_branch = t1 () => (float[N,C,H,W] o) {o = Relu (i)}, "
        "else_branch = e1 () => (float[N,C,H,W] o) {o = Neg (i)}>",
    ),
    "loop": (
        13,
        "i = Identity (x) y = Loop (three, yes, i) <body = b1 "
        "(int64 n, bool go, float[N,C,H,W] s) => (bool on, float[N,C,H,W] o) "
        "{on = Identity (go) o = Add (s, i)}>",
    ),
    "lstm": (
        13,
        "f = Reshape (x, seq) o, oh, oc = LSTM <hidden_size=5> (f, wl, wr) y = Squeeze (o, ax1)",
    ),
}

_SHAPES = {
    "w": (4, 4, 3, 3),
    "wt": (4, 4, 3, 3),
    "wd": (64, 6),
    "wg": (6, 64),
    "wl": (1, 20, 16),
    "wr": (1, 20, 5),
}
_VECTORS = {"g": 4, "b": 4, "m": 4, "gd": 6, "bd": 6, "md": 6}
_INTEGERS = {
    "zero8": [0] * 8,
    "st": [-1],
    "en": [-(2**31)],
    "ax1": [1],
    "neg": [-1],
    "three": 3,
    "two": 2,
    "first": 0,
    "last": -1,
    "seq": [4, -1, 16],
}
NAMES = tuple(_BODIES)


def odd_model(name: str, rng: np.random.Generator, *, batch: str = "N") -> onnx.ModelProto:
    """One of ``NAMES``; input x is (N, 4, 4, 4) with a dynamic batch."""
    opset, body = _BODIES[name]
    version = 3 if opset < 9 else 7
    text = f'<ir_version: {max(version, 4)}, opset_import: ["" : {opset}]>\n'
    model = parser.parse_model(f"{text}{name} (float[{batch},4,4,4] x) => (y) {{ {body} }}")
    reads = {read for node in model.graph.node for read in _reads(node)}
    values = _values(rng)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(values[read], read) for read in sorted(reads & set(values))
    )
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    if opset < 9:  # before IR version 4 each initializer was an input too
        model.ir_version = version
        model.graph.input.extend(
            onnx.helper.make_tensor_value_info(t.name, t.data_type, list(t.dims))
            for t in model.graph.initializer
        )
    return model


def run(model: onnx.ModelProto, feeds: Feeds) -> list[np.ndarray]:
    """Outputs of a model in onnxruntime, its own optimizations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feeds))


def random_feeds(model: onnx.ModelProto, rng: np.random.Generator, batch: int = 2) -> Feeds:
    """Normal random numbers for each input; dynamic axes get ``batch``."""
    constant = {tensor.name for tensor in model.graph.initializer}
    return {
        value.name: rng.normal(
            size=[dim.dim_value or batch for dim in value.type.tensor_type.shape.dim]
        ).astype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        for value in model.graph.input
        if value.name not in constant
    }


def _reads(node: onnx.NodeProto) -> set[str]:
    found = set(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            found |= _reads(inner)
    return found


def _values(rng: np.random.Generator) -> dict[str, np.ndarray]:
    values: dict[str, np.ndarray] = {
        name: rng.normal(size=shape).astype(np.float32) for name, shape in _SHAPES.items()
    }
    for name, size in _VECTORS.items():
        values[name] = rng.normal(size=size).astype(np.float32)
    values["v"] = rng.uniform(0.1, 2, 4).astype(np.float32)
    values["vd"] = rng.uniform(0.1, 2, 6).astype(np.float32)
    values["s4"] = rng.uniform(0.5, 2, (1, 4, 1, 1)).astype(np.float32)
    values["o4"] = rng.normal(size=(4, 1, 1)).astype(np.float32)
    values["s"] = np.array([1, 1, 2, 2], np.float32)
    values["t"] = np.array([1, 1, 1.5, 2.5], np.float32)
    values["h"] = np.array([1, 1, 0.5, 0.5], np.float32)
    values["one1"] = np.ones((1,), np.float32)
    values["zero"] = np.zeros((), np.float32)
    values["yes"] = np.array(True)
    values |= {name: np.array(value, np.int64) for name, value in _INTEGERS.items()}
    return values
