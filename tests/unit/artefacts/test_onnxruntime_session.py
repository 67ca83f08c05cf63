"""Sessions of what onnxruntime loses an output of."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from artefacts.onnxruntime_errors import onnxruntime_errors
from artefacts.onnxruntime_session import open_session
from quantization.measure.execution import load_onnxruntime
from tests.networks import Builder


def added(channels: int) -> onnx.ModelProto:
    """Two grouped convolutions that are added, the first of which is an output, too."""
    net = Builder()
    x = net.input("x", ("N", channels, 5, 4))
    parts = []
    for kernel in (1, 3):
        weight = net.weight((2 * channels, 1, kernel, kernel), kernel**2)
        bias, pads = net.bias(2 * channels), [kernel // 2] * 4
        parts.append(net.op("Conv", x, weight, bias, group=channels, pads=pads))
    return net.build("added", net.op("Add", *parts), parts[0])


def test_an_output_that_the_runtime_loses(
    rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    model = added(16)
    with pytest.raises(RuntimeError, match="Failed to find node output"):
        onnxruntime.InferenceSession(model.SerializeToString(), enable_fallback=0)
    feeds = {"x": rng.normal(size=(2, 16, 5, 4)).astype(np.float32)}
    wanted = load_onnxruntime(model, optimize=False)(feeds)
    found = load_onnxruntime(model)(feeds)
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)
    assert capsys.readouterr().out == ""


def test_other_refusals_are_raised() -> None:
    with pytest.raises(onnxruntime_errors(), match="protobuf parsing failed"):
        open_session(b"not a model", onnxruntime.SessionOptions())
