"""NVIDIA's strongly typed builder accepts float16 networks with and without Q/DQ."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from quantization import insert_qdq, place, prepare
from quantization.write.fp16 import to_float16
from tests.networks import NETWORKS, Builder
from tests.observed import observed_amax, quantized, random_feeds, ranges_of
from tests.rtx_parser import parse


@pytest.mark.parametrize("name", ["resnet_bottleneck", "detector", "unet_transposed", "bert"])
@pytest.mark.parametrize("int8", [False, True], ids=["float", "int8"])
def test_network_builds(name: str, int8: bool, rng: np.random.Generator) -> None:
    model = prepare(NETWORKS[name]())
    feeds = random_feeds(model, rng)
    source = quantized(model, feeds) if int8 else model
    result = to_float16(source, observed_amax(model, feeds))
    verdict = parse(result.model, build=True)
    assert verdict.errors == []
    assert verdict.plan is not None


def test_kept_operators_build(rng: np.random.Generator) -> None:
    model = prepare(NETWORKS["mobilenet_v3"]())
    feeds = random_feeds(model, rng)
    int8 = quantized(model, feeds)
    amax = observed_amax(model, feeds)
    amax |= dict.fromkeys(list(amax)[4::7], 1e6)  # as if every seventh tensor overflowed
    result = to_float16(int8, amax)
    assert len(result.kept) > 5
    assert parse(result.model, build=True).errors == []


def test_half_input_and_output_build(rng: np.random.Generator) -> None:
    model = prepare(NETWORKS["resnet_basic"]())
    result = to_float16(quantized(model, random_feeds(model, rng)), keep_io=False)
    assert result.model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert parse(result.model, build=True).errors == []


def test_a_channel_that_died_in_training_builds(rng: np.random.Generator) -> None:
    """PaddleOCR's recogniser has depthwise weights of 1e-15: their scale would be 0 in float16."""
    model = prepare(NETWORKS["resnet_basic"]())
    weights = [t for t in model.graph.initializer if len(t.dims) == 4]
    values = onnx.numpy_helper.to_array(weights[2]).copy()
    values[1] *= 1e-15
    weights[2].CopyFrom(onnx.numpy_helper.from_array(values, weights[2].name))
    feeds = random_feeds(model, rng)
    int8 = quantized(model, feeds)
    result = to_float16(int8, observed_amax(model, feeds))
    scales = [onnx.numpy_helper.to_array(t) for t in result.model.graph.initializer]
    halves = [scale for scale in scales if scale.dtype == np.float16 and scale.ndim == 1]
    assert any((scale == np.finfo(np.float16).smallest_subnormal).any() for scale in halves)
    assert parse(result.model, build=True).errors == []


@pytest.mark.parametrize("op_type", ["GRU", "LSTM", "RNN"])
@pytest.mark.parametrize("lengths", [False, True])
def test_recurrent_layers_build(op_type: str, lengths: bool, rng: np.random.Generator) -> None:
    """With sequence lengths the parser refuses float16, so these stay float32."""
    gates = {"GRU": 3, "LSTM": 4, "RNN": 1}[op_type]
    weights = {
        name: onnx.numpy_helper.from_array(rng.normal(size=(1, *size)).astype(np.float32), name)
        for name, size in (("w", (gates * 8, 8)), ("r", (gates * 8, 8)), ("b", (gates * 16,)))
    }
    inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [5, "N", 8])]
    if lengths:
        inputs.append(onnx.helper.make_tensor_value_info("l", onnx.TensorProto.INT32, ["N"]))
    node = onnx.helper.make_node(
        op_type, ["x", *weights, "l" if lengths else ""], ["y"], name="rnn", hidden_size=8
    )
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph([node], "speech", inputs, [output], list(weights.values()))
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    result = to_float16(model, {"x": 3.0, "y": 1.0})
    assert [entry.node for entry in result.kept] == (["rnn"] if lengths else [])
    assert parse(result.model, build=True).errors == []


def test_a_scale_below_float16_builds(rng: np.random.Generator) -> None:
    """The other scales of its layer stay float32 with it; one of each ends the build."""
    net = Builder()
    x = net.relu(net.linear(net.input("x", (1, 32, 64)), 64, 64))
    model = prepare(net.build("small", net.op("Tanh", net.linear(x, 64, 64))))
    feeds = {"x": (1e-5 * rng.normal(size=(1, 32, 64))).astype(np.float32)}
    amax, placement = observed_amax(model, feeds), place(model)
    ranges = ranges_of(model, amax)
    tiny = {n: dataclasses.replace(ranges[n], amax=4e-5) for n in placement.tensors}
    int8 = insert_qdq(model, placement, ranges.replace(tiny))
    assert parse(to_float16(int8, amax).model, build=True).errors == []
