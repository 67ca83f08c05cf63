"""Quantization-aware training of whole networks: placement, numbers, export."""

from __future__ import annotations

import copy
import functools
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import quantization
from calibrators.ranges.ranges import Range, Ranges
from graphs.identity import graph_hash
from graphs.view import GraphView
from quantization import qat
from quantization.lint.lint import lint
from tests.networks.torch_networks import (
    SIDE,
    TORCH_NETWORKS,
    VisionTransformer,
    with_statistics,
)
from tests.rtx_parser import parse

GOLDEN = Path(__file__).parents[1] / "golden" / "qat"
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*:FutureWarning"  # torch.export copies a tree with its own deprecated class
)


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, SIDE, SIDE)


def train(network: nn.Module, steps: int = 3, rate: float = 1e-3) -> None:
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), rate)
    for _ in range(steps):
        loss = sum(output.square().mean() for output in outputs_of(network(images(4))))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def outputs_of(value: object) -> list[torch.Tensor]:
    return list(value) if isinstance(value, tuple) else [value]


def assert_alike(found: np.ndarray, expected: np.ndarray) -> None:
    """Sums in another order: a value on a rounding tie moves by a step, and a few with it."""
    apart = np.abs(found - expected) / np.abs(expected).max()
    assert apart.max() < 0.1
    assert (apart > 0.02).mean() < 1e-3
    assert apart.mean() < 1e-3


def run_onnx(path: Path, x: torch.Tensor) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    # Fused integer kernels round between layers otherwise than the Q/DQ graph says.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})


@functools.cache
def trained(name: str) -> tuple[nn.Module, torch.fx.GraphModule]:
    """A float network, and the same after a few steps of training."""
    network = with_statistics(TORCH_NETWORKS[name]())
    prepared = qat.prepare(network, (images(),))
    train(prepared)
    return network, prepared.eval()


def placed(model: onnx.ModelProto) -> list[str]:
    """Where Q/DQ pairs are, by position instead of by name: "Conv 3, input 0: per tensor"."""
    view = GraphView(model)
    seen: Counter[str] = Counter()
    lines = []
    for node in view.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        if not view.is_float(node.outputs[0]):  # of sizes, which exporters compute as they like
            continue
        for index, name in enumerate(node.inputs):
            maker = view.producer(name)
            if maker is not None and maker.op_type == "DequantizeLinear":
                axis = f"axis {maker.integer('axis', 1)}" if view.shape(maker.inputs[1]) else ""
                where = f"{node.op_type} {seen[node.op_type]}, input {index}"
                lines.append(f"{where}: {axis or 'per tensor'}")
        seen[node.op_type] += 1
    return lines


def post_training(network: nn.Module, path: Path, *, portable: bool = False) -> onnx.ModelProto:
    """The INT8 model of the way without training: exported as users do, then Q/DQ inserted."""
    torch.onnx.export(
        network.eval(),
        (images(),),
        path,
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    prepared = quantization.prepare(quantization.load_model(path))
    placement = quantization.place(prepared, portable=portable)
    ranges = Ranges(
        graph_hash=graph_hash(prepared),
        statistics_digest="",
        method="test",
        tensors={name: Range(amax=1.0, method="test") for name in placement.tensors},
        samples=0,
        preprocess=None,
    )
    return quantization.insert_qdq(prepared, placement, ranges)


@pytest.mark.parametrize("name", TORCH_NETWORKS)
def test_export_computes_what_training_saw(name: str, tmp_path: Path) -> None:
    _, prepared = trained(name)
    qat.export_onnx(prepared, tmp_path / "qat.onnx")
    x = images(5)
    with torch.no_grad():
        expected = outputs_of(prepared(x))
    for found, value in zip(run_onnx(tmp_path / "qat.onnx", x), expected, strict=True):
        assert_alike(found, value.numpy())


@pytest.mark.parametrize("name", TORCH_NETWORKS)
def test_pairs_are_where_post_training_quantization_puts_them(
    name: str, tmp_path: Path, update_golden: bool
) -> None:
    network, prepared = trained(name)
    qat.export_onnx(prepared, tmp_path / "qat.onnx")
    found = placed(onnx.load(tmp_path / "qat.onnx"))
    golden = GOLDEN / f"{name}.txt"
    if update_golden:
        golden.parent.mkdir(exist_ok=True)
        golden.write_text("\n".join(found) + "\n")
    assert found == golden.read_text().splitlines()
    assert placed(post_training(copy.deepcopy(network), tmp_path / "float.onnx")) == found


@pytest.mark.parametrize("name", TORCH_NETWORKS)
def test_export_is_clean_and_nvidias_builder_takes_it(name: str, tmp_path: Path) -> None:
    qat.export_onnx(trained(name)[1], tmp_path / "qat.onnx")
    model = onnx.load(tmp_path / "qat.onnx")
    assert lint(model) == ()
    shape = model.graph.input[0].type.tensor_type.shape
    assert shape.dim[0].dim_param
    verdict = parse(model, build=True)
    assert (verdict.errors, verdict.warnings) == ([], [])
    assert verdict.plan


def test_a_pair_inside_unbind_is_trained_behind_it(tmp_path: Path) -> None:
    """V of an attention that stays in float: the pair goes between unbind's Split and Squeeze."""
    prepared = qat.prepare(VisionTransformer(width=96), (images(),))
    train(prepared)
    qat.export_onnx(prepared.eval(), tmp_path / "qat.onnx")
    model = onnx.load(tmp_path / "qat.onnx")
    assert [line for line in placed(model) if line.startswith("Squeeze")]
    x = images(5)
    with torch.no_grad():
        expected = outputs_of(prepared(x))
    for found, value in zip(run_onnx(tmp_path / "qat.onnx", x), expected, strict=True):
        assert np.abs(found - value.numpy()).mean() < 1e-3 * float(value.abs().max())
