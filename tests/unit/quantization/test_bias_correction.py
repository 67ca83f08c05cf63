"""Bias correction: the mean error goes, chance stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from artefacts.errors import ModelError
from graphs.amend import add_bias
from quantization.improve.walk.bias import bias_shift
from quantization.measure.execution import load_onnxruntime
from tests.networks import Builder


def test_a_constant_error_is_taken_off(rng: np.random.Generator) -> None:
    exact = [rng.standard_normal((1, 3, 4, 4)) for _ in range(8)]
    wrong = np.array([0.5, -2.0, 0.0]).reshape(1, 3, 1, 1)
    shift = bias_shift(exact, [y - wrong for y in exact], axis=1)
    np.testing.assert_allclose(shift, [0.5, -2.0, 0.0], atol=1e-12)


def test_errors_without_a_mean_are_left_alone(rng: np.random.Generator) -> None:
    errors = rng.standard_normal((16, 4000))
    exact = [np.zeros((1, 4000)) for _ in errors]
    shift = bias_shift(exact, [-row[None] for row in errors], axis=-1)
    plain = errors.mean(axis=0)
    assert (shift**2).mean() < 0.6 * (plain**2).mean()
    assert (np.abs(shift) <= np.abs(plain) + 1e-12).all()


def test_an_error_larger_than_chance_is_kept_nearly_whole(rng: np.random.Generator) -> None:
    exact = [np.zeros((1, 1, 8, 8)) for _ in range(32)]
    actual = [rng.standard_normal((1, 1, 8, 8)) * 0.1 - 1.0 for _ in exact]
    assert bias_shift(exact, actual, axis=1)[0] == pytest.approx(1.0, abs=0.02)


def test_one_sample_is_believed() -> None:
    assert bias_shift([np.ones((1, 2))], [np.zeros((1, 2))], axis=-1) == pytest.approx([1.0, 1.0])


def layers() -> onnx.ModelProto:
    """Conv without a bias, Conv and ConvTranspose sharing one, Gemm, MatMul."""
    net = Builder(1)
    x = net.conv(net.input("x", (1, 4, 6, 6)), 8, bias=False)
    bias = net.bias(8)
    y = net.op("Conv", x, net.weight((8, 8, 1, 1), 8), bias, kernel_shape=[1, 1])
    z = net.op("Conv", y, net.weight((8, 8, 1, 1), 8), bias, kernel_shape=[1, 1])
    net.channels[z] = 8
    up = net.conv_transpose(z, 4)
    flat = net.op("Flatten", net.op("GlobalAveragePool", up))
    product = net.op("MatMul", net.gemm(flat, 4, 6), net.weight((6, 5), 6))
    return net.build("layers", y, up, product)


def test_every_kind_of_layer_gains_a_bias(rng: np.random.Generator) -> None:
    model = layers()
    names = {n.output[0]: n.name for n in model.graph.node}
    feeds = {"x": rng.standard_normal((1, 4, 6, 6)).astype(np.float32)}
    before = load_onnxruntime(model)(feeds)
    shifts = {names["MatMul_0"]: np.arange(5.0)}
    after = load_onnxruntime(add_bias(model, shifts))(feeds)
    np.testing.assert_allclose(after["MatMul_0"], before["MatMul_0"] + np.arange(5.0), rtol=1e-5)
    shifts = {names["ConvTranspose_0"]: np.array([1.0, 2.0, 3.0, 4.0])}
    after = load_onnxruntime(add_bias(model, shifts))(feeds)
    moved = before["ConvTranspose_0"] + np.array([1.0, 2, 3, 4]).reshape(1, 4, 1, 1)
    np.testing.assert_allclose(after["ConvTranspose_0"], moved, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(), (6,), (1, 1, 6), (3, 1), (3, 6)])
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_the_bias_that_a_matmul_has_is_moved(
    shape: tuple[int, ...], left: bool, rng: np.random.Generator
) -> None:
    net = Builder(2)
    product = net.op("MatMul", net.input("x", (2, 3, 4)), net.weight((4, 6), 4))
    bias = net.constant(rng.standard_normal(shape).astype(np.float32))
    model = net.build("dense", net.op("Add", *((bias, product) if left else (product, bias))))
    changed = add_bias(model, {"n_MatMul_0": np.arange(6.0)})
    assert [node.op_type for node in changed.graph.node] == ["MatMul", "Add"]
    feeds = {"x": rng.standard_normal((2, 3, 4)).astype(np.float32)}
    before, after = load_onnxruntime(model)(feeds), load_onnxruntime(changed)(feeds)
    np.testing.assert_allclose(
        after["Add_0"], before["Add_0"] + np.arange(6.0), rtol=1e-5, atol=1e-5
    )


def test_a_matmul_that_is_read_elsewhere_gets_an_add(rng: np.random.Generator) -> None:
    net = Builder(2)
    product = net.op("MatMul", net.input("x", (2, 4)), net.weight((4, 6), 4))
    total = net.op("Add", product, net.bias(6))
    other = net.op("Add", product, net.constant(np.ones((2, 2, 6), np.float32)))
    wider = net.op("MatMul", other, net.weight((6, 1), 6))
    grown = net.op("Add", wider, net.constant(np.ones((2, 1, 6), np.float32)))
    model = net.build("branches", total, other, grown)
    feeds = {"x": rng.standard_normal((2, 4)).astype(np.float32)}
    before = load_onnxruntime(model)(feeds)
    changed = add_bias(model, {"n_MatMul_0": np.arange(6.0)})
    after = load_onnxruntime(changed)(feeds)
    for name in (total, other):
        np.testing.assert_allclose(after[name], before[name] + np.arange(6.0), rtol=1e-5, atol=1e-6)
    after = load_onnxruntime(add_bias(model, {"n_MatMul_1": np.ones(1)}))(feeds)
    np.testing.assert_allclose(after[grown], before[grown] + 1, rtol=1e-5, atol=1e-6)


def test_a_shared_bias_changes_for_one_reader_only(rng: np.random.Generator) -> None:
    model = layers()
    node = next(n for n in model.graph.node if n.output[0] == "Conv_1")
    changed = add_bias(model, {node.name: np.full(8, 3.0)})
    feeds = {"x": rng.standard_normal((1, 4, 6, 6)).astype(np.float32)}
    before, after = load_onnxruntime(model)(feeds), load_onnxruntime(changed)(feeds)
    np.testing.assert_allclose(after["Conv_1"], before["Conv_1"] + 3.0, rtol=1e-5, atol=1e-5)
    second = [n for n in changed.graph.node if n.output[0] in ("Conv_1", "Conv_2")]
    assert second[0].input[2] != second[1].input[2]


def test_a_missing_bias_is_created_and_the_model_stays_as_it_was() -> None:
    model = layers()
    kept = model.SerializeToString()
    node = model.graph.node[0]
    changed = add_bias(model, {node.name: np.arange(8.0)})
    stored = {t.name: t for t in changed.graph.initializer}
    np.testing.assert_array_equal(
        numpy_helper.to_array(stored[changed.graph.node[0].input[2]]), np.arange(8.0)
    )
    assert model.SerializeToString() == kept
    onnx.checker.check_model(changed, full_check=True)


def test_a_node_without_a_bias_is_refused() -> None:
    model = layers()
    flatten = next(n for n in model.graph.node if n.op_type == "Flatten")
    with pytest.raises(ModelError, match=rf"'{flatten.name}' is a Flatten"):
        add_bias(model, {flatten.name: np.zeros(1)})
    with pytest.raises(ModelError, match="'nowhere' is not in the graph"):
        add_bias(model, {"nowhere": np.zeros(1)})


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_a_bias_that_beta_scales(beta: float, rng: np.random.Generator) -> None:
    """With beta 0 the old bias counts for nothing, and no number divides by it."""
    text = f"g (float[N,4] x) => (float[N,3] y) {{ y = Gemm <beta={beta}> (x, w, b) }}"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    model.graph.node[0].name = "dense"
    for name, shape in (("w", (4, 3)), ("b", (3,))):
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    feeds = {"x": rng.standard_normal((2, 4)).astype(np.float32)}
    before = load_onnxruntime(model)(feeds)["y"]
    after = load_onnxruntime(add_bias(model, {"dense": np.arange(3.0)}))(feeds)["y"]
    np.testing.assert_allclose(after, before + np.arange(3.0), rtol=1e-5, atol=1e-5)


def test_a_model_that_is_given_away_is_edited_where_it_is(rng: np.random.Generator) -> None:
    net = Builder()
    x = net.input("x", ("N", 6))
    model = net.build("dense", net.gemm(x, 6, 4))
    name, shift = model.graph.node[0].name, rng.normal(size=4)
    kept = add_bias(model, {name: shift})
    assert kept is not model
    feeds = {"x": rng.normal(size=(3, 6)).astype(np.float32)}
    wanted = load_onnxruntime(kept)(feeds)
    assert add_bias(model, {name: shift}, own=True) is model
    for output, values in load_onnxruntime(model)(feeds).items():
        np.testing.assert_array_equal(values, wanted[output])
