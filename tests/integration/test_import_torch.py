"""Fake quantization that PyTorch trained, as its exporter writes it."""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
import torch

from quantization import import_quantized, lint
from tests.odd_models import run
from tests.rtx_parser import parse


class Quantized(torch.nn.Module):
    """A convolution with fake-quantized input and weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(16, 8, 3, 3))
        with torch.no_grad():
            self.weight[0, 0, 0, 0] = -9.0  # beyond the range of its channel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        zeros = torch.zeros(16, dtype=torch.int32)
        x = torch.fake_quantize_per_tensor_affine(x, 0.05, 0, -128, 127)
        weight = torch.fake_quantize_per_channel_affine(
            self.weight, torch.full((16,), 0.02), zeros, 0, -128, 127
        )
        return torch.relu(torch.nn.functional.conv2d(x, weight, padding=1))


@pytest.mark.filterwarnings("ignore")
def test_fake_quantization_is_taken_as_it_is() -> None:
    network, x = Quantized().eval(), torch.randn(2, 8, 6, 6)
    file = io.BytesIO()
    torch.onnx.export(network, (x,), file, dynamo=False, opset_version=17, input_names=["x"])
    given = onnx.load_model_from_string(file.getvalue())
    imported = import_quantized(given)
    assert imported.origin == "PyTorch"
    assert imported.notes == ()
    assert not [finding for finding in lint(imported.model) if finding.severity == "fatal"]
    assert parse(imported.model, build=True).errors == []
    feeds = {"x": x.numpy()}
    np.testing.assert_array_equal(run(imported.model, feeds)[0], run(given, feeds)[0])
    with torch.no_grad():
        np.testing.assert_allclose(run(imported.model, feeds)[0], network(x).numpy(), atol=1e-4)
