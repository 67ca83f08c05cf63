"""Writing Q/DQ: what the graph then says, what it computes, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from artefacts.errors import ArtefactError, ModelError
from calibrators.ranges.ranges import Range, Ranges
from graphs.identity import graph_hash
from quantization.lint.lint import lint
from quantization.placement import place
from quantization.write.insert import insert_qdq
from tests.networks import NETWORKS, Builder
from tests.networks.running import minmax_ranges, random_feeds, run, sqnr_db
from tests.unit.quantization.inserted import branches, check_laws, initializers, quantized

NAMES = sorted(NETWORKS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("profile", ["tensorrt", "cpu", "dla"])
def test_laws_hold_on_every_network(name: str, profile: str) -> None:
    model = NETWORKS[name]()
    before = model.SerializeToString(deterministic=True)
    result = quantized(model, profile)
    assert model.SerializeToString(deterministic=True) == before, "the input is not edited"
    onnx.checker.check_model(result, full_check=True)
    check_laws(result)
    assert profile != "tensorrt" or lint(result) == (), "the linter finds nothing to mend"
    assert [i.name for i in result.graph.input] == [i.name for i in model.graph.input]
    assert list(result.graph.output) == list(model.graph.output)


def test_dead_channels_and_dead_weights_have_a_positive_scale() -> None:
    net = Builder()
    weight = np.zeros((32, 32, 3, 3), np.float32)
    weight[1:4] = 1.0
    y = net.op("Conv", net.input("x", (1, 32, 8, 8)), net.constant(weight), kernel_shape=[3, 3])
    result = quantized(net.build("dead", y))
    check_laws(result)
    feeds = {"x": np.ones((1, 32, 8, 8), np.float32)}
    found = run(result, feeds)[y][0, :, 0, 0]
    np.testing.assert_allclose(found, [0, 288, 288, 288, *[0] * 28], rtol=0.05)


def test_unsigned_codes_only_where_nothing_is_negative() -> None:
    model = branches()
    result = quantized(model, "cpu", unsigned=True)
    check_laws(result, codes=(np.int8, np.uint8))
    values = initializers(result)
    kinds = {
        node.input[0]: values[node.input[2]].dtype
        for node in result.graph.node
        if node.op_type == "QuantizeLinear"
    }
    assert kinds["Relu_0"] == np.uint8
    assert kinds["x"] == np.int8
    assert kinds["Conv_2"] == np.int8
    feeds = random_feeds(model, np.random.default_rng(3))
    reference = run(model, feeds)
    signed = run(quantized(model, "cpu"), feeds)
    for name, value in run(result, feeds).items():
        assert sqnr_db(reference[name], value) > sqnr_db(reference[name], signed[name]) - 1
    with pytest.raises(ModelError, match="tensorrt profile, expected cpu"):
        quantized(model, unsigned=True)


def test_refused_requests_say_what_to_do(rng: np.random.Generator) -> None:
    model = branches()
    placement = place(model)
    ranges = minmax_ranges(model, placement.tensors, random_feeds(model, rng))
    result = insert_qdq(model, placement, ranges)
    with pytest.raises(ModelError, match=r"'branches' has \d+ Q/DQ nodes, expected none"):
        insert_qdq(result, placement, ranges)
    other = dataclasses.replace(ranges, graph_hash="f" * 64)
    with pytest.raises(ArtefactError, match=r"graph ffffffffffff, expected [0-9a-f]{12}.*again"):
        insert_qdq(model, placement, other)
    partial = dataclasses.replace(ranges, tensors={"x": ranges["x"]})
    with pytest.raises(ArtefactError, match="has no range among 1"):
        insert_qdq(model, placement, partial)
    old = onnx.ModelProto()
    old.CopyFrom(model)
    old.opset_import[0].version = 12
    with pytest.raises(ModelError, match="has opset 12, expected 13"):
        insert_qdq(old, placement, dataclasses.replace(ranges, graph_hash=graph_hash(old)))
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    weight = numpy_helper.to_array(broken.graph.initializer[0]).copy()
    weight[0, 0, 0, 0] = np.nan
    broken.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "weight_0"))
    with pytest.raises(ModelError, match=r"weight_0 of n_Conv_0 is not finite"):
        insert_qdq(broken, placement, dataclasses.replace(ranges, graph_hash=graph_hash(broken)))


def test_metadata_names_graph_and_ranges(rng: np.random.Generator) -> None:
    model = branches()
    helper.set_model_props(model, {"author": "somebody"})
    placement = place(model)
    ranges = minmax_ranges(model, placement.tensors, random_feeds(model, rng))
    props = {e.key: e.value for e in insert_qdq(model, placement, ranges).metadata_props}
    assert props == {
        "author": "somebody",
        "int8.graph_hash": graph_hash(model),
        "int8.ranges_digest": ranges.digest,
        "int8.placement": "tensorrt",
    }


def test_taken_names_and_unnamed_nodes() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x_scale", (1, 32, 8, 8)), 32))
    model = net.build("names", net.relu(net.conv(x, 32)))
    for node in model.graph.node:
        node.name = ""
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "x_scale_scale"
    result = quantized(model)
    onnx.checker.check_model(result, full_check=True)
    check_laws(result)
    assert len(initializers(result)) > len(initializers(model))


def test_tensors_that_a_control_flow_body_reads_stay() -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    y = net.conv(x, 32)
    info = [helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)]
    body = helper.make_graph([helper.make_node("Relu", [y], ["inner"])], "then", [], info)
    scaled = helper.make_node("ReduceMax", ["weight_1"], ["inner"], keepdims=0)
    other = helper.make_graph([scaled], "else", [], info)
    out = net.op("If", net.constant(np.bool_(True)), then_branch=body, else_branch=other)
    net.nodes[-1].output[0] = out
    graph = helper.make_graph(
        net.nodes,
        "branching",
        net.inputs,
        [helper.make_tensor_value_info(out, onnx.TensorProto.FLOAT, None)],
        net.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    result = quantized(model, "cpu")
    assert "weight_1" in initializers(result)
    feeds = random_feeds(model, np.random.default_rng(0))
    assert sqnr_db(run(model, feeds)[out], run(result, feeds)[out]) > 25


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(["resnet_basic", "mobilenet_v2", "unet_linear", "vit", "lstm"]),
    st.sampled_from(["tensorrt", "cpu"]),
    st.integers(0, 2**32 - 1),
)
def test_the_argmax_survives_ranges_that_hold_every_value(
    name: str, profile: str, seed: int
) -> None:
    model = NETWORKS[name]()
    feeds = random_feeds(model, np.random.default_rng(seed))
    placement = place(model, profile=profile)
    ranges = minmax_ranges(model, placement.tensors, feeds, factor=1.05)
    result = insert_qdq(model, placement, ranges)
    for key, reference in run(model, feeds).items():
        found = run(result, feeds)[key]
        assert sqnr_db(reference, found) > 15
        flat, other = (a.reshape(-1, a.shape[-1]) for a in (reference, found))
        top = np.sort(flat, axis=1)
        clear = top[:, -1] - top[:, -2] > 4 * np.abs(flat - other).max()
        assert (flat.argmax(1) == other.argmax(1))[clear].all()


@settings(deadline=None, max_examples=30)
@given(st.floats(1e-30, 1e30), st.sampled_from([0.0, 1e-45, 1e-20, 1.0, 1e20]))
def test_any_range_gives_a_usable_scale(amax: float, weight: float) -> None:
    net = Builder()
    values = np.full((32, 32), weight, np.float32)
    model = net.build("m", net.op("MatMul", net.input("x", (16, 32)), net.constant(values)))
    ranges = Ranges(
        graph_hash=graph_hash(model),
        statistics_digest="",
        method="t",
        tensors={"x": Range(amax=amax, method="t")},
        samples=1,
        preprocess=None,
    )
    check_laws(insert_qdq(model, place(model), ranges))
