"""Numbers for each channel, orders of channels and of heads: computed as they are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import engines
from engines import BuildOptions
from engines.openvino.library import core, openvino
from engines.openvino.rewrites.channel_constants import separate_channel_constants
from engines.openvino.rewrites.permuted_channels import keep_permutations
from engines.openvino.rewrites.swapped_heads import separate_swapped_heads
from quantization.placement import place
from quantization.prepare.prepare import prepare
from quantization.write.insert import insert_qdq
from tests.networks import Builder
from tests.networks.running import minmax_ranges, random_feeds, run, sqnr_db

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

Dim = int | str


def worst_db(
    model: onnx.ModelProto, precision: str, folder: Path, rng: np.random.Generator
) -> float:
    """How near an engine is to its graph."""
    feeds = random_feeds(model, rng, dynamic=2)
    model = prepare(model)
    if precision == "int8":
        placement = place(model, profile="cpu", portable=engines.cpu_isa() == "portable")
        model = insert_qdq(model, placement, minmax_ranges(model, placement.tensors, feeds))
    onnx.save(model, folder / "m.onnx")
    options = BuildOptions(target="cpu", threads=1, precision=precision)
    engines.build(folder / "m.onnx", folder / "m.engine", options)
    with engines.load(folder / "m.engine") as engine:
        found = engine(feeds)
    wanted = run(model, feeds, optimize=False)
    return min(sqnr_db(values, found[name]) for name, values in wanted.items())


def reduced(kind: str, batch: Dim, after: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """A reduction, a number for each of its channels, a dense layer."""
    net = Builder(5)
    x = net.op("Tanh", net.input("x", (batch, *shape)))
    if kind == "GlobalAveragePool":
        y = net.op("Squeeze", net.op(kind, x), net.ints(*range(2, len(shape) + 1)))
    elif kind.startswith("kept"):
        y = net.op(kind[4:], x, axes=[len(shape)], keepdims=1)
    else:
        y = net.op(kind, x, axes=[*range(2, len(shape) + 1)], keepdims=0)
    of_channel = [1] * (len(shape) - 1) if kind.startswith("kept") else []
    for op in after.split("+") if after else ():
        values = net.rng.uniform(0.5, 2.0, (1, shape[0], *of_channel)).astype(np.float32)
        y = net.op(op, y, net.constant(values))
    flat = net.op("Flatten", y)
    size = int(np.prod(shape[:-1])) if kind.startswith("kept") else shape[0]
    return net.build("reduced", net.op("MatMul", flat, net.weight((size, 8), size)))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("after", ["Mul", "Add", "Mul+Add", ""])
@pytest.mark.parametrize("shape", [(12, 9), (12, 6, 4)], ids=str)
@pytest.mark.parametrize(
    "kind", ["ReduceMean", "ReduceMax", "keptReduceMean", "ReduceL2", "GlobalAveragePool"]
)
def test_a_number_for_each_channel_behind_a_reduction(
    kind: str,
    shape: tuple[int, ...],
    after: str,
    precision: str,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    for batch in (1, 3, "N"):
        assert worst_db(reduced(kind, batch, after, shape), precision, tmp_path, rng) > 35


@pytest.mark.parametrize("factors", [True, False], ids=["factors", "alone"])
@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceMax"])
@pytest.mark.parametrize("shape", [(8, 6, 4), (8, 6)], ids=str)
def test_reductions_of_the_channels_themselves(
    shape: tuple[int, ...], kind: str, factors: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    for batch in (1, 2, "N"):
        net = Builder(6)
        y = net.op(kind, net.op("Tanh", net.input("x", (batch, *shape))), axes=[1], keepdims=0)
        if factors:
            values = net.rng.uniform(0.5, 2.0, (6, *[1] * (len(shape) - 2))).astype(np.float32)
            y = net.op("Mul", y, net.constant(values))
        model = net.build("own", net.op("MatMul", y, net.weight((shape[-1], 8), shape[-1])))
        assert worst_db(model, "int8", tmp_path, rng) > 35


@pytest.mark.parametrize("between", ["nothing", "Relu"])
@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceMax", "ReduceSum"])
def test_a_number_for_each_channel_before_a_reduction(
    kind: str, axis: int, between: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Where INT8 follows, OpenVINO moves it behind."""
    for batch in (1, 2, "N"):
        net = Builder(13)
        values = net.rng.uniform(0.5, 2.0, (12, 1) if axis == 2 else (9,)).astype(np.float32)
        y = net.op("Mul", net.op("Tanh", net.input("x", (batch, 12, 9))), net.constant(values))
        y = net.op("Relu", y) if between == "Relu" else y
        axes = {"axes": [axis]} if kind != "ReduceSum" else {}
        y = net.op(kind, y, *([] if axes else [net.ints(axis)]), keepdims=0, **axes)
        width = 12 if axis == 2 else 9
        model = net.build("before", net.op("MatMul", y, net.weight((width, 8), width)))
        assert worst_db(model, "int8", tmp_path, rng) > 35


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("after", ["Mul", "Add", "Mul+Add"])
@pytest.mark.parametrize("shape", [(5, 16), (3, 5, 16), (5, 4, 4)], ids=str)
def test_a_number_for_each_row_of_a_dense_layer(
    shape: tuple[int, ...], after: str, precision: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    """The last of heads that are parted and joined again, as an Einsum's are."""
    for batch in (1, 2, "N"):
        net = Builder(14)
        parted, sizes = shape == (5, 4, 4), (5, 16) if shape == (5, 4, 4) else shape
        y = net.op("MatMul", net.input("x", (batch, *sizes)), net.weight((16, 16), 16))
        if parted:
            y = net.op("Reshape", net.op("Reshape", y, net.ints(0, 0, 4, 4)), net.ints(0, 0, 16))
        for op in after.split("+"):
            values = net.rng.uniform(0.5, 2.0, (shape[0], *[1] * (len(sizes) - 1)))
            y = net.op(op, y, net.constant(values.astype(np.float32)))
        model = net.build("rows", net.op("MatMul", y, net.weight((16, 8), 16)))
        assert worst_db(model, precision, tmp_path, rng) > 35


@pytest.mark.parametrize("batch", [1, 2, "N"])
@pytest.mark.parametrize("after", ["Mul", "Div", "Mul+Add", "Add+Mul", "PRelu", "Relu+Mul"])
@pytest.mark.parametrize("left", ["constant", "activation", "constant, of words"])
def test_a_number_for_each_channel_behind_a_product_of_two(
    left: str, after: str, batch: Dim, tmp_path: Path, rng: np.random.Generator
) -> None:
    net = Builder(7)
    tokens, width = 5, 16
    if left == "constant, of words":  # whose numbers are a constant, too, and no weight
        words = net.input("ids", (batch, tokens), onnx.TensorProto.INT64)
        x = net.op("Gather", net.weight((100, width), 1), words, axis=0)
    else:
        x = net.input("x", (batch, tokens, width))
        x = net.op("MatMul", x, net.weight((width, width), width))
    mixing = net.weight((tokens, tokens), tokens)
    if left == "activation":
        mixing = net.op("MatMul", x, net.weight((width, tokens), width))
    y = net.op("MatMul", mixing, x)
    for op in after.split("+"):
        values = net.constant(net.rng.uniform(0.5, 2.0, width).astype(np.float32))
        y = net.op(op, y) if op == "Relu" else net.op(op, y, values)
    model = net.build("mixed", net.op("MatMul", y, net.weight((width, 8), width)))
    assert worst_db(model, "int8", tmp_path, rng) > 35


@pytest.mark.parametrize("batch", [1, "N"])
@pytest.mark.parametrize("after", ["Add", "Mul", "Sub"])
def test_factors_for_one_axis_and_numbers_for_another_as_long(
    after: str, batch: Dim, tmp_path: Path, rng: np.random.Generator
) -> None:
    net = Builder(15)
    y = net.op("Tanh", net.input("x", (batch, 16, 16)))
    rows, channels = (
        net.constant(net.rng.uniform(0.5, 2.0, shape).astype(np.float32))
        for shape in ((16, 1), (16,))
    )
    y = net.op(after, net.op("Mul", y, rows), channels)
    model = net.build("crossed", net.op("MatMul", y, net.weight((16, 8), 16)))
    assert worst_db(model, "int8", tmp_path, rng) > 35


def test_scores_keep_their_mask_in_the_kernel() -> None:
    """What attention adds to its scores is no vector, nor is it scaled by one."""
    net = Builder(8)
    x = net.input("x", (2, 6, 16))
    scores = net.op("MatMul", x, net.op("Transpose", x, perm=[0, 2, 1]))
    scores = net.op("Add", net.op("Mul", scores, net.scalar(0.25)), net.weight((6, 6), 6))
    model = net.build("masked", net.op("MatMul", net.op("Softmax", scores, axis=-1), x))
    network = core().read_model(model.SerializeToString())
    assert separate_channel_constants(openvino(), network) == 0


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 3), (8, 16, 16)], ids=str)
def test_slopes_of_the_last_axis(
    shape: tuple[int, ...], precision: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    net = Builder(9)
    width = shape[-1]
    x = net.op("MatMul", net.input("x", ("N", *shape)), net.weight((width, width), width))
    slopes = net.constant(net.rng.uniform(0.1, 2.0, width).astype(np.float32))
    model = net.build("slopes", net.op("PRelu", x, slopes))
    assert worst_db(model, precision, tmp_path, rng) > 35


def permuted(order: list[int], kind: str) -> onnx.ModelProto:
    net = Builder(10)
    shape: tuple[Dim, ...] = ("N", 9, 6) if kind == "sequence" else ("N", 6, 9, 9)
    x = net.input("x", shape)
    y = net.op("Gather", x, net.ints(*order), axis=2 if kind == "sequence" else 1)
    if kind == "sequence":
        y = net.op("Transpose", y, perm=[0, 2, 1])
        y = net.op("Conv", y, net.weight((16, 6, 3), 18), kernel_shape=[3])
    else:
        y = net.op("Conv", net.relu(y), net.weight((16, 6, 3, 3), 54), kernel_shape=[3, 3])
    return net.build("permuted", y)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("kind", ["image", "sequence"])
@pytest.mark.parametrize("order", [[5, 0, 1, 2, 3, 4], [2, 0, 1, 5, 3, 4], [5, 4, 3, 2, 1, 0]])
def test_channels_in_another_order(
    order: list[int], kind: str, precision: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    assert worst_db(permuted(order, kind), precision, tmp_path, rng) > 35


@pytest.mark.parametrize(
    ("order", "changed"),
    [([1, 2, 3, 4, 5, 0], 1), ([-5, 2, 3, 4, 5, 0], 1), ([5, 4, 3, 2, 1, 0], 0), ([0, 0, 1, 2], 0)],
)
def test_orders_that_are_their_own_opposites_stay(order: list[int], changed: int) -> None:
    net = Builder(11)
    y = net.op("Gather", net.input("x", (1, 6, 9, 9)), net.ints(*order), axis=1)
    network = core().read_model(net.build("order", y).SerializeToString())
    assert keep_permutations(openvino(), network) == changed
    assert keep_permutations(openvino(), network) == 0


def attention(form: str, heads: int, tokens: int, batch: Dim) -> onnx.ModelProto:
    net = Builder(12)
    size, width = 8, 8 * heads
    x = net.input("x", (batch, tokens, width))
    if form == "joined":  # timm's qkv
        y = net.op("MatMul", x, net.weight((width, 3 * width), width))
        y = net.op("Reshape", y, net.ints(0, 0, 3, heads, size))
        y = net.op("Transpose", y, perm=[2, 0, 3, 1, 4])
        q, k, v = (net.op("Gather", y, net.constant(np.array(i)), axis=0) for i in range(3))
    else:
        q, k, v = (
            net.op(
                "Transpose",
                net.op("Reshape", net.op("MatMul", x, weight), net.ints(0, 0, heads, size)),
                perm=[0, 2, 1, 3],
            )
            for weight in (net.weight((width, width), width) for _ in range(3))
        )
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = net.op("Mul", scores, net.scalar(size**-0.5))
    y = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    if form != "unjoined":
        y = net.op("Transpose", y, perm=[0, 2, 1, 3])
        y = net.op("Reshape", y, net.ints(0, 0, width))
        y = net.op("MatMul", y, net.weight((width, width), width))
    return net.build("attention", y)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("form", ["joined", "parted", "unjoined"])
@pytest.mark.parametrize(("heads", "tokens"), [(4, 4), (4, 6)])
def test_attention_with_as_many_heads_as_tokens(
    heads: int, tokens: int, form: str, precision: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    for batch in (1, 2, "N"):
        model = attention(form, heads, tokens, batch)
        assert worst_db(model, precision, tmp_path, rng) > 35


@pytest.mark.parametrize(("tokens", "batch", "changed"), [(4, 2, 4), (6, 2, 0), (4, "N", 0)])
def test_only_swaps_of_equal_axes_are_changed(tokens: int, batch: Dim, changed: int) -> None:
    model = attention("parted", 4, tokens, batch)
    network = core().read_model(model.SerializeToString())
    assert separate_swapped_heads(openvino(), network) == changed
    assert separate_swapped_heads(openvino(), network) == 0
