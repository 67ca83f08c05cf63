"""Networks of three to nine layers, of whatever kinds a seed says."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx

from tests.networks import Builder

__all__ = ["random_network"]

MOST_CHANNELS, LARGEST_SIDE = 96, 40


@dataclass(frozen=True)
class Map:
    """A tensor of a network that grows, (N, channels, side, ...)."""

    name: str
    channels: int
    side: int


class Grower:
    """Adds layers to maps of one, two or three axes, where they fit."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.net = Builder(seed)
        self.axes = int(self.rng.choice([1, 2, 2, 2, 3]))
        channels, side = self.pick(1, 2, 3, 4, 6, 8, 12, 16), self.pick(8, 9, 12, 16)
        batch = [1, 2, 8, "N"][self.rng.integers(4)]
        x = self.net.input("x", (batch, channels, *[side if self.axes < 3 else 8] * self.axes))
        self.maps = [Map(x, channels, side if self.axes < 3 else 8)]
        self.heads: list[str] = []

    def pick(self, *values: int) -> int:
        return int(self.rng.choice(values))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def grow(self) -> None:
        """One more layer, on the last map or an earlier one; none where it does not fit."""
        ways = [self.convolve] * 6 + [self.activate] * 3 + [self.join, self.add, self.pool]
        ways += [self.turn_back, self.gate, self.classify, self.enlarge, self.move, self.move]
        old = self.maps[self.rng.integers(len(self.maps))] if self.chance(0.3) else self.maps[-1]
        new = ways[self.rng.integers(len(ways))](old)
        if new is not None and new.channels <= MOST_CHANNELS and 0 < new.side <= LARGEST_SIDE:
            self.maps.append(new)

    def convolve(self, x: Map) -> Map:
        groups, outputs = self.grouped(x.channels)
        size = self.pick(*(size for size in (1, 1, 3, 5) if size <= x.side))
        stride, pad = self.pick(1, 1, 2), size // 2 if self.chance(0.7) else 0
        shape = (outputs, x.channels // groups, *[size] * self.axes)
        inputs = [x.name, self.net.weight(shape, math.prod(shape[1:]))]
        scale = self.pick(0, 1, 1, 1) / 10  # of zeros, where a layer was not trained
        inputs += [self.net.bias(outputs, scale)] if self.chance(0.7) else []
        name = self.net.op(
            "Conv",
            *inputs,
            group=groups,
            strides=[stride] * self.axes,
            pads=[pad] * (2 * self.axes),
            kernel_shape=[size] * self.axes,
        )
        return Map(name, outputs, (x.side + 2 * pad - size) // stride + 1)

    def grouped(self, channels: int) -> tuple[int, int]:
        """Groups and outputs: whole, depthwise, more outputs than inputs, groups of any width."""
        divisors = [count for count in range(2, channels) if channels % count == 0]
        kind = self.pick(0, 0, 0, 1, 2, 3)
        if kind == 1:
            return channels, channels
        if kind == 2:
            return channels, channels * self.pick(2, 3)
        if kind == 3 and divisors:
            groups = self.pick(*divisors)
            return groups, groups * self.pick(1, 2, 3, 4)
        return 1, self.pick(3, 5, 8, 16, 24, 32)

    def activate(self, x: Map) -> Map:
        kinds = ["Relu", "LeakyRelu", "Sigmoid", "HardSwish", "Tanh", "Clip", "SiLU"]
        kind = str(self.rng.choice(kinds))
        if kind == "SiLU":
            name = self.net.op("Mul", x.name, self.net.op("Sigmoid", x.name))
        elif kind == "Clip":
            name = self.net.relu6(x.name)
        else:
            name = self.net.op(kind, x.name)
        return Map(name, x.channels, x.side)

    def add(self, x: Map) -> Map:
        alike = [y for y in self.maps if (y.channels, y.side) == (x.channels, x.side)]
        other = alike[self.rng.integers(len(alike))]
        return Map(self.net.op("Add", x.name, other.name), x.channels, x.side)

    def join(self, x: Map) -> Map:
        alike = [y for y in self.maps if y.side == x.side]
        other = alike[self.rng.integers(len(alike))]
        name = self.net.op("Concat", x.name, other.name, axis=1)
        return Map(name, x.channels + other.channels, x.side)

    def pool(self, x: Map) -> Map | None:
        if x.side < 4:
            return None
        kind = "MaxPool" if self.chance(0.5) else "AveragePool"
        two = [2] * self.axes
        return Map(
            self.net.op(kind, x.name, kernel_shape=two, strides=two), x.channels, x.side // 2
        )

    def enlarge(self, x: Map) -> Map:
        scales = self.net.constant(np.array([1, 1, *[2] * self.axes], np.float32))
        return Map(
            self.net.op("Resize", x.name, "", scales, mode="nearest"), x.channels, 2 * x.side
        )

    def move(self, x: Map) -> Map | None:
        """Values at other places, or more of them."""
        ways = (self.repeat, self.tile, self.shuffle, self.pad, self.cut, self.swap, self.fold)
        return ways[self.rng.integers(len(ways))](x)

    def repeat(self, x: Map) -> Map:
        """As jnp.repeat writes it, joined with what it repeats."""
        lines = self.net.op("Unsqueeze", x.name, self.net.ints(3))
        ones = [1] * (self.axes - 1)
        wide = self.net.op("Expand", lines, self.net.ints(1, 1, 1, 2, *ones))
        second = self.net.op("Slice", wide, *map(self.net.ints, (1, 2, 3)))
        lines = self.net.op("Squeeze", second, self.net.ints(3))
        return Map(self.net.op("Concat", lines, x.name, axis=1), 2 * x.channels, x.side)

    def tile(self, x: Map) -> Map:
        sizes = self.net.ints(1, 1, *[2] * self.axes)
        return Map(self.net.op("Tile", x.name, sizes), x.channels, 2 * x.side)

    def shuffle(self, x: Map) -> Map | None:
        if x.channels % 2:
            return None
        half = self.net.op("Split", x.name, outputs=2, axis=1)
        return Map(self.net.op("Concat", f"{half}.1", half, axis=1), x.channels, x.side)

    def pad(self, x: Map) -> Map:
        mode = str(self.rng.choice(["constant", "reflect", "edge"]))
        ends = self.net.ints(*[0, 0, *[1] * self.axes] * 2)
        return Map(self.net.op("Pad", x.name, ends, mode=mode), x.channels, x.side + 2)

    def cut(self, x: Map) -> Map | None:
        if x.side <= 4:
            return None
        ends = [self.net.ints(*[end] * self.axes) for end in (1, x.side - 1)]
        axes = self.net.ints(*range(2, 2 + self.axes))
        return Map(self.net.op("Slice", x.name, *ends, axes), x.channels, x.side - 2)

    def swap(self, x: Map) -> Map:
        """An activation of a channels-last exporter."""
        order = [0, *range(2, 2 + self.axes), 1]
        last = self.net.op("Relu", self.net.op("Transpose", x.name, perm=order))
        back = [0, 1 + self.axes, *range(1, 1 + self.axes)]
        return Map(self.net.op("Transpose", last, perm=back), x.channels, x.side)

    def fold(self, x: Map) -> Map | None:
        if self.axes != 2 or x.channels % 4:
            return None
        name = self.net.op("DepthToSpace", x.name, blocksize=2)
        return Map(name, x.channels // 4, 2 * x.side)

    def turn_back(self, x: Map) -> Map:
        outputs = self.pick(4, 8, 16)
        weight = self.net.weight((x.channels, outputs, *[2] * self.axes), x.channels)
        name = self.net.op("ConvTranspose", x.name, weight, strides=[2] * self.axes)
        return Map(name, outputs, 2 * x.side)

    def gate(self, x: Map) -> Map:
        """Squeeze and excite."""
        ones = [1] * self.axes
        mean = self.net.op("GlobalAveragePool", x.name)
        inner = self.net.op("Conv", mean, self.net.weight((4, x.channels, *ones), x.channels))
        outer = self.net.weight((x.channels, 4, *ones), 4)
        gate = self.net.op("Sigmoid", self.net.op("Conv", self.net.op("Relu", inner), outer))
        return Map(self.net.op("Mul", x.name, gate), x.channels, x.side)

    def classify(self, x: Map) -> None:
        kind = "GlobalAveragePool" if self.chance(0.7) else "GlobalMaxPool"
        flat = self.net.op("Flatten", self.net.op(kind, x.name))
        weight = self.net.weight((x.channels, 7), x.channels)
        if self.chance(0.5):
            self.heads.append(self.net.op("MatMul", flat, weight))
        else:
            self.heads.append(self.net.op("Gemm", flat, weight, self.net.bias(7)))


def random_network(seed: int) -> onnx.ModelProto:
    """A model with an input x; its last map and what it classifies are its outputs."""
    grower = Grower(seed)
    for _ in range(int(grower.rng.integers(3, 10))):
        grower.grow()
    while len(grower.maps) == 1:
        grower.maps.append(grower.convolve(grower.maps[0]))
    last = grower.maps[-2:] if grower.chance(0.3) else grower.maps[-1:]
    outputs = dict.fromkeys([*(each.name for each in last if each.name != "x"), *grower.heads])
    return grower.net.build("random", *outputs)
