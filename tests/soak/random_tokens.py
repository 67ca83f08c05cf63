"""Networks of tokens, (N, T, C): what transformers, sequence models and mixers are made of.

Of whatever layers a seed says, with weights as exporters leave them: behind an Identity, a
Transpose, a Reshape or a Cast, times a number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.networks import Builder

__all__ = ["random_tokens"]

WORDS, MOST_CHANNELS = 100, 128


@dataclass(frozen=True)
class Tokens:
    """A tensor of a network that grows, (N, T, channels)."""

    name: str
    channels: int


class TokenGrower:
    """Adds layers to tensors of tokens."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.net = Builder(seed, opset=18)
        self.batch = [1, 2, "N"][self.rng.integers(3)]
        self.count = [4, 9, 16, "T"][self.rng.integers(4)]
        channels = self.pick(16, 24, 32)
        if self.chance(0.4):
            words = self.net.input("ids", (self.batch, self.count), TensorProto.INT64)
            x = self.net.op("Gather", self.net.weight((WORDS, channels), 1), words, axis=0)
        else:
            x = self.net.input("x", (self.batch, self.count, channels))
        self.tokens = [Tokens(x, channels)]
        self.heads: list[str] = []

    def pick(self, *values: int) -> int:
        return int(self.rng.choice(values))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def vector(self, *shape: int) -> str:
        return self.net.constant(self.rng.uniform(0.5, 2.0, shape).astype(np.float32))

    def weight(self, *shape: int) -> str:
        """One of an exporter: (inputs, outputs), or with axes before them."""
        values = self.rng.normal(size=shape).astype(np.float32) / np.float32(shape[-2] ** 0.5)
        way = self.pick(0, 0, 0, 0, 1, 2, 3, 4, 5)
        if way == 1:
            return self.net.op("Identity", self.net.constant(values))
        if way == 2:
            order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
            return self.net.op("Transpose", self.net.constant(values.transpose(order)), perm=order)
        if way == 3:
            flat = self.net.constant(values.reshape(-1))
            return self.net.op("Reshape", flat, self.net.ints(*shape))
        if way == 4:
            half = self.net.constant(values.astype(np.float16))
            return self.net.op("Cast", half, to=TensorProto.FLOAT)
        if way == 5:
            return self.net.op("Mul", self.net.constant(values), self.vector())
        return self.net.constant(values)

    def dense(self, x: Tokens, outputs: int) -> Tokens:
        y = self.net.op("MatMul", x.name, self.weight(x.channels, outputs))
        if self.chance(0.6):
            operands = [y, self.net.bias(outputs)]
            y = self.net.op("Add", *(operands if self.chance(0.5) else operands[::-1]))
        return Tokens(y, outputs)

    def grow(self) -> None:
        """One more layer, on the last tensor or an earlier one; none where it does not fit."""
        ways: list[Callable[[Tokens], Tokens | None]] = [
            *(self.project, self.project, self.attend, self.attend, self.residual_mlp),
            *(
                self.normalize,
                self.root_mean_square,
                self.scale,
                self.activate,
                self.add,
                self.join,
            ),
            *(self.gate, self.split_gate, self.convolve, self.recur, self.mix_tokens, self.permute),
            *(self.by_letters, self.by_head, self.branch, self.shift, self.rows, self.pool),
        ]
        old = self.tokens[self.rng.integers(len(self.tokens))]
        new = ways[self.rng.integers(len(ways))](old if self.chance(0.3) else self.tokens[-1])
        if new is not None and new.channels <= MOST_CHANNELS:
            self.tokens.append(new)

    def project(self, x: Tokens) -> Tokens:
        return self.dense(x, self.pick(16, 24, 32, 48))

    def residual_mlp(self, x: Tokens) -> Tokens:
        inner = self.dense(x, 2 * x.channels)
        active = self.net.gelu(inner.name) if self.chance(0.5) else self.net.relu(inner.name)
        y = self.dense(Tokens(active, inner.channels), x.channels)
        return Tokens(self.net.op("Add", y.name, x.name), x.channels)

    def attend(self, x: Tokens) -> Tokens:
        """With heads for all or half of the keys, queries scaled before or scores behind."""
        heads = 4 if x.channels % 8 == 0 else 2
        size, keyed = x.channels // heads, heads // self.pick(1, 1, 2)
        q, k, v = (self._heads(self.dense(x, n * size), n, size) for n in (heads, keyed, keyed))
        k, v = (self._repeat(each, heads, keyed, size) for each in (k, v))
        if self.chance(0.3) and size % 2 == 0:  # as rotary embeddings turn them
            first = self.net.op("Split", q, self.net.ints(size // 2, size // 2), outputs=2, axis=-1)
            q = self.net.op("Concat", self.net.op("Neg", f"{first}.1"), first, axis=-1)
        k = self.net.op("Transpose", k, perm=[0, 1, 3, 2])
        before = self.chance(0.5)
        q = self.net.op("Mul", q, self.net.scalar(size**-0.5)) if before else q
        scores = self.net.op("MatMul", q, k)
        scores = scores if before else self.net.op("Mul", scores, self.net.scalar(size**-0.5))
        if isinstance(self.count, int) and self.chance(0.4):
            hidden = np.triu(np.full((self.count, self.count), -1e9, np.float32), 1)
            scores = self.net.op("Add", scores, self.net.constant(hidden))
        y = self.net.op("MatMul", self.net.op("Softmax", scores, axis=-1), v)
        y = self.net.op("Transpose", y, perm=[0, 2, 1, 3])
        y = self.net.op("Reshape", y, self.net.ints(0, 0, x.channels))
        out = self.dense(Tokens(y, x.channels), x.channels)
        return Tokens(self.net.op("Add", out.name, x.name), x.channels)

    def _heads(self, x: Tokens, heads: int, size: int) -> str:
        parts = self.net.op("Reshape", x.name, self.net.ints(0, 0, heads, size))
        return self.net.op("Transpose", parts, perm=[0, 2, 1, 3])

    def _repeat(self, x: str, heads: int, keyed: int, size: int) -> str:
        if heads == keyed:
            return x
        times = self.net.ints(1, 1, heads // keyed, 1, 1)
        more = self.net.op("Expand", self.net.op("Unsqueeze", x, self.net.ints(2)), times)
        return self.net.op("Reshape", more, self.net.ints(0, heads, -1, size))

    def normalize(self, x: Tokens) -> Tokens:
        """A LayerNormalization, or its parts."""
        if self.chance(0.5):
            return Tokens(self.net.layer_norm(x.name, x.channels), x.channels)
        last = self.net.ints(-1)
        off = self.net.op("Sub", x.name, self.net.op("ReduceMean", x.name, last, keepdims=1))
        spread = self.net.op("ReduceMean", self.net.op("Mul", off, off), last, keepdims=1)
        root = self.net.op("Sqrt", self.net.op("Add", spread, self.net.scalar(1e-5)))
        y = self.net.op("Mul", self.net.op("Div", off, root), self.vector(x.channels))
        return Tokens(y, x.channels)

    def root_mean_square(self, x: Tokens) -> Tokens:
        squares = self.net.op("Pow", x.name, self.net.scalar(2.0))
        mean = self.net.op("ReduceMean", squares, self.net.ints(-1), keepdims=1)
        root = self.net.op("Sqrt", self.net.op("Add", mean, self.net.scalar(1e-6)))
        y = self.net.op("Mul", x.name, self.net.op("Reciprocal", root))
        return Tokens(self.net.op("Mul", y, self.vector(x.channels)), x.channels)

    def scale(self, x: Tokens) -> Tokens:
        op = str(self.rng.choice(["Mul", "Add", "Div", "PRelu"]))
        return Tokens(self.net.op(op, x.name, self.vector(x.channels)), x.channels)

    def rows(self, x: Tokens) -> Tokens | None:
        if not isinstance(self.count, int):
            return None
        op = str(self.rng.choice(["Mul", "Add"]))
        return Tokens(self.net.op(op, x.name, self.vector(self.count, 1)), x.channels)

    def activate(self, x: Tokens) -> Tokens:
        op = str(self.rng.choice(["Relu", "Tanh", "Sigmoid", "Softplus", "Elu", "Abs"]))
        return Tokens(self.net.op(op, x.name), x.channels)

    def add(self, x: Tokens) -> Tokens:
        alike = [y for y in self.tokens if y.channels == x.channels]
        other = alike[self.rng.integers(len(alike))]
        return Tokens(self.net.op("Add", x.name, other.name), x.channels)

    def join(self, x: Tokens) -> Tokens:
        other = self.tokens[self.rng.integers(len(self.tokens))]
        name = self.net.op("Concat", x.name, other.name, axis=-1)
        return Tokens(name, x.channels + other.channels)

    def gate(self, x: Tokens) -> Tokens:
        """Squeeze and excite over tokens."""
        mean = self.net.op("ReduceMean", x.name, self.net.ints(1), keepdims=1)
        inner = self.net.relu(self.dense(Tokens(mean, x.channels), 8).name)
        outer = self.net.op("Sigmoid", self.dense(Tokens(inner, 8), x.channels).name)
        return Tokens(self.net.op("Mul", x.name, outer), x.channels)

    def split_gate(self, x: Tokens) -> Tokens:
        both = self.dense(x, 2 * x.channels)
        sizes = self.net.ints(x.channels, x.channels)
        half = self.net.op("Split", both.name, sizes, outputs=2, axis=-1)
        gate = self.net.op("Sigmoid", f"{half}.1")
        return Tokens(self.net.op("Mul", half, gate), x.channels)

    def convolve(self, x: Tokens) -> Tokens:
        groups, outputs = (x.channels, x.channels) if self.chance(0.4) else (1, self.pick(16, 24))
        fan = 3 * x.channels // groups
        weight = self.net.weight((outputs, x.channels // groups, 3), fan)
        y = self.net.op("Transpose", x.name, perm=[0, 2, 1])
        y = self.net.op("Conv", y, weight, kernel_shape=[3], pads=[1, 1], group=groups)
        return Tokens(self.net.op("Transpose", y, perm=[0, 2, 1]), outputs)

    def recur(self, x: Tokens) -> Tokens:
        y = self.net.op("Transpose", x.name, perm=[1, 0, 2])
        inputs = self.net.weight((1, 48, x.channels), x.channels), self.net.weight((1, 48, 16), 16)
        y = self.net.op("GRU", y, *inputs, hidden_size=16, linear_before_reset=1)
        y = self.net.op("Transpose", y, perm=[2, 0, 1, 3])
        return Tokens(self.net.op("Reshape", y, self.net.ints(0, 0, 16)), 16)

    def mix_tokens(self, x: Tokens) -> Tokens | None:
        if not isinstance(self.count, int):
            return None
        mixing = self.weight(self.count, self.count)
        if self.chance(0.5):
            return Tokens(self.net.op("MatMul", mixing, x.name), x.channels)
        y = self.net.op("MatMul", self.net.op("Transpose", x.name, perm=[0, 2, 1]), mixing)
        return Tokens(self.net.op("Transpose", y, perm=[0, 2, 1]), x.channels)

    def permute(self, x: Tokens) -> Tokens:
        order = self.rng.permutation(x.channels).tolist()
        return Tokens(self.net.op("Gather", x.name, self.net.ints(*order), axis=2), x.channels)

    def by_letters(self, x: Tokens) -> Tokens:
        weight = self.net.weight((x.channels, 4, 6), x.channels)
        y = self.net.op("Einsum", x.name, weight, equation="abc,cde->abde")
        return Tokens(self.net.op("Reshape", y, self.net.ints(0, 0, 24)), 24)

    def by_head(self, x: Tokens) -> Tokens | None:
        if x.channels % 4:
            return None
        parts = self.net.op("Reshape", x.name, self.net.ints(0, 0, 4, x.channels // 4))
        y = self.net.op("MatMul", parts, self.weight(x.channels // 4, 8))
        return Tokens(self.net.op("Reshape", y, self.net.ints(0, 0, 32)), 32)

    def branch(self, x: Tokens) -> Tokens:
        large = self.net.op("ReduceMax", x.name, keepdims=0)
        bodies = {
            key: helper.make_graph(
                [helper.make_node(op, [x.name], [f"{x.name}_{op}"])],
                key,
                [],
                [helper.make_tensor_value_info(f"{x.name}_{op}", TensorProto.FLOAT, None)],
            )
            for key, op in (("then_branch", "Neg"), ("else_branch", "Tanh"))
        }
        y = self.net.op("If", self.net.op("Greater", large, self.net.scalar(1.5)), **bodies)
        return Tokens(y, x.channels)

    def shift(self, x: Tokens) -> Tokens:
        ends = (self.net.ints(each) for each in (0, -1, 1))
        y = self.net.op("Pad", self.net.op("Slice", x.name, *ends), self.net.ints(0, 1, 0, 0, 0, 0))
        return Tokens(self.net.op("Add", x.name, y), x.channels)

    def pool(self, x: Tokens) -> None:
        """The end of a classifier: a mean, the largest, the first token."""
        op = str(self.rng.choice(["ReduceMean", "ReduceMax", "Gather"]))
        if op == "Gather":
            y = self.net.op(op, x.name, self.net.constant(np.array(0)), axis=1)
        else:
            y = self.net.op(op, x.name, self.net.ints(1), keepdims=0)
        self.heads.append(self.dense(Tokens(y, x.channels), 8).name)


def random_tokens(seed: int) -> onnx.ModelProto:
    """A model with an input x or ids; its last tensor and what it classifies are its outputs."""
    grower = TokenGrower(seed)
    for _ in range(int(grower.rng.integers(3, 9))):
        grower.grow()
    while len(grower.tokens) == 1:
        grower.tokens.append(grower.project(grower.tokens[0]))
    last = grower.tokens[-2:] if grower.chance(0.3) else grower.tokens[-1:]
    inputs = {value.name for value in grower.net.inputs} | {grower.tokens[0].name}
    outputs = [
        name for name in [*(each.name for each in last), *grower.heads] if name not in inputs
    ]
    return grower.net.build("tokens", *dict.fromkeys(outputs))
