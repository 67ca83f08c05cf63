"""Training under the bound of CPUs without VNNI: what trains is what runs, on any x86 CPU."""

from __future__ import annotations

import copy
import functools
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import engines
from artefacts.errors import InputError
from engines import BuildOptions
from engines.openvino.needed_isa import needed_cpu_isa
from quantization import qat
from quantization.foreign.bound import bound_weights
from quantization.measure.execution import load_int8
from quantization.qat.modules import weight_quantizer
from quantization.write.bounded_weights import as_rows
from tests.integration.test_qat import (
    GOLDEN,
    assert_alike,
    images,
    outputs_of,
    placed,
    post_training,
    train,
)
from tests.networks.torch_networks import TORCH_NETWORKS, conv_bn, with_statistics

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
CONVOLUTIONAL = [name for name in TORCH_NETWORKS if name != "vit"]
PRODUCT = re.compile(r"MatMul \d+, input 1: per tensor")  # the right side is an activation


@functools.cache
def trained(name: str) -> tuple[nn.Module, torch.fx.GraphModule]:
    """A float network, and the same after a few steps of training under the bound."""
    network = with_statistics(TORCH_NETWORKS[name]())
    prepared = qat.prepare(network, (images(),), cpu_isa="portable")
    train(prepared)
    return network, prepared.eval()


def exported(network: nn.Module, folder: Path) -> onnx.ModelProto:
    qat.export_onnx(network, folder / "qat.onnx")
    return onnx.load(folder / "qat.onnx")


def run(model: onnx.ModelProto, x: torch.Tensor) -> list[np.ndarray]:
    return list(load_int8(model)({model.graph.input[0].name: x.numpy()}).values())


@pytest.mark.parametrize("name", TORCH_NETWORKS)
def test_export_computes_what_training_saw(name: str, tmp_path: Path) -> None:
    _, prepared = trained(name)
    model = exported(prepared, tmp_path)
    assert needed_cpu_isa(model) == "portable"
    x = images(5)
    with torch.no_grad():
        expected = outputs_of(prepared(x))
    for found, value in zip(run(model, x), expected, strict=True):
        assert_alike(found, value.numpy())


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_folding_batchnorm_leaves_the_codes(name: str, tmp_path: Path) -> None:
    """Folding rounds each weight by 6e-8 of it, so a code on a tie may go the other way.

    So may a channel's scale, which is one of a few: two that lose the same are a tie, too.
    """
    network, prepared = trained(name)
    model = exported(prepared, tmp_path)
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    state, compared = prepared.state_dict(), 0
    for call in prepared.graph.find_nodes(op="call_module"):
        fake = prepared.get_submodule(call.target)
        if not isinstance(fake, weight_quantizer()):
            continue
        weight = str(call.args[0].target)
        layer = weight.removesuffix("0.weight") + "1"
        if f"{layer}.weight" not in state or f"{weight}_int8" not in tensors:
            continue  # no BatchNorm behind it
        deviation = (state[f"{layer}.running_var"] + network.get_submodule(layer).eps).sqrt()
        factor = (state[f"{layer}.weight"] / deviation).numpy()[:, None]
        found = as_rows(tensors[f"{weight}_int8"], 0)
        folded = found * (tensors[f"{weight}_scale"].reshape(-1, 1) / factor)
        seen = as_rows(fake(state[weight]).numpy(), 0)
        steps = fake.scale.numpy()
        same = np.isclose(tensors[f"{weight}_scale"].ravel(), steps * np.abs(factor[:, 0]))
        errors = [
            np.square(values - as_rows(state[weight].numpy(), 0)).sum(1)
            for values in (folded, seen)
        ]
        np.testing.assert_allclose(errors[0][~same], errors[1][~same], rtol=1e-3)
        codes = np.rint(seen / steps[:, None] * np.sign(factor))
        assert (codes != found)[same].mean() < 1e-3
        assert np.abs(codes - found)[same].max() <= 1
        compared += found[same].size
    assert compared > 1000


@pytest.mark.parametrize("name", ["detector", "vit"])
def test_pairs_are_where_post_training_quantization_puts_them(name: str, tmp_path: Path) -> None:
    """Products of two activations stay in floating point, in training and in the graph."""
    network, prepared = trained(name)
    found = placed(exported(prepared, tmp_path))
    float_network = copy.deepcopy(network)
    assert placed(post_training(float_network, tmp_path / "f.onnx", portable=True)) == found
    golden = (GOLDEN / f"{name}.txt").read_text().splitlines()
    products = [line.split(",")[0] for line in golden if PRODUCT.match(line)]
    assert bool(products) == (name == "vit")
    assert not any(line.split(",")[0] in products for line in found)


class Small(nn.Module):
    """Convolutions of few channels, whose pairs bind often, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv_bn(3, 32), nn.ReLU(), conv_bn(32, 32), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.head = nn.Linear(32, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(image).flatten(1))


@functools.cache
def small(isa: str) -> torch.fx.GraphModule:
    network = with_statistics(Small())
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.abs_()  # pairs of one sign
    prepared = qat.prepare(network, (images(),), cpu_isa=isa)
    train(prepared)
    return prepared.eval()


def test_a_build_for_any_cpu_takes_the_codes_as_they_are(tmp_path: Path) -> None:
    assert bound_weights(exported(small("vnni"), tmp_path)).layers
    model = exported(small("portable"), tmp_path)
    found = bound_weights(model)
    assert (found.layers, found.channels, found.released) == ((), 0.0, ())


def test_the_engine_computes_the_trained_network_on_this_cpu(tmp_path: Path) -> None:
    model = exported(small("portable"), tmp_path)
    options = BuildOptions(target="cpu", precision="int8")
    engines.build(tmp_path / "qat.onnx", tmp_path / "qat.engine", options)
    x = images(8)
    name = model.graph.input[0].name
    [found] = engines.load(tmp_path / "qat.engine")({name: x.numpy()}).values()
    [expected] = run(model, x)
    # A few activations on a rounding tie move by a step; saturating sums would lose a tenth of it.
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo does
def test_compiled_network_trains_the_same() -> None:
    network = copy.deepcopy(small("portable"))
    compiled = torch.compile(copy.deepcopy(network), backend="aot_eager", fullgraph=True)
    for each in (network, compiled):
        torch.manual_seed(11)
        train(each, 2)
    x = images(3)
    with torch.no_grad():
        # Sums in another order: a value on a rounding tie may move by one step.
        torch.testing.assert_close(compiled.eval()(x), network.eval()(x), rtol=0.02, atol=0.02)


def test_training_goes_on_under_the_bound_from_a_checkpoint_without_it(tmp_path: Path) -> None:
    """The last epochs are enough: the two networks hold the same state."""
    network = copy.deepcopy(small("portable"))
    network.load_state_dict(small("vnni").state_dict())
    model = exported(network, tmp_path)
    assert needed_cpu_isa(model) == "portable"
    assert needed_cpu_isa(exported(small("vnni"), tmp_path)) == "vnni"
    x = images(5)
    with torch.no_grad():
        expected = network.eval()(x).numpy()
    np.testing.assert_allclose(run(model, x)[0], expected, atol=0.02 * np.abs(expected).max())


def test_a_kind_of_cpu_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="cpu_isa is 'auto', expected vnni or portable"):
        qat.prepare(Small(), (images(),), cpu_isa="auto")
