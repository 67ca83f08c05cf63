"""Models that onnxruntime quantized dynamically: their weights as numbers, calibrated anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import engines
from artefacts.errors import ModelError
from build_engine import build
from graphs.operators import INTEGER_OPS
from quantization import from_dynamic, is_dynamic, prepare, quantized_format
from quantization.measure.execution import load_onnxruntime
from tests.networks import Builder

pytest.importorskip("onnxruntime.quantization")


def dense(rng: np.random.Generator) -> onnx.ModelProto:
    net = Builder(seed=3)
    hidden = net.relu(net.linear(net.input("x", ("N", 12, 32)), 32, 48))
    return net.build("dense", net.linear(hidden, 48, 24))


def convolved(rng: np.random.Generator) -> onnx.ModelProto:
    net = Builder(seed=4)
    x = net.relu(net.conv(net.input("x", ("N", 8, 10, 10)), 16))
    return net.build("convolved", net.conv(net.relu(net.conv(x, 16, groups=16)), 8, 1))


def looked_up(rng: np.random.Generator) -> onnx.ModelProto:
    """An embedding, read as it is and moved, an LSTM of two directions, a product."""
    net = Builder(seed=5)
    ids = net.input("ids", ("N", 7), TensorProto.INT64)
    table = net.constant(rng.normal(size=(40, 16)).astype(np.float32))
    tokens = net.op("Gather", table, ids)
    weights = [
        net.constant((0.3 * rng.normal(size=shape)).astype(np.float32))
        for shape in ((2, 48, 16), (2, 48, 12), (2, 96))
    ]
    moved = net.op("Transpose", tokens, perm=[1, 0, 2])
    states = net.op("LSTM", moved, *weights, outputs=3, direction="bidirectional", hidden_size=12)
    joined = net.op("Transpose", states, perm=[2, 0, 1, 3])
    flat = net.op("Reshape", joined, net.ints(0, 0, -1))
    seen = net.op("ReduceMean", tokens, axes=[1], keepdims=1)
    return net.build("looked_up", net.linear(flat, 24, 16), net.linear(seen, 16, 16))


def feeds(model: onnx.ModelProto, rng: np.random.Generator) -> dict[str, np.ndarray]:
    value = model.graph.input[0]
    shape = [dim.dim_value or 3 for dim in value.type.tensor_type.shape.dim]
    if value.type.tensor_type.elem_type == TensorProto.INT64:
        return {value.name: rng.integers(0, 40, shape)}
    return {value.name: rng.standard_normal(shape).astype(np.float32)}


def quantized(model: onnx.ModelProto, folder: Path, **options: bool) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    onnx.save(model, folder / "float.onnx")
    kind = QuantType.QInt8 if options.pop("signed", True) else QuantType.QUInt8
    quantize_dynamic(folder / "float.onnx", folder / "dynamic.onnx", weight_type=kind, **options)
    return onnx.load(folder / "dynamic.onnx")


NETWORKS = {"dense": dense, "convolved": convolved, "looked up": looked_up}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("per_channel", [True, False])
def test_nothing_is_left_of_codes(
    name: str, signed: bool, per_channel: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    model = NETWORKS[name](rng)
    if not signed and per_channel:
        per_channel = name == "dense"  # onnxruntime writes no valid model of the others
    theirs = quantized(model, tmp_path, signed=signed, per_channel=per_channel)
    assert is_dynamic(theirs)
    ours, layers = from_dynamic(theirs)
    assert layers >= 2
    plain = prepare(ours)
    assert quantized_format(plain) is None
    assert not {node.op_type for node in plain.graph.node} & INTEGER_OPS
    assert not [node for node in plain.graph.node if node.op_type in ("Floor", "Cast")]
    given = feeds(model, rng)
    wanted, found = load_onnxruntime(model)(given), load_onnxruntime(plain)(given)
    rounded = load_onnxruntime(theirs)(given)
    for key, value in wanted.items():
        noise = np.square(found[key] - value).sum()
        # Weights in 8 bits are all that is rounded; theirs rounds activations, too.
        assert 10 * np.log10(np.square(value).sum() / noise) > 28
        assert noise < 1.5 * np.square(rounded[key] - value).sum()


def test_the_build_calibrates_it_and_says_so(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    model = convolved(rng)
    quantized(model, tmp_path)
    samples = [{"x": rng.standard_normal((1, 8, 10, 10)).astype(np.float32)} for _ in range(12)]
    build(
        tmp_path / "dynamic.onnx",
        tmp_path / "m.engine",
        target="cpu",
        calib_data=samples,
        show=True,
    )
    said = capsys.readouterr().out
    assert "dynamically quantized: the weights of 3 layers are taken as the numbers" in said
    wanted = load_onnxruntime(model)
    with engines.load(tmp_path / "m.engine") as engine:
        noise = signal = 0.0
        for sample in samples:
            for key, value in wanted(sample).items():
                noise += float(np.square(engine(sample)[key] - value).sum())
                signal += float(np.square(value).sum())
    assert 10 * np.log10(signal / noise) > 20


def test_codes_that_nothing_quantized_are_refused() -> None:
    """An integer product of the caller's own codes is no dynamic quantization."""
    inputs = [helper.make_tensor_value_info("q", TensorProto.UINT8, [2, 4])]
    inputs.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4]))
    weight = numpy_helper.from_array(np.ones((4, 3), np.int8), "w")
    nodes = [
        helper.make_node("MatMulInteger", ["q", "w"], ["y"], name="product"),
        helper.make_node("DynamicQuantizeLinear", ["x"], ["c", "s", "z"]),
        helper.make_node("DequantizeLinear", ["c", "s", "z"], ["r"]),
    ]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.INT32, [2, 3]),
        helper.make_tensor_value_info("r", TensorProto.FLOAT, [2, 4]),
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(ModelError, match=r"input 'q' of node 'product' \(MatMulInteger\) holds co"):
        from_dynamic(model)
