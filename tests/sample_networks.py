"""Tiny networks whose samples lie along an axis, or along none: one of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import parser

Feed = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Network:
    """Inputs, outputs and body in ONNX's text form; what the loader yields and what is right.

    Attributes:
        io: ``(inputs) => (outputs)``.
        body: nodes.
        shapes: of the arrays that a loader yields.
        axes: input → axis of samples.
        samples: what a dict of these shapes is.
        apart: whether each sample has a row of every output.
        opset: of the model.
        integers: input → largest value.
    """

    io: str
    body: str
    shapes: Shapes
    axes: Mapping[str, int | None]
    samples: int
    apart: bool = True
    opset: int = 17
    integers: Mapping[str, int] = field(default_factory=dict)

    def model(self, rng: np.random.Generator) -> onnx.ModelProto:
        """The model; weights named w<rows>x<columns> are random."""
        made = parser.parse_model(
            f'<ir_version: 8, opset_import: ["": {self.opset}]> g {self.io} {{ {self.body} }}'
        )
        for node in made.graph.node:
            for name in node.input:
                if name.startswith("w") and not any(t.name == name for t in made.graph.initializer):
                    shape = [int(size) for size in name[1:].split("_")[0].split("x")]
                    values = rng.normal(size=shape).astype(np.float32)
                    made.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        return made

    def feed(self, rng: np.random.Generator) -> Feed:
        """One dict of a loader."""
        return {
            name: rng.integers(0, self.integers[name] + 1, shape)
            if name in self.integers
            else rng.normal(size=shape).astype(np.float32)
            for name, shape in self.shapes.items()
        }


CONV = "a = Conv <pads=[1,1,1,1]> (x, w4x3x3x3) r = Relu (a) p = GlobalAveragePool (r) "
NETWORKS = {
    "images": Network(
        io="(float[N,3,8,8] x) => (float[N,4] y)",
        body=CONV + "y = Flatten (p)",
        shapes={"x": (4, 3, 8, 8)},
        axes={"x": 0},
        samples=4,
    ),
    "a batch of one": Network(
        io="(float[1,3,8,8] x) => (float[1,4] y)",
        body=CONV + "y = Flatten (p)",
        shapes={"x": (1, 3, 8, 8)},
        axes={"x": 0},
        samples=1,
    ),
    "a batch of eight": Network(
        io="(float[8,3,8,8] x) => (float[8,4] y)",
        body=CONV + "y = Flatten (p)",
        shapes={"x": (8, 3, 8, 8)},
        axes={"x": 0},
        samples=8,
    ),
    "views pooled": Network(
        io="(float[N,3,8,8] x) => (float[1,4] y)",
        body=CONV + "f = Flatten (p) y = ReduceMax <axes=[0]> (f)",
        shapes={"x": (5, 3, 8, 8)},
        axes={"x": None},
        samples=1,
    ),
    "eight views pooled": Network(
        io="(float[8,3,8,8] x) => (float[1,4] y)",
        body=CONV + "f = Flatten (p) y = ReduceMax <axes=[0]> (f)",
        shapes={"x": (8, 3, 8, 8)},
        axes={"x": None},
        samples=1,
    ),
    "views that see each other": Network(
        io="(float[N,6] x) => (float[N,4] y)",
        body="a = MatMul (x, w6x4) m = ReduceMean <axes=[0]> (a) y = Sub (a, m)",
        shapes={"x": (5, 6)},
        axes={"x": None},
        samples=1,
    ),
    "image and points": Network(
        io="(float[1,3,8,8] x, float[P,4] pts) => (float[1,8] y)",
        body=CONV + "f = Flatten (p) b = MatMul (pts, w4x4) q = ReduceMean <axes=[0]> (b) "
        "y = Concat <axis=1> (f, q)",
        shapes={"x": (1, 3, 8, 8), "pts": (50, 4)},
        axes={"x": None, "pts": None},
        samples=1,
    ),
    "image and points, each judged": Network(
        io="(float[1,3,8,8] x, float[P,4] pts) => (float[P,4] y)",
        body=CONV + "f = Flatten (p) b = MatMul (pts, w4x4) y = Add (b, f)",
        shapes={"x": (1, 3, 8, 8), "pts": (50, 4)},
        axes={"x": None, "pts": None},
        samples=1,
    ),
    "nodes and edges": Network(
        io="(float[num_nodes,6] feat, int64[2,num_edges] edges) => (float[num_edges,6] y)",
        body="a = MatMul (feat, w6x6) zero = Constant <value_int=0> () "
        "s = Gather <axis=0> (edges, zero) y = Gather <axis=0> (a, s)",
        shapes={"feat": (7, 6), "edges": (2, 9)},
        axes={"feat": None, "edges": None},
        samples=1,
        integers={"edges": 6},
    ),
    "boxes that are left": Network(
        io="(float[N,5,4] boxes, float[N,1,5] scores) => (int64[K,3] y)",
        body="r = Sigmoid (scores) c = Abs (boxes) most = Constant <value_ints=[9]> () "
        "y = NonMaxSuppression (c, r, most)",
        shapes={"boxes": (3, 5, 4), "scores": (3, 1, 5)},
        axes={"boxes": 0, "scores": 0},
        samples=3,
        apart=False,
    ),
    "boxes sorted over all": Network(
        io="(float[N,4] x) => (float[K,1] y)",
        body="a = MatMul (x, w4x1) one = Constant <value_ints=[0]> () s = Shape (a) "
        "k = Slice (s, one, two) y, i = TopK <axis=0> (a, k) two = Constant <value_ints=[1]> ()",
        shapes={"x": (5, 4)},
        axes={"x": None},
        samples=1,
    ),
    "two names": Network(
        io="(float[Dynamic0,6] x, float[Dynamic1,1] s) => (float[M,4] y)",
        body="a = MatMul (x, w6x4) y = Mul (a, s)",
        shapes={"x": (3, 6), "s": (3, 1)},
        axes={"x": 0, "s": 0},
        samples=3,
    ),
    "no names": Network(
        io="(float[?,6] x, float[?,1] s) => (float[?,4] y)",
        body="a = MatMul (x, w6x4) y = Mul (a, s)",
        shapes={"x": (3, 6), "s": (3, 1)},
        axes={"x": 0, "s": 0},
        samples=3,
    ),
    "points and boxes": Network(
        io="(float[P,3] x, float[B,4] b) => (float[1,3] y, float[1,4] z)",
        body="y = ReduceSum <keepdims=1> (x, ax) z = ReduceSum <keepdims=1> (b, ax) "
        "ax = Constant <value_ints=[0]> ()",
        shapes={"x": (12, 3), "b": (7, 4)},
        axes={"x": None, "b": None},
        samples=1,
    ),
    "time first": Network(
        io="(float[T,N,4] x) => (float[T,1,N,6] y)",
        body="y, h = GRU <hidden_size=6> (x, w1x18x4, w1x18x6)",
        shapes={"x": (7, 3, 4)},
        axes={"x": 1},
        samples=3,
        apart=False,
    ),
    "frames of one sequence": Network(
        io="(float[T,4] x) => (float[T,6] y)",
        body="u = Unsqueeze (x, one) h3, h = GRU <hidden_size=6> (u, w1x18x4, w1x18x6) "
        "y = Squeeze (h3, both) one = Constant <value_ints=[1]> () "
        "both = Constant <value_ints=[1,2]> ()",
        shapes={"x": (7, 4)},
        axes={"x": None},
        samples=1,
    ),
    "frames each by itself": Network(
        io="(float[T,4] x) => (float[T,6] y)",
        body="y = MatMul (x, w4x6)",
        shapes={"x": (7, 4)},
        axes={"x": 0},
        samples=7,
    ),
    "a place in the sequence": Network(
        io="(float[7,4] x) => (float[7,4] y)",
        body="a = MatMul (x, w4x4) y = Add (a, w7x4)",
        shapes={"x": (7, 4)},
        axes={"x": None},
        samples=1,
    ),
    "state of two layers": Network(
        io="(float[N,4] x, float[2,N,4] state, float rate) => (float[N,4] y, float[2,N,4] next)",
        body="m = ReduceMean <axes=[0], keepdims=0> (state) a = Add (x, m) y = Mul (a, rate) "
        "next = Tanh (state)",
        shapes={"x": (3, 4), "state": (2, 3, 4), "rate": ()},
        axes={"x": 0, "state": 1, "rate": None},
        samples=3,
        apart=False,
    ),
    "statistics of the batch": Network(
        io="(float[N,3,8,8] x) => (float[N,4,8,8] y)",
        body="a = Conv <pads=[1,1,1,1]> (x, w4x3x3x3) "
        "y, m, v = BatchNormalization <training_mode=1> (a, w4, w4_b, zero, one) "
        "zero = Constant <value_floats=[0.0,0.0,0.0,0.0]> () "
        "one = Constant <value_floats=[1.0,1.0,1.0,1.0]> ()",
        shapes={"x": (5, 3, 8, 8)},
        axes={"x": None},
        samples=1,
    ),
    "softmax over samples": Network(
        io="(float[N,6] x) => (float[N,4] y)",
        body="a = MatMul (x, w6x4) y = Softmax <axis=0> (a)",
        shapes={"x": (5, 6)},
        axes={"x": None},
        samples=1,
    ),
    "classes": Network(
        io="(float[N,6] x) => (int64[N] y)",
        body="a = MatMul (x, w6x4) y = ArgMax <axis=1, keepdims=0> (a)",
        shapes={"x": (5, 6)},
        axes={"x": 0},
        samples=5,
    ),
    "tokens": Network(
        io="(int64[B,S] ids, float[B,S] mask) => (float[B,4] y)",
        body="e = Gather (w9x4, ids) one = Constant <value_ints=[2]> () m = Unsqueeze (mask, one) "
        "z = Mul (e, m) y = ReduceMean <axes=[1], keepdims=0> (z)",
        shapes={"ids": (3, 5), "mask": (3, 5)},
        axes={"ids": 0, "mask": 0},
        samples=3,
        integers={"ids": 8},
    ),
    "anchors beside": Network(
        io="(float[N,6] x) => (float[N,4] y, float[2,4] anchors)",
        body="y = MatMul (x, w6x4) anchors = Identity (w2x4)",
        shapes={"x": (5, 6)},
        axes={"x": 0},
        samples=5,
        apart=False,
    ),
    "patches": Network(
        io="(float[N,2,6] x) => (float[M,4] y)",
        body="to = Constant <value_ints=[-1,6]> () a = Reshape (x, to) y = MatMul (a, w6x4)",
        shapes={"x": (5, 2, 6)},
        axes={"x": 0},
        samples=5,
        apart=False,
    ),
}
