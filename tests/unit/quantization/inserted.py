"""Models with Q/DQ, and the laws that hold for all of them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from quantization.placement import place
from quantization.write.insert import insert_qdq
from tests.networks import Builder
from tests.networks.running import minmax_ranges, random_feeds


def branches() -> onnx.ModelProto:
    """A residual block, a Concat and a weight that two layers share."""
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    shared = net.weight((32, 32, 3, 3), 288)
    y = net.relu(net.op("Conv", x, shared, kernel_shape=[3, 3], pads=[1] * 4))
    y = net.op("Conv", y, shared, kernel_shape=[3, 3], pads=[1] * 4)
    net.channels[y] = 32
    total = net.op("Add", y, x)
    joint = net.concat(net.relu(total), x)
    return net.build("branches", net.relu(net.conv(joint, 64)))


def quantized(
    model: onnx.ModelProto,
    profile: str = "tensorrt",
    *,
    unsigned: bool = False,
    **options: object,
) -> onnx.ModelProto:
    placement = place(model, profile=profile, unsigned=unsigned)
    feeds = random_feeds(model, np.random.default_rng(0))
    return insert_qdq(model, placement, minmax_ranges(model, placement.tensors, feeds), **options)


def initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def check_laws(model: onnx.ModelProto, *, codes: tuple[type, ...] = (np.int8,)) -> None:
    """Every Q has one DQ of the same scale and zero point 0; scales are positive float32."""
    values = initializers(model)
    nodes = model.graph.node
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in nodes:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = values[node.input[1]], values[node.input[2]]
        assert scale.dtype == np.float32
        assert np.isfinite(scale).all()
        assert (scale > 0).all()
        assert zero.dtype in codes
        assert not zero.any()
        assert zero.shape == scale.shape
        if node.op_type == "QuantizeLinear":
            (reader,) = readers[node.output[0]]
            assert reader.op_type == "DequantizeLinear"
            assert list(reader.input[1:]) == list(node.input[1:])
        elif node.input[0] in values:
            stored = values[node.input[0]]
            assert stored.dtype == np.int8
            assert stored.min() >= -127
    sources = [node.input[0] for node in nodes if node.op_type == "QuantizeLinear"]
    assert len(sources) == len(set(sources)), "one pair per tensor"
    outputs = {output.name for output in model.graph.output}
    dequantized = {n.output[0] for n in nodes if n.op_type == "DequantizeLinear"}
    assert outputs.isdisjoint(dequantized)
