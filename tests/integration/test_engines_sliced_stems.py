"""A convolution behind slices of a picture, joined: same numbers, and only where it is one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import engines
from engines.openvino.library import core, openvino, settings
from engines.openvino.rewrites.fake_quantize import fuse_qdq
from engines.openvino.rewrites.sliced_stems import join_sliced_stems
from quantization.placement import place
from quantization.write.insert import insert_qdq
from tests.networks import Builder
from tests.networks.running import minmax_ranges, random_feeds, run, sqnr_db

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

END = 2**63 - 1
QUARTERS = [(0, 0), (1, 0), (0, 1), (1, 1)]  # in YOLOX's order


def sliced(
    starts: Sequence[tuple[int, int]],
    *,
    steps: tuple[int, int] = (2, 2),
    size: Sequence[Any] = (12, 16),
    batch: Any = 2,
    at_once: bool = False,
    kernel: int = 3,
    **attributes: Any,
) -> onnx.ModelProto:
    """Slices of a picture of three channels, and a convolution with a bias and a ReLU."""
    net = Builder()
    x = net.input("x", (batch, 3, *size))
    parts = []
    for row, column in starts:
        if at_once:
            ends = (net.ints(row, column), net.ints(END, END), net.ints(-2, 3), net.ints(*steps))
            parts.append(net.op("Slice", x, *ends))
        else:
            y = net.op("Slice", x, net.ints(row), net.ints(END), net.ints(2), net.ints(steps[0]))
            ends = (net.ints(column), net.ints(END), net.ints(3), net.ints(steps[1]))
            parts.append(net.op("Slice", y, *ends))
    stem = net.op("Concat", *parts, axis=1)
    channels = 3 * len(starts)
    weight = net.weight((8, channels, kernel, kernel), channels * kernel**2)
    y = net.op("Conv", stem, weight, net.weight((8,), 4), kernel_shape=[kernel] * 2, **attributes)
    net.channels[y] = 8
    return net.build("stem", net.conv(net.relu(y), 4))


def compiled(model: onnx.ModelProto, feeds: Any) -> tuple[int, list[np.ndarray]]:
    """How many stems were joined, and what the network computes with and without it."""
    networks = [core().read_model(model.SerializeToString()) for _ in range(2)]
    for network in networks:
        fuse_qdq(openvino(), network)
    count = join_sliced_stems(openvino(), networks[1])
    kinds = [op.get_type_name() for op in networks[1].get_ordered_ops()]
    assert ("Slice" in kinds) is (count == 0)
    results = [
        next(iter(core().compile_model(network, "CPU", settings(1, "f32"))(feeds).values()))
        for network in networks
    ]
    return count, results


def quantized(model: onnx.ModelProto, feeds: Any) -> onnx.ModelProto:
    placement = place(model, profile="cpu", portable=True)
    return insert_qdq(model, placement, minmax_ranges(model, placement.tensors, feeds))


def bounded(model: onnx.ModelProto, largest: int) -> onnx.ModelProto:
    """The same graph with other codes, none of which saturates with any other."""
    for tensor in model.graph.initializer:
        codes = numpy_helper.to_array(tensor)
        if codes.dtype == np.int8 and codes.ndim == 4:
            tensor.CopyFrom(numpy_helper.from_array(codes.clip(-largest, largest), tensor.name))
    return model


@pytest.mark.parametrize("order", range(3))
@pytest.mark.parametrize("int8", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize(
    "shape",
    [
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 1, 2, 0], "strides": [1, 2]},
        {"kernel": 1, "at_once": True},
        {"batch": "N", "pads": [1, 1, 1, 1]},
        {"steps": (2, 1), "pads": [1, 1, 1, 1]},
        {"steps": (2, 3), "size": (12, 15), "pads": [1, 1, 1, 1]},
    ],
    ids=str,
)
def test_same_numbers(
    shape: dict[str, Any], int8: bool, order: int, rng: np.random.Generator
) -> None:
    steps = shape.get("steps", (2, 2))
    quarters = list(itertools.product(range(steps[0]), range(steps[1])))
    rng.shuffle(quarters)
    model = sliced(QUARTERS if steps == (2, 2) and not order else quarters, **shape)
    feeds = random_feeds(model, rng)
    if int8:
        model = bounded(quantized(model, feeds), largest=64)
    count, (before, after) = compiled(model, feeds)
    assert count == 1
    reference = next(iter(run(model, feeds, optimize=False).values()))
    least = 30 if int8 else 100
    assert sqnr_db(reference, after) > least
    assert sqnr_db(before, after) > least


@pytest.mark.parametrize(
    "shape",
    [
        {"starts": QUARTERS[:3]},
        {"starts": [*QUARTERS[:3], (0, 0)]},
        {"starts": [*QUARTERS, (0, 0)]},
        {"starts": [(0, 0), (0, 0)], "steps": (2, 1)},
        {"starts": QUARTERS, "dilations": [2, 2]},
        {"starts": QUARTERS, "auto_pad": "SAME_UPPER"},
        {"starts": QUARTERS, "size": ("H", 16)},
    ],
    ids=str,
)
def test_other_slices_stay(shape: dict[str, Any], rng: np.random.Generator) -> None:
    model = sliced(**shape)
    feeds = {"x": rng.standard_normal((2, 3, 12, 16)).astype(np.float32)}
    count, (before, after) = compiled(model, feeds)
    assert count == 0
    assert np.array_equal(before, after)


def test_weights_that_would_saturate_without_vnni(rng: np.random.Generator) -> None:
    """Neighbours in twelve channels are within the bound; those in three are others."""
    model = sliced(QUARTERS, pads=[1, 1, 1, 1])
    feeds = random_feeds(model, rng)
    int8 = quantized(model, feeds)
    (tensor,) = (t for t in int8.graph.initializer if list(t.dims) == [8, 12, 3, 3])
    codes = np.zeros(tensor.dims, np.int8)
    codes[:, 3:5] = 100  # channels 0 and 1 of the second quarter
    tensor.CopyFrom(numpy_helper.from_array(codes, tensor.name))
    assert engines.needed_cpu_isa(int8) == "portable"
    count, _ = compiled(int8, feeds)
    assert count == 0
    codes[:, 2] = 100  # saturates as it is: the engine needs VNNI anyway
    tensor.CopyFrom(numpy_helper.from_array(codes, tensor.name))
    assert engines.needed_cpu_isa(int8) == "vnni"
    count, _ = compiled(int8, feeds)
    assert count == 1


def test_a_concat_of_unknown_rank_is_left_alone() -> None:
    """No rank, no picture."""
    ops = openvino().opset13
    x = ops.parameter(openvino().PartialShape.dynamic(), np.float32)
    joined = ops.concat([x, x], axis=1)
    weight = ops.constant(np.ones((4, 6, 1, 1), np.float32))
    layer = ops.convolution(joined, weight, [1, 1], [0, 0], [0, 0], [1, 1])
    network = openvino().Model([layer], [x], "unknown")
    assert join_sliced_stems(openvino(), network) == 0
