"""The matrix view of a layer computes what the layer computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graphs.layer_matrix import layer_matrix, sample_columns
from graphs.view import GraphView
from quantization.measure.execution import load_onnxruntime
from tests.networks import Builder


def conv(**attributes: object) -> onnx.ModelProto:
    net = Builder(3)
    groups = int(str(attributes.get("group", 1)))
    x = net.input("x", (2, 8, 9, 11))
    weight = net.weight((16, 8 // groups, 3, 3), 72)
    return net.build("conv", net.op("Conv", x, weight, kernel_shape=[3, 3], **attributes))


CONVS = {
    "valid": conv(),
    "padded": conv(pads=[1, 1, 1, 1]),
    "uneven pads": conv(pads=[0, 1, 2, 0]),
    "strided": conv(pads=[1, 1, 1, 1], strides=[2, 2]),
    "dilated": conv(pads=[2, 2, 2, 2], dilations=[2, 2], strides=[1, 2]),
    "grouped": conv(group=4, pads=[1, 1, 1, 1]),
    "depthwise": conv(group=8, pads=[1, 1, 1, 1]),
    "same upper": conv(auto_pad="SAME_UPPER", strides=[2, 2]),
    "same lower": conv(auto_pad="SAME_LOWER", strides=[2, 3]),
}


@pytest.mark.parametrize("name", CONVS)
def test_columns_times_matrix_are_the_outputs(name: str, rng: np.random.Generator) -> None:
    model = CONVS[name]
    view = GraphView(model)
    layer = layer_matrix(view, view.nodes[0])
    assert layer is not None
    x = rng.standard_normal((2, 8, 9, 11)).astype(np.float32)
    output = next(iter(load_onnxruntime(model)({"x": x}).values()))
    count = layer.positions(x)
    assert count == output.shape[0] * output.shape[2] * output.shape[3]
    columns = layer.columns(x, np.arange(count))
    product = np.einsum("gok,ngk->ngo", layer.matrix, columns).reshape(count, -1)
    expected = np.moveaxis(output, 1, -1).reshape(count, -1)
    np.testing.assert_allclose(product, expected, rtol=1e-4, atol=1e-4)


def test_one_dimensional_convolution(rng: np.random.Generator) -> None:
    net = Builder()
    x = net.input("x", (1, 6, 20))
    weight = net.weight((4, 6, 5), 30)
    model = net.build("conv1d", net.op("Conv", x, weight, kernel_shape=[5], pads=[2, 2]))
    view = GraphView(model)
    layer = layer_matrix(view, view.nodes[0])
    assert layer is not None
    values = rng.standard_normal((1, 6, 20)).astype(np.float32)
    output = next(iter(load_onnxruntime(model)({"x": values}).values()))
    product = np.einsum("gok,ngk->no", layer.matrix, layer.columns(values, np.arange(20)))
    np.testing.assert_allclose(product, output[0].T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        ((1, 1), {}),
        ((1, 1), {"strides": [2, 2]}),
        ((1, 1), {"strides": [2, 2], "pads": [4, 5, 5, 6]}),  # as many positions as values
        ((1, 3), {"pads": [0, 8, 0, 0], "dilations": [1, 4]}),  # more than its kernel
        ((2, 3, 1), {"pads": [1, 0, 0, 0, 2, 0], "strides": [1, 2, 1]}),
    ],
)
@pytest.mark.parametrize("batch", [1, 2])
def test_columns_of_other_kernels(
    kernel: tuple[int, ...],
    attributes: dict[str, list[int]],
    batch: int,
    rng: np.random.Generator,
) -> None:
    net = Builder()
    sizes = (9, 11, 5)[: len(kernel)]
    weight = net.weight((6, 8, *kernel), 8)
    x = net.input("x", (batch, 8, *sizes))
    model = net.build("conv", net.op("Conv", x, weight, kernel_shape=list(kernel), **attributes))
    view = GraphView(model)
    layer = layer_matrix(view, view.nodes[0])
    assert layer is not None
    values = rng.standard_normal((batch, 8, *sizes)).astype(np.float32)
    output = np.moveaxis(next(iter(load_onnxruntime(model)({"x": values}).values())), 1, -1)
    chosen = np.sort(rng.choice(layer.positions(values), 20, replace=False))
    product = np.einsum("gok,ngk->no", layer.matrix, layer.columns(values, chosen))
    np.testing.assert_allclose(product, output.reshape(-1, 6)[chosen], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["MatMul", "Gemm", "Gemm transposed"])
def test_products(kind: str, rng: np.random.Generator) -> None:
    net = Builder()
    x = net.input("x", (3, 8))
    if kind == "MatMul":
        y = net.op("MatMul", x, net.weight((8, 5), 8))
    elif kind == "Gemm":
        y = net.op("Gemm", x, net.weight((8, 5), 8))
    else:
        y = net.op("Gemm", x, net.weight((5, 8), 8), transB=1)
    model = net.build("product", y)
    view = GraphView(model)
    layer = layer_matrix(view, view.nodes[0])
    assert layer is not None
    assert layer.matrix.shape == (1, 5, 8)
    values = rng.standard_normal((3, 8)).astype(np.float32)
    output = load_onnxruntime(model)({"x": values})[y]
    product = np.einsum("gok,ngk->no", layer.matrix, layer.columns(values, np.arange(3)))
    np.testing.assert_allclose(product, output, rtol=1e-4, atol=1e-5)


def test_restore_is_the_inverse() -> None:
    for model in CONVS.values():
        view = GraphView(model)
        layer = layer_matrix(view, view.nodes[0])
        assert layer is not None
        np.testing.assert_array_equal(layer.restore(layer.matrix), layer.weight)


def test_channels_name_the_input_of_each_column() -> None:
    view = GraphView(CONVS["grouped"])
    layer = layer_matrix(view, view.nodes[0])
    assert layer is not None
    assert layer.channels.shape == (4, 18)
    assert layer.channels[0].tolist() == [0] * 9 + [1] * 9
    assert layer.channels[3].tolist() == [6] * 9 + [7] * 9


def test_what_has_no_matrix_view() -> None:
    net = Builder()
    x = net.input("x", (1, 8, 4, 4))
    up = net.conv_transpose(x, 8)
    flat = net.op("Reshape", up, net.ints(64, 8))
    left = net.op("MatMul", net.weight((4, 64), 64), flat)
    both = net.op("MatMul", left, net.op("Transpose", left))
    scaled = net.op("Gemm", left, net.weight((8, 3), 8), alpha=0.5)
    view = GraphView(net.build("others", both, scaled))
    layers = {n.op_type + n.outputs[0]: layer_matrix(view, n) for n in view.nodes}
    assert not any(layers.values())


def test_equal_seeds_sample_equal_positions(rng: np.random.Generator) -> None:
    view = GraphView(CONVS["padded"])
    layer = layer_matrix(view, view.nodes[0])
    x = [rng.standard_normal((1, 8, 9, 11)).astype(np.float32) for _ in range(3)]
    first = sample_columns(layer, x, wanted=30, seed=4)
    assert first.rows.shape == (30, 1, 72)
    assert first.starts == (0, 10, 20)
    again = sample_columns(layer, x, wanted=30, seed=4)
    np.testing.assert_array_equal(first.rows, again.rows)
    doubled = sample_columns(layer, [2 * values for values in x], wanted=30, seed=4)
    np.testing.assert_array_equal(doubled.rows, 2 * first.rows)


def test_the_first_samples_have_the_first_columns(rng: np.random.Generator) -> None:
    """Of samples of any size; a sample's positions are the same in any order."""
    view = GraphView(CONVS["padded"])
    layer = layer_matrix(view, view.nodes[0])
    x = [rng.standard_normal((1, 8, 9, n)).astype(np.float32) for n in (11, 1, 11, 2)]
    plain = sample_columns(layer, x, wanted=400, seed=4)
    moved = sample_columns(layer, x, wanted=400, seed=4, then=np.negative, first=(0, 3))
    ends = (*plain.starts[1:], len(plain.rows))
    parts = [plain.rows[slice(*at)] for at in zip(plain.starts, ends, strict=True)]
    assert len({len(part) for part in parts}) > 1
    wanted = [parts[number] for number in (0, 3, 1, 2)]
    np.testing.assert_array_equal(moved.rows, -np.concatenate(wanted))
    assert moved.starts == tuple(np.cumsum([0, *map(len, wanted[:-1])]))
