"""Small networks that each accuracy method provably helps, and how to measure that it did."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import onnx

from calibrators.ranges.ranges import Ranges
from graphs.channel_groups import ChannelGroups
from graphs.view import GraphView
from quantization.improve.channels.equalize import equalizing_factors
from quantization.improve.channels.rescale import rescale
from quantization.measure.execution import load_int8, load_onnxruntime
from quantization.measure.fidelity import compare, run_all
from quantization.placement import Placement, Profile, place
from tests.networks import Builder
from tests.networks.running import minmax_ranges

Feeds = dict[str, np.ndarray]


def uneven_depthwise(activation: str = "Relu") -> onnx.ModelProto:
    """Expand, depthwise, project; channels before the depthwise layer differ up to 200 times."""
    net = Builder(5)
    x = net.conv(net.input("x", (1, 16, 12, 12)), 32, 1)
    spread = np.geomspace(0.05, 10, 32).astype(np.float32)
    for initializer in net.initializers[-2:]:
        values = onnx.numpy_helper.to_array(initializer)
        scaled = values * spread.reshape([-1, *[1] * (values.ndim - 1)])
        initializer.CopyFrom(onnx.numpy_helper.from_array(scaled, initializer.name))
    x = net.silu(x) if activation == "Silu" else net.op(activation, x)
    net.channels[x] = 32
    x = net.conv(x, 32, 3, groups=32)
    # The small channels count as much as the large: undo the spread.
    weight = net.initializers[-2]
    values = onnx.numpy_helper.to_array(weight) / spread.reshape(-1, 1, 1, 1)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    x = net.relu(x)
    return net.build("uneven_depthwise", net.conv(net.relu(net.conv(x, 32, 1)), 16, 1))


def uneven_residual() -> onnx.ModelProto:
    """A residual stage of two blocks whose channels differ up to 100 times, all of use."""
    net = Builder(8)
    x = net.relu(net.conv(net.input("x", (1, 16, 10, 10)), 32))
    for _ in range(2):
        y = net.conv(net.relu(net.conv(x, 32)), 32, gain=0.5)
        x = net.relu(net.op("Add", y, x))
        net.channels[x] = 32
    model = net.build("uneven_residual", net.conv(net.relu(net.conv(x, 32)), 16))
    groups = ChannelGroups(GraphView(model))
    spread = np.ones(groups.count)
    spread[groups.variables("Relu_0")] = np.geomspace(0.1, 10, 32)
    return rescale(GraphView(model), [*equalizing_factors(groups, spread)])


def pointwise(activation: str = "Relu", layers: int = 4) -> onnx.ModelProto:
    """1×1 convolutions with an activation between: every inner tensor can be centred."""
    net = Builder(6)
    x = net.input("x", (1, 32, 6, 6))
    for _ in range(layers):
        y = net.conv(x, 32, 1)
        if activation == "SiLU":  # as exporters write it
            x = net.op("Mul", y, net.op("Sigmoid", y))
        else:
            x = net.relu6(y) if activation == "Clip" else net.op(activation, y)
        net.channels[x] = 32
    return net.build("pointwise", net.conv(x, 16, 1))


def samples_of(model: onnx.ModelProto, rng: np.random.Generator, count: int) -> list[Feeds]:
    """Inputs whose neighbouring values are alike, as those of images are; batch 1."""
    value = model.graph.input[0]
    shape = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
    mixing = np.linalg.qr(rng.standard_normal((shape[1], shape[1])))[0]
    mixing *= np.geomspace(1.0, 0.05, shape[1])
    feeds = []
    for _ in range(count):
        x = rng.standard_normal(shape)
        x = np.einsum("ij,nj...->ni...", mixing, x)
        feeds.append({value.name: x.astype(np.float32)})
    return feeds


def calibrated(
    model: onnx.ModelProto, feeds: Sequence[Feeds], profile: Profile = "tensorrt"
) -> tuple[Placement, Ranges]:
    """Placement, and min-max ranges over all samples."""
    placement = place(model, profile=profile)
    each = [minmax_ranges(model, placement.tensors, feed) for feed in feeds]
    largest = {
        name: max((ranges[name] for ranges in each), key=lambda entry: entry.amax)
        for name in placement.tensors
    }
    return placement, dataclasses.replace(each[0], tensors=largest)


def sqnr_db(exact: onnx.ModelProto, model: onnx.ModelProto, feeds: Sequence[Feeds]) -> float:
    """SQNR of all outputs over all samples."""
    wanted = run_all(load_onnxruntime(exact), feeds)
    return compare(load_int8(model), feeds, wanted).sqnr_db


def largest_difference(one: onnx.ModelProto, other: onnx.ModelProto, feeds: Feeds) -> float:
    """Largest difference of the outputs, as a share of the largest output."""
    first, second = load_onnxruntime(one)(feeds), load_onnxruntime(other)(feeds)
    size = max(float(np.abs(values).max()) for values in first.values())
    return max(float(np.abs(first[name] - second[name]).max()) for name in first) / size
