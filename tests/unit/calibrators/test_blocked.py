"""Outputs in the order in which the runtime holds them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from calibrators.samples.samples import Sample
from calibrators.statistics import observe as observing
from calibrators.statistics.blocked import as_held
from calibrators.statistics.observe import observe
from calibrators.statistics.tensor_statistics import TensorStatistics
from tests.networks.builder import Builder

BLOCKED = "com.microsoft.nchwc"


def optimized(channels: int, *, more: tuple[onnx.NodeProto, ...] = ()) -> onnx.ModelProto:
    """As onnxruntime writes a convolution whose output is given out."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["held"], domain=BLOCKED),
        helper.make_node("ReorderOutput", ["held"], ["y"], domain=BLOCKED, channels=channels),
        helper.make_node("GlobalAveragePool", ["held"], ["pooled"], domain=BLOCKED),
        *more,
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "optimized",
        [value("x", TensorProto.FLOAT, [1, 8, 4, 4]), value("w", TensorProto.FLOAT, None)],
        [value(name, TensorProto.FLOAT, ["N", channels, 4, 4]) for name in ("y", "pooled")],
    )
    return helper.make_model(graph)


def test_an_output_is_what_is_held() -> None:
    model = optimized(32)
    assert as_held(model)
    assert [node.op_type for node in model.graph.node] == ["Conv", "GlobalAveragePool"]
    assert model.graph.node[0].output[0] == model.graph.node[1].input[0] == "y"
    assert [value.name for value in model.graph.output] == ["y", "pooled"]
    assert not model.graph.output[0].type.tensor_type.HasField("shape")


@pytest.mark.parametrize(
    "model",
    [
        optimized(24),  # blocks of 16 are filled up
        optimized(32, more=(helper.make_node("Relu", ["y"], ["read"]),)),
        optimized(
            32,
            more=(
                helper.make_node("ReorderOutput", ["held"], ["z"], domain=BLOCKED, channels=32),
                helper.make_node("Relu", ["y"], ["pooled2"]),
            ),
        ),
    ],
    ids=["filled up", "read", "read beside another"],
)
def test_what_somebody_needs_in_order_stays(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert not as_held(model)
    assert model.SerializeToString() == before


def network(batch: int | str) -> onnx.ModelProto:
    """Convolutions of 32, of 24 and of 12 channels, and a residual sum."""
    net = Builder(seed=2)
    x = net.relu(net.conv(net.input("images", [batch, 3, 17, 13]), 32))
    y = net.op("Add", net.relu(net.conv(x, 32)), x)
    y = net.relu(net.conv(y, 24, stride=2))
    y = net.op("Sigmoid", net.conv(y, 12))
    return net.build("mixed", net.op("Flatten", net.op("GlobalAveragePool", y)))


@pytest.mark.parametrize("batch", ["N", 2])
def test_the_statistics_are_those_of_the_ordered_values(
    batch: int | str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(batch)
    names = [name for node in model.graph.node for name in node.output]
    images = [rng.standard_normal((1, 3, 17, 13)).astype(np.float32) for _ in range(5)]
    samples = [Sample(inputs={"images": x}, name=str(i)) for i, x in enumerate(images)]
    left: list[int] = []

    def noted(changed: onnx.ModelProto) -> bool:
        found = as_held(changed)
        left.append(sum(node.op_type == "ReorderOutput" for node in changed.graph.node))
        return found

    monkeypatch.setattr(observing, "as_held", noted)
    found = observe(model, names, samples)
    monkeypatch.setattr(observing, "as_held", lambda changed: False)
    assert found.digest == observe(model, names, samples).digest
    if batch == "N":
        exposed = onnx.ModelProto()
        exposed.CopyFrom(model)
        del exposed.graph.output[:]
        exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        session = onnxruntime.InferenceSession(exposed.SerializeToString())
        for name in names:
            values = [session.run([name], {"images": x})[0].ravel() for x in images]
            assert found.tensors[name].count == sum(map(len, values))
            whole = TensorStatistics.of(np.concatenate(values))
            assert found.tensors[name].amax == pytest.approx(whole.amax, rel=1e-5)
    assert len(left) == 1
    assert left[0] < sum(node.op_type != "Flatten" for node in model.graph.node)


def test_a_runtime_that_refuses_its_own_graph_runs_the_model(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(changed: onnx.ModelProto) -> bool:
        del changed.graph.input[:]
        changed.graph.ClearField("node")
        return True

    model = network("N")
    samples = [Sample(inputs={"images": rng.standard_normal((1, 3, 17, 13), np.float32)}, name="0")]
    names = [name for node in model.graph.node for name in node.output]
    wanted = observe(model, names, samples)
    monkeypatch.setattr(observing, "as_held", broken)
    assert observe(model, names, samples).digest == wanted.digest
