"""Networks that mask values with float32's lowest, or -inf: built, and computed as written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import engines
from build_engine import build
from tests.networks import Builder
from tests.networks.running import run, sqnr_db

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

LOWEST = float(np.finfo(np.float32).min)


def spread_mask() -> onnx.ModelProto:
    """Attention whose mask of tokens is spread over pairs of them by a product."""
    net = Builder()
    x, mask = net.input("x", ("N", 8, 32)), net.input("mask", ("N", 8), TensorProto.FLOAT)
    left = net.op("Greater", mask, net.scalar(0.5))
    masked = net.op("Where", left, net.scalar(LOWEST), net.scalar(0.0))
    row = net.op("Unsqueeze", masked, net.ints(1))
    ones = net.op(
        "Sub", net.op("Unsqueeze", mask, net.ints(2)), net.op("Unsqueeze", mask, net.ints(2))
    )
    column = net.op("Concat", net.op("Exp", ones), ones, axis=2)
    spread = net.op("MatMul", column, net.op("Concat", row, row, axis=1))
    query, key, value = (net.linear(x, 32, 32) for _ in range(3))
    scores = net.op("MatMul", query, net.op("Transpose", key, perm=[0, 2, 1]))
    probabilities = net.op("Softmax", net.op("Add", scores, spread), axis=-1)
    return net.build("spread", net.linear(net.op("MatMul", probabilities, value), 32, 8))


def padded_pool(value: float) -> onnx.ModelProto:
    """A maximum of values that are masked by the place they have."""
    net = Builder()
    x = net.conv(net.input("x", ("N", 8, 12, 12)), 16)
    mask = net.constant(net.rng.random((1, 1, 12, 12)) < 0.3)
    x = net.op("MaxPool", net.op("Where", mask, net.scalar(value), x), kernel_shape=[4, 4])
    net.channels[x] = 16
    return net.build("pooled", net.op("GlobalAveragePool", net.relu(net.conv(x, 16))))


def engine_db(model: onnx.ModelProto, folder: Path, rng: np.random.Generator) -> float:
    """How near the engine of a default build is to the float model."""
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
    samples = {"x": rng.standard_normal((16, *shape)).astype(np.float32)}
    if len(model.graph.input) > 1:
        samples["mask"] = (rng.random((16, shape[0])) < 0.3).astype(np.float32)
    onnx.save(model, folder / "m.onnx")
    np.savez(folder / "samples.npz", **samples)
    build(folder / "m.onnx", folder / "m.engine", target="cpu", calib_data=folder / "samples.npz")
    (wanted,) = run(model, samples).values()
    with engines.load(folder / "m.engine") as engine:
        (found,) = engine(samples).values()
    return sqnr_db(wanted, found)


@pytest.mark.parametrize("value", [-np.inf, LOWEST, -1e9])
def test_a_maximum_of_masked_values_is_built(
    value: float, tmp_path: Path, rng: np.random.Generator
) -> None:
    assert engine_db(padded_pool(value), tmp_path, rng) > 20
    manifest = engines.read_manifest(tmp_path / "m.engine")
    assert manifest.coverage is not None
    assert manifest.coverage.int8_mac_share == 1


def test_a_mask_that_a_product_spreads_stays_in_float(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    assert engine_db(spread_mask(), tmp_path, rng) > 20
    manifest = engines.read_manifest(tmp_path / "m.engine")
    assert manifest.passport.placement is not None
    rules = [layer.rule for layer in manifest.passport.placement.floating]
    # Without VNNI no product of two activations is INT8 in the first place.
    vnni = engines.cpu_isa() == "vnni"
    assert rules == (["masked_values"] if vnni else ["unbounded_product"] * 3)
