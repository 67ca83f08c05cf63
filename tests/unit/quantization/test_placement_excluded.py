"""Layers that a user excludes, and models without any to quantize."""

from __future__ import annotations

import pytest

from artefacts.errors import ModelError
from quantization.placement import place
from tests.networks import Builder
from tests.unit.quantization.test_placement_layers import conv_chain


@pytest.mark.parametrize(
    ("pattern", "gone"),
    [
        ("n_Conv_1", {"n_Conv_1"}),
        ("/Conv_[01]$/", {"n_Conv_0", "n_Conv_1"}),
        ("Gemm", {"n_Gemm_0"}),
    ],
)
def test_exclude_takes_names_expressions_and_op_types(pattern: str, gone: set[str]) -> None:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (16, 32, 8, 8)), 32))
    x = net.relu(net.conv(net.relu(net.conv(x, 32)), 32))
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    model = net.build("net", net.relu(net.gemm(x, 32, 32)))
    full, placement = place(model, profile="cpu"), place(model, profile="cpu", exclude=[pattern])
    assert set(full.int8_nodes) - set(placement.int8_nodes) == gone
    assert {f.node for f in placement.floating if f.rule == "excluded"} == gone
    assert not gone & {edge.node for edge in (*placement.activations, *placement.weights)}


def test_exclude_suggests_near_misses() -> None:
    model = conv_chain(32, 32)
    with pytest.raises(ModelError, match=r"'n_Conv_I' selects no node.*did you mean.*n_Conv_1"):
        place(model, exclude=["n_Conv_I"])
    with pytest.raises(ModelError, match=r"'conv' selects no node.*Conv"):
        place(model, exclude=["conv"])
    with pytest.raises(ModelError, match=r"'/\(/' is not a regular expression"):
        place(model, exclude=["/(/"])


def test_a_model_without_quantizable_layers_says_why() -> None:
    net = Builder()
    model = net.build("pointwise", net.relu(net.input("x", (1, 8))))
    with pytest.raises(ModelError, match=r"'pointwise' has no layer.*found: Relu"):
        place(model)
    net = Builder()
    model = net.build("vector", net.gemm(net.input("x", (1, 8)), 8, 4))
    with pytest.raises(ModelError, match=r"all 1 weighted layers.*n_Gemm_0: a matrix-vector"):
        place(model)
