"""What PyTorch's two exporters write is prepared: same results, BatchNormalization gone."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from graphs.identity import graph_hash
from quantization import prepare
from tests.networks.torch_networks import SIDE, TORCH_NETWORKS, with_statistics
from tests.odd_models import run
from tests.rtx_parser import parse

# Opset 9 to 12 are what checkpoints on the internet have; 17 is the legacy exporter's last.
_EXPORTS: dict[str, dict[str, Any]] = {
    "legacy, opset 9": {"opset_version": 9},
    "legacy, opset 11, BatchNormalization kept": {
        "opset_version": 11,
        "do_constant_folding": False,
        "training": torch.onnx.TrainingMode.PRESERVE,
    },
    "legacy, opset 12, initializers are inputs": {
        "opset_version": 12,
        "keep_initializers_as_inputs": True,
        "do_constant_folding": False,
    },
    "legacy, opset 17": {"opset_version": 17},
    "dynamo": {"dynamo": True},
}

# Each export takes seconds: every form once or twice, not every pair.
_CASES = [("resnet", how) for how in _EXPORTS if how != "dynamo"]
_CASES += [("mobilenet_v2", list(_EXPORTS)[1]), ("detector", list(_EXPORTS)[2])]
_CASES += [("vit", "legacy, opset 17"), ("vit", "dynamo")]


def export(network: torch.nn.Module, x: torch.Tensor, flags: dict[str, Any]) -> onnx.ModelProto:
    if flags.get("dynamo"):
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.onnx.export(network, (x,), dynamic_shapes=shapes, verbose=False, **flags)
        return program.model_proto
    file = io.BytesIO()
    axes = {"x": {0: "batch"}}
    names = {"input_names": ["x"], "dynamic_axes": axes}
    torch.onnx.export(network, (x,), file, dynamo=False, **names, **flags)
    return onnx.load_model_from_string(file.getvalue())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "how"), _CASES)
def test_exported_network(name: str, how: str, rng: np.random.Generator) -> None:
    network = with_statistics(TORCH_NETWORKS[name]()).eval()
    x = torch.from_numpy(rng.normal(size=(2, 3, SIDE, SIDE)).astype(np.float32))
    model = export(network, x, _EXPORTS[how])
    prepared = prepare(model)
    assert "BatchNormalization" not in {node.op_type for node in prepared.graph.node}
    assert not {"Identity", "Dropout"} & {node.op_type for node in prepared.graph.node}
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)
    assert parse(prepared).errors == []
    given = {value.name for value in model.graph.input} & {v.name for v in prepared.graph.input}
    (input_name,) = given
    for batch in (1, 2):
        with torch.no_grad():
            expected = network(x[:batch])
        expected = expected if isinstance(expected, (list, tuple)) else [expected]
        found = run(prepared, {input_name: x[:batch].numpy()})
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_allclose(b, a.numpy(), rtol=1e-3, atol=1e-4)
