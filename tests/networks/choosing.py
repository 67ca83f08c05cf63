"""Networks that end in a choice: boxes that are left over, regions looked at again, a class."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.networks.builder import Builder


def _features(net: Builder, x: str, channels: int = 32) -> str:
    for _ in range(3):
        x = net.relu(net.conv(x, channels))
    return x


def _integers(net: Builder, *values: int) -> str:
    return net.constant(np.array(values, np.int64))


def _boxes(net: Builder, features: str, size: int) -> tuple[str, str, str]:
    """Boxes (N, 4), scores (1, 4, N) and which boxes NonMaxSuppression keeps (kept,)."""
    found = net.op("Reshape", net.conv(features, 8, 1), _integers(net, 1, 8, -1))
    halves = net.op("Slice", found, _integers(net, 0), _integers(net, 4), _integers(net, 1))
    scores = net.op("Slice", found, _integers(net, 4), _integers(net, 8), _integers(net, 1))
    boxes = net.op("Transpose", net.op("Sigmoid", halves), perm=[0, 2, 1])
    boxes = net.op("Mul", boxes, net.constant(np.float32(size)))
    scores = net.op("Sigmoid", scores)
    limits = [net.constant(np.array([value], np.float32)) for value in (0.4, 0.5)]
    kept = net.op("NonMaxSuppression", boxes, scores, _integers(net, 50), *limits)
    rows = net.op("Slice", kept, _integers(net, 2), _integers(net, 3), _integers(net, 1))
    return (
        net.op("Squeeze", boxes, _integers(net, 0)),
        scores,
        net.op("Reshape", rows, _integers(net, -1)),
    )


def detector_with_suppression(size: int = 16) -> onnx.ModelProto:
    """Boxes and scores of those that are left: as many as there happen to be."""
    net = Builder(9)
    boxes, scores, rows = _boxes(net, _features(net, net.input("x", (1, 3, size, size))), size)
    flat = net.op("Transpose", net.op("Squeeze", scores, _integers(net, 0)), perm=[1, 0])
    return net.build("detector", net.op("Gather", boxes, rows), net.op("Gather", flat, rows))


def two_stages(size: int = 16) -> onnx.ModelProto:
    """A second stage that looks at the regions of the boxes that are left."""
    net = Builder(10)
    features = _features(net, net.input("x", (1, 3, size, size)))
    boxes, _, rows = _boxes(net, features, size)
    chosen = net.op("Gather", boxes, rows)
    places = net.op("Mul", net.op("Cast", rows, to=TensorProto.FLOAT), net.constant(np.float32(0)))
    batch = net.op("Cast", places, to=TensorProto.INT64)
    regions = net.op(
        "RoiAlign", features, chosen, batch, output_height=3, output_width=3, sampling_ratio=2
    )
    net.channels[regions] = 32
    x = net.relu(net.conv(regions, 32))
    flat = net.op("Reshape", net.op("GlobalAveragePool", x), _integers(net, -1, 32))
    return net.build("two stages", net.gemm(flat, 32, 5), chosen)


def segmenter(size: int = 16) -> onnx.ModelProto:
    """The class of each pixel."""
    net = Builder(11)
    scores = net.conv(_features(net, net.input("x", ("N", 3, size, size))), 8, 1)
    return net.build("segmenter", net.op("ArgMax", scores, axis=1, keepdims=0))


def best_boxes(size: int = 16, *, decoded: bool = False) -> onnx.ModelProto:
    """The ten best places in the order of their scores, as detectors without NMS give them.

    With ``decoded`` a layer looks at them again, as a decoder does at the queries it is given.
    """
    net = Builder(13)
    features = _features(net, net.input("x", ("N", 3, size, size)))
    found = net.op("Flatten", net.conv(features, 4, 1), axis=2)
    boxes = net.op("Transpose", net.op("Reshape", found, _integers(net, 0, 4, -1)), perm=[0, 2, 1])
    scores = net.op("ReduceMax", net.op("Sigmoid", boxes), axes=[2], keepdims=0)
    best = net.op("TopK", scores, _integers(net, 10), outputs=2)
    places = f"{best}.1"
    rows = net.op(
        "Expand", net.op("Unsqueeze", places, _integers(net, 2)), _integers(net, 1, 10, 4)
    )
    chosen = net.op("GatherElements", boxes, rows, axis=1)
    classes = net.op("Cast", places, to=TensorProto.FLOAT)
    return net.build(
        "decoded" if decoded else "best",
        net.linear(chosen, 4, 6) if decoded else chosen,
        best,
        *([] if decoded else [classes]),
    )


def masked() -> onnx.ModelProto:
    """Values picked where a mask that is an input says so: the same ones in INT8."""
    net = Builder(12)
    x = net.input("x", (1, 32, 8, 8))
    mask = net.input("mask", (1, 32, 8, 8), TensorProto.INT64)
    places = net.op("Transpose", net.op("NonZero", mask), perm=[1, 0])
    return net.build("masked", net.op("GatherND", net.relu(net.conv(x, 32)), places))


def suppression_in_a_branch() -> onnx.ModelProto:
    """The NonMaxSuppression inside an If, as exporters of torchvision's detectors write it."""
    model = detector_with_suppression()
    graph = model.graph
    node = next(n for n in graph.node if n.op_type == "NonMaxSuppression")
    kept = node.output[0]
    inner = onnx.NodeProto()
    inner.CopyFrom(node)
    inner.output[0] = "inner_kept"
    info = helper.make_tensor_value_info("inner_kept", TensorProto.INT64, [None, 3])
    body = helper.make_graph([inner], "body", [], [info])
    other = helper.make_graph(
        [
            helper.make_node(
                "ConstantOfShape",
                ["no_boxes"],
                ["none"],
                value=helper.make_tensor("v", TensorProto.INT64, [1], [0]),
            )
        ],
        "other",
        [],
        [helper.make_tensor_value_info("none", TensorProto.INT64, [None, 3])],
    )
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 3]), "no_boxes"))
    branch = helper.make_node(
        "If", ["any"], [kept], name="branch", then_branch=body, else_branch=other
    )
    some = helper.make_node("ReduceMax", [node.input[1]], ["best"], name="best", keepdims=0)
    more = helper.make_node("Greater", ["best", "limit"], ["any"], name="any")
    graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.1), "limit"))
    at = list(graph.node).index(node)
    rest = list(graph.node)[at + 1 :]
    del graph.node[at:]
    graph.node.extend([some, more, branch, *rest])
    onnx.checker.check_model(model, full_check=True)
    return model
