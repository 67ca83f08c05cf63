"""Every network of the tests, and the real models: prepared once and for all, results kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from graphs.identity import graph_hash
from quantization import lint, load_model, prepare
from tests.networks import NETWORKS
from tests.observed import quantized, random_feeds
from tests.odd_models import run

_MODELS = (
    "cifar_resnet20",
    "kws_dscnn_fp32",
    "kws_dscnn_qdq_int8",
    "mobilenet_v1_0.25_128_fp32",
    "mobilenet_v1_0.25_128_qdq_uint8",
    "mobilenet_v2_1.0_224_fp32",
    "resnet8_cifar10_fp32",
    "resnet8_cifar10_qdq_int8",
    "yolox_nano",
)


def assert_prepared(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    prepared = prepare(model)
    assert list(prepared.graph.input) == list(model.graph.input)
    assert list(prepared.graph.output) == list(model.graph.output)
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)
    names = [node.name for node in prepared.graph.node]
    assert len(set(names)) == len(names)
    assert all(names)
    feeds = random_feeds(model, rng)
    for expected, found in zip(run(model, feeds), run(prepared, feeds), strict=True):
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, rng: np.random.Generator) -> None:
    assert_prepared(NETWORKS[name](), rng)


@pytest.mark.parametrize("name", _MODELS)
def test_real_model(name: str, assets: Path, rng: np.random.Generator) -> None:
    assert_prepared(load_model(assets / "models" / f"{name}.onnx"), rng)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_we_quantize_has_nothing_to_mend(name: str, rng: np.random.Generator) -> None:
    model = prepare(NETWORKS[name]())
    findings = lint(quantized(model, random_feeds(model, rng)))
    assert [(finding.rule, finding.node) for finding in findings] == []
