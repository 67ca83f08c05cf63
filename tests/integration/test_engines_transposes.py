"""Convolutions of channels-last exporters: activations between two Transposes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantization.placement import place
from quantization.prepare.prepare import prepare
from quantization.write.insert import insert_qdq
from tests.integration.cpu_engines import answers
from tests.networks import Builder
from tests.networks.running import minmax_ranges, random_feeds, run, sqnr_db

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")


@pytest.mark.parametrize("activation", ["Relu", "Tanh", "Sigmoid"])
@pytest.mark.parametrize("axes", [1, 2])
def test_engines_of_channels_last_convolutions(
    axes: int, activation: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    """OpenVINO itself computes those of sequences wrong, -3 to 4 dB, in float, too."""
    net = Builder(int(rng.integers(1 << 30)))
    x, channels = net.input("x", (2, 12, *[16] * axes)), 12
    for outputs in (8, 6):
        weight = net.weight((outputs, channels, *[3] * axes), channels * 3**axes)
        shape = {"kernel_shape": [3] * axes, "pads": [1] * (2 * axes)}
        last = net.op("Conv", x, weight, **shape)
        moved = net.op("Transpose", last, perm=[0, *range(2, 2 + axes), 1])
        found = net.op(activation, moved)
        x, channels = net.op("Transpose", found, perm=[0, 1 + axes, *range(1, 1 + axes)]), outputs
    model = prepare(net.build("last", x))
    feeds = random_feeds(model, rng)
    placement = place(model, profile="cpu", portable=True)
    int8 = insert_qdq(model, placement, minmax_ranges(model, placement.tensors, feeds))
    found = answers(tmp_path, int8, feeds)
    for name, values in run(int8, feeds, optimize=False).items():
        assert sqnr_db(values, found[name]) > 35
