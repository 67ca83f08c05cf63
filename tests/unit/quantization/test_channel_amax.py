"""Largest magnitudes by channel, in as many runs as memory asks for."""

from __future__ import annotations

import numpy as np
import pytest

from graphs.view import GraphView
from quantization.improve.channels import amax as channels
from quantization.improve.channels.amax import channel_amax
from quantization.measure.execution import load_onnxruntime
from tests.accuracy_models import samples_of
from tests.networks import resnet


@pytest.mark.parametrize("part_bytes", [1, 20_000, 1 << 28])
def test_they_are_those_of_each_tensor(
    part_bytes: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "_PART_BYTES", part_bytes)
    model = resnet(size=16)
    view, samples = GraphView(model), samples_of(model, rng, 3)
    inner = [node.outputs[0] for node in view.computed if node.op_type == "Relu"]
    tensors = [*view.inputs, *inner]
    found = channel_amax(view, dict.fromkeys(tensors, 1), samples)
    assert found.keys() == set(tensors)
    run = load_onnxruntime(model, optimize=False, outputs=inner)
    values = [run(sample) | sample for sample in samples]
    for name in tensors:
        wanted = np.max([np.abs(each[name]).max(axis=(0, 2, 3)) for each in values], axis=0)
        # Sums of a few hundred products in another order; a channel may be barely awake.
        rounding = 100 * np.finfo(np.float32).eps * wanted.max()
        np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=rounding)
