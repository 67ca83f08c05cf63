"""Sensitivities from side runs are those of whole passes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from quantization.improve.improve import improve_layers
from quantization.improve.methods import NOTHING, Methods
from quantization.measure.execution import load_int8, load_onnxruntime
from quantization.measure.fidelity import compare, run_all
from quantization.placement.fusion_groups import leave_float, only
from quantization.search.sensitivity import sensitivities
from tests.accuracy_models import calibrated, samples_of, uneven_depthwise
from tests.networks import Builder, mobilenet_v2, resnet


def linears() -> onnx.ModelProto:
    """Products without biases, which get an Add of their own where errors are corrected."""
    net = Builder(3)
    x = net.input("x", (1, 20, 32))
    for _ in range(3):
        x = net.relu(net.op("MatMul", x, net.weight((32, 32), 32)))
    return net.build("linears", net.op("MatMul", x, net.weight((32, 16), 32)))


@pytest.mark.parametrize("methods", [NOTHING, Methods()], ids=["plain", "improved"])
@pytest.mark.parametrize("build", [lambda: resnet(size=16), lambda: mobilenet_v2(size=16), linears])
def test_side_runs_equal_whole_passes(
    build: Callable[[], onnx.ModelProto], methods: Methods, rng: np.random.Generator
) -> None:
    model = build()
    feeds = samples_of(model, rng, 30)
    placement, ranges = calibrated(model, feeds[:6])
    improved = improve_layers(model, placement, ranges, feeds[:6], methods=methods)
    found = sensitivities(model, improved, placement, feeds[6:])
    exact = run_all(load_onnxruntime(model), feeds[6:])
    for entry in found[:2] + found[-2:]:
        for part, seen in (
            (only(placement, entry.group), entry.alone),
            (leave_float(placement, [entry.group], why=""), entry.without),
        ):
            whole = compare(load_int8(improved.quantized(part)), feeds[6:], exact)
            # Another order of sums moves a value across a rounding step, here and there: one
            # such value is up to 0.5 dB of six samples of these small networks, 0.3 of 24.
            assert seen.sqnr_db == pytest.approx(whole.sqnr_db, abs=1.0)


def test_the_layer_that_does_the_harm_comes_first(rng: np.random.Generator) -> None:
    model = uneven_depthwise()
    feeds = samples_of(model, rng, 6)
    placement, ranges = calibrated(model, feeds)
    improved = improve_layers(model, placement, ranges, feeds, methods=NOTHING)
    seen: list[tuple[int, int]] = []
    found = sensitivities(
        model, improved, placement, feeds, progress=lambda done, total: seen.append((done, total))
    )
    assert found[0].group.name == "n_Conv_1"  # depthwise, behind channels of all sizes
    assert found[0].gained > 0.5
    assert found[0].alone.sqnr_db < min(entry.alone.sqnr_db for entry in found[1:])
    assert [entry.gained for entry in found] == sorted((e.gained for e in found), reverse=True)
    assert seen == [(n + 1, 2 * len(found)) for n in range(2 * len(found))]
