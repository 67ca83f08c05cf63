"""What computes between Transposes computes in front of them, and they go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantization.prepare.prepare import prepare
from tests.networks import Builder
from tests.networks.running import random_feeds, run

LAST = (0, 2, 3, 1)
FIRST = (0, 3, 1, 2)


def left(model: onnx.ModelProto, rng: np.random.Generator) -> int:
    """How many Transposes a prepared model has; it computes the same."""
    prepared = prepare(model)
    feeds = random_feeds(model, rng)
    wanted, found = run(model, feeds, optimize=False), run(prepared, feeds, optimize=False)
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5)
    assert prepare(prepared) == prepared
    return [node.op_type for node in prepared.graph.node].count("Transpose")


def turned(net: Builder, x: str, order: Sequence[int] = LAST) -> str:
    return net.op("Transpose", x, perm=list(order))


def test_an_activation_between_two_layers(rng: np.random.Generator) -> None:
    """As JAX's exporters write channels-last convolutions: bias, activation and gate between."""
    net = Builder(1)
    x = turned(net, net.conv(net.input("x", ("N", 3, 8, 8)), 6))
    x = net.op("Add", x, net.constant(rng.normal(size=6).astype(np.float32)))
    x = net.op("Mul", x, net.op("Sigmoid", x))
    x = net.op("Clip", x, net.scalar(-1.0), net.scalar(2.0))
    x = turned(net, x, FIRST)
    net.channels[x] = 6
    model = net.build("between", net.conv(x, 4))
    assert left(model, rng) == 0
    kinds = [node.op_type for node in prepare(model).graph.node]
    assert kinds == ["Conv", "Sigmoid", "Mul", "Clip", "Conv"], "what is added is the layer's bias"


def test_many_gates_in_a_row(rng: np.random.Generator) -> None:
    """Each reads the region before it twice."""
    net = Builder(5)
    x = turned(net, net.input("x", (2, 3, 4, 4)))
    for _ in range(60):
        x = net.op("Add", x, net.op("Mul", x, net.op("Sigmoid", x)))
        x = net.op("Tanh", x)
    assert left(net.build("gates", turned(net, x, FIRST)), rng) == 0


def test_a_skip_and_a_join(rng: np.random.Generator) -> None:
    """A U-Net's: what is joined later is read by two layers."""
    net = Builder(2)
    x = net.input("x", (2, 3, 8, 8))
    skip = net.relu(turned(net, net.conv(x, 5)))
    deep = turned(net, skip, FIRST)
    net.channels[deep] = 5
    other = net.relu(turned(net, net.conv(deep, 5)))
    told = net.constant(rng.normal(size=(2, 8, 8, 2)).astype(np.float32))
    both = net.op("Concat", net.op("Add", other, skip), skip, told, axis=-1)
    y = turned(net, both, FIRST)
    net.channels[y] = 12
    assert left(net.build("skip", net.conv(y, 4)), rng) == 0


def test_what_is_read_elsewhere_keeps_one(rng: np.random.Generator) -> None:
    net = Builder(3)
    y = net.relu(turned(net, net.conv(net.input("x", (2, 3, 6, 6)), 4)))
    back = turned(net, y, FIRST)
    net.channels[back] = 4
    given_out = net.op("Softmax", y, axis=-1)
    assert left(net.build("elsewhere", net.conv(back, 2), y, given_out), rng) == 1


@pytest.mark.parametrize("kind", ["alone", "read twice", "other orders", "wide constant"])
def test_what_would_win_nothing_stays(kind: str, rng: np.random.Generator) -> None:
    net = Builder(4)
    x = net.input("x", (2, 3, 4, 4))
    y = net.relu(turned(net, x))
    ends = [net.op("Softmax", y, axis=-1)]
    if kind == "read twice":
        ends.append(net.op("Softmax", net.op("Tanh", y), axis=1))
    elif kind == "other orders":
        other = net.op("Transpose", net.op("Slice", x, *map(net.ints, (0, 4, 3))), perm=FIRST)
        ends = [net.op("MatMul", y, net.op("Tanh", other))]
    elif kind == "wide constant":
        wide = net.constant(rng.normal(size=(2, 2, 4, 4, 3)).astype(np.float32))
        ends = [net.op("Add", y, wide)]
    count = sum(node.op_type == "Transpose" for node in net.nodes)
    model = net.build("stays", *ends)
    assert left(model, rng) == count
    kinds = [node.op_type for node in prepare(model).graph.node]
    assert kinds.index("Transpose") < kinds.index("Relu")


@given(st.integers(0, 10_000))
def test_any_region(seed: int) -> None:
    """Of any order of axes, constants that broadcast, and readers inside and outside."""
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(2, 5))
    order = [int(axis) for axis in rng.permutation(rank)]
    sizes = [int(size) for size in rng.integers(1, 4, rank)]
    net = Builder(seed)
    x = net.input("x", sizes)
    pool = [turned(net, net.op("Tanh", x), order), turned(net, net.op("Neg", x), order)]
    shape = [sizes[axis] for axis in order]
    for _ in range(int(rng.integers(1, 6))):
        one, other = (pool[int(n)] for n in rng.integers(len(pool), size=2))
        kind = int(rng.integers(4))
        if kind == 0:
            pool.append(net.op("Sigmoid", one))
        elif kind == 1:
            pool.append(net.op("Mul", one, other))
        else:
            kept = shape[int(rng.integers(rank + 1)) :]
            some = [size if rng.random() < 0.5 else 1 for size in kept]
            pool.append(net.op("Sub", one, net.constant(rng.normal(size=some).astype(np.float32))))
    ends = [turned(net, pool[-1], np.argsort(order).tolist())]
    if rng.random() < 0.5:
        ends.append(net.op("Softmax", pool[int(rng.integers(len(pool)))], axis=-1))
    before = sum(node.op_type == "Transpose" for node in net.nodes)
    assert left(net.build("any", *ends), rng) <= before
