"""What INT8 does to one layer alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graphs.comparable import with_outputs
from graphs.view import GraphView
from quantization.arithmetic import activation_scale
from quantization.improve.improved import as_calibrated
from quantization.measure.execution import load_onnxruntime
from quantization.measure.own_error import own_sqnr_db
from quantization.placement import Profile, place
from quantization.write.weights import quantize_weight
from tests.networks import Builder
from tests.networks.running import sqnr_db
from tests.observed import observed_amax, ranges_of


def test_against_products_in_float64(rng: np.random.Generator) -> None:
    """The second layer's error is that of its own codes on what the float network hands it."""
    net = Builder(seed=int(rng.integers(1000)))
    hidden = net.relu(net.gemm(net.input("x", ("N", 24)), 24, 32))
    model = net.build("dense", net.gemm(hidden, 32, 40))
    feeds = [{"x": rng.normal(size=(8, 24)).astype(np.float32)} for _ in range(3)]
    amax = observed_amax(model, {"x": np.concatenate([f["x"] for f in feeds])})
    placement = place(model)
    improved = as_calibrated(model, ranges_of(model, {n: amax[n] for n in placement.tensors}))
    int8 = improved.quantized(placement)
    found = own_sqnr_db(model, int8, placement.int8_nodes, feeds)

    view = GraphView(model)
    second = next(weight for weight in placement.weights if weight.node == "n_Gemm_1")
    weight = view.constant(second.tensor)
    assert weight is not None
    coded = quantize_weight(view, second)
    assert second.axis is not None
    steps = np.expand_dims(coded.scale.astype(np.float64), 1 - second.axis)
    rounded = coded.codes * steps
    bias = view.constant(view.nodes[-1].inputs[2])
    transposed = view.nodes[-1].integer("transB", 0)
    scale = float(activation_scale(amax[hidden]))
    exact, actual = [], []
    for feed in feeds:
        x = load_onnxruntime(with_outputs(model, (hidden,)))(feed)[hidden].astype(np.float64)
        codes = np.clip(np.rint(x / scale), -128, 127) * scale
        for values, matrix, into in ((x, weight, exact), (codes, rounded, actual)):
            matrix = np.asarray(matrix, np.float64)
            into.append(values @ (matrix.T if transposed else matrix) + bias)
    wanted = sqnr_db(np.concatenate(exact), np.concatenate(actual))
    assert found["n_Gemm_1"] == pytest.approx(wanted, abs=0.05)


def test_channels_too_far_apart_are_erased(rng: np.random.Generator) -> None:
    """Columns of 1 and of 120, which weigh the same in the result: lost there, and only there."""
    net = Builder()
    x = net.input("x", ("N", 16))
    sizes = np.where(np.arange(16) < 8, 1.0, 120.0).astype(np.float32)
    weight = (rng.normal(size=(16, 32)) / sizes[:, None]).astype(np.float32)
    hidden = net.relu(net.op("MatMul", x, net.constant(weight)))
    model = net.build("units", net.gemm(hidden, 32, 32))
    feed = {"x": (rng.normal(size=(64, 16)) * sizes).astype(np.float32)}
    placement = place(model)
    amax = observed_amax(model, feed)
    improved = as_calibrated(model, ranges_of(model, {n: amax[n] for n in placement.tensors}))
    found = own_sqnr_db(model, improved.quantized(placement), placement.int8_nodes, [feed])
    assert found["n_MatMul_0"] < 10
    assert found["n_Gemm_0"] > 30


def test_what_is_always_zero_has_no_error(rng: np.random.Generator) -> None:
    net = Builder()
    dead = net.relu(
        net.op("MatMul", net.input("x", ("N", 16)), net.constant(-np.ones((16, 32), "f4")))
    )
    model = net.build("dead", net.op("MatMul", dead, net.constant(np.ones((32, 16), "f4"))))
    placement = place(model)
    ranges = ranges_of(model, dict.fromkeys(placement.tensors, 1.0))
    int8 = as_calibrated(model, ranges).quantized(placement)
    feed = {"x": rng.uniform(0.1, 1.0, size=(4, 16)).astype(np.float32)}
    assert set(own_sqnr_db(model, int8, placement.int8_nodes, [feed])) == {"n_MatMul_0"}
    assert own_sqnr_db(model, int8, (), [feed]) == {}


def bands(bank: np.ndarray, factors: np.ndarray) -> onnx.ModelProto:
    """A filter bank, whose bands are standardised behind it."""
    net = Builder()
    y = net.op("Transpose", net.input("x", ("N", 32, 8)), perm=[0, 2, 1])
    y = net.op("Transpose", net.op("MatMul", y, net.constant(bank)), perm=[0, 2, 1])
    y = net.op("Sub", y, net.constant(np.full((32, 1), 0.1, np.float32)))
    return net.build("bands", net.op("Tanh", net.op("Div", y, net.constant(factors))))


@pytest.mark.parametrize("profile", ["tensorrt", "cpu"])
@pytest.mark.parametrize("spread", [1.0, 1000.0])
def test_where_bands_are_standardised(
    spread: float, profile: Profile, rng: np.random.Generator
) -> None:
    """Uneven factors make quiet bands count; the cpu's pair stands before the Transpose."""
    bank = (rng.normal(size=(32, 32)) * np.geomspace(1, spread, 32)).astype(np.float32)
    factors = np.abs(bank).max(axis=0)[:, None]
    model = bands(bank, factors)
    feed = {"x": (rng.normal(size=(16, 32, 8)) / np.arange(1, 33)[:, None]).astype(np.float32)}
    placement = place(model, profile=profile)
    assert {e.node for e in placement.activations} == {
        "n_Transpose_0" if profile == "cpu" else "n_MatMul_0"
    }
    amax = observed_amax(model, feed)
    ranges = ranges_of(model, {name: amax[name] for name in placement.tensors})
    int8 = as_calibrated(model, ranges).quantized(placement)
    found = own_sqnr_db(model, int8, placement.int8_nodes, [feed])

    x = feed["x"].astype(np.float64).transpose(0, 2, 1)
    scale = float(activation_scale(np.abs(x).max()))
    coded = quantize_weight(GraphView(model), placement.weights[0])
    exact = x @ bank.astype(np.float64)
    actual = (np.rint(x / scale) * scale) @ (coded.codes * coded.scale.astype(np.float64))
    if spread > 1:
        exact, actual = ((values - 0.1) / factors[:, 0] for values in (exact, actual))
    assert found["n_MatMul_0"] == pytest.approx(sqnr_db(exact, actual), abs=0.05)
