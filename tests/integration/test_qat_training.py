"""How users combine quantization-aware training: ranges, checkpoints, freezing, AMP, compile."""

from __future__ import annotations

import copy
import functools
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

import quantization
from artefacts.errors import ArtefactError
from calibrators.ranges.ranges import Range, Ranges
from graphs.identity import graph_hash
from quantization import qat
from quantization.qat.modules import activation_quantizer, batch_norm
from tests.integration.test_qat import images, placed, run_onnx, train
from tests.networks.torch_networks import Bottleneck, conv_bn, with_statistics

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


class Small(nn.Module):
    """A residual with two convolutions in front, dropout and a head: all kinds of edges."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 32), nn.ReLU(), nn.MaxPool2d(4))
        self.stem[0][1].eps = 1e-3
        self.block = Bottleneck(32, 32, 1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.block(self.stem(image)).mean((2, 3))))


@functools.cache
def fresh() -> tuple[nn.Module, torch.fx.GraphModule]:
    network = with_statistics(Small())
    return network, qat.prepare(network, (images(),))


def prepared(*, steps: int = 2) -> torch.fx.GraphModule:
    """A prepared network of its own; a copy, as capturing takes seconds."""
    network = copy.deepcopy(fresh()[1])
    train(network, steps)
    return network


def ranges_for(path: Path, rng: np.random.Generator) -> tuple[Ranges, object, object]:
    model = quantization.prepare(quantization.load_model(path))
    placement = quantization.place(model)
    tensors = {n: Range(amax=rng.uniform(0.5, 3), method="entropy") for n in placement.tensors}
    ranges = Ranges(
        graph_hash=graph_hash(model),
        statistics_digest="",
        method="entropy",
        tensors=tensors,
        samples=8,
        preprocess=None,
    )
    return ranges, model, placement


def test_training_starts_where_post_training_quantization_ends(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """With calibrated ranges, the untrained network computes what the INT8 model computes."""
    network = with_statistics(Small())
    qat.export_float(network, (images(),), tmp_path / "float.onnx")
    ranges, model, placement = ranges_for(tmp_path / "float.onnx", rng)
    int8 = quantization.insert_qdq(model, placement, ranges)
    quantization.save_model(int8, tmp_path / "int8.onnx")
    tuned = qat.prepare(network, (images(),), ranges=ranges).eval()
    x = images(6)
    with torch.no_grad():
        found = tuned(x).numpy()
        floating = network.eval()(x).numpy()
    [expected] = run_onnx(tmp_path / "int8.onnx", x)
    error = np.abs(found - expected).mean()
    assert error < 0.02 * np.abs(expected).mean()
    assert error < 0.1 * np.abs(floating - expected).mean(), "it is the INT8 model, not the float"
    other = Ranges(**{**vars(ranges), "graph_hash": "0123456789abcdef"})
    with pytest.raises(ArtefactError, match="belong to graph 0123456789ab,") as e:
        qat.prepare(network, (images(),), ranges=other)
    assert ranges.graph_hash[:12] in str(e.value)


def test_the_users_model_is_left_alone() -> None:
    network, _ = fresh()
    before = copy.deepcopy(network.state_dict())
    prepared()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_modes_switch_dropout_and_batchnorm() -> None:
    network = prepared()
    x = images(4)
    with torch.no_grad():
        assert torch.equal(network.eval()(x), network(x))
        statistics = {n: b.clone() for n, b in network.named_buffers() if "running" in n}
        assert not torch.equal(network.train()(x), network(x)), "dropout drops"
    moved = [
        n for n, b in network.named_buffers() if n in statistics and (b != statistics[n]).any()
    ]
    assert len(moved) == len(statistics) == 10


def test_batchnorm_keeps_the_layers_own_numbers() -> None:
    layers = [m for m in prepared().modules() if isinstance(m, batch_norm())]
    assert sorted(m.epsilon for m in layers) == [1e-5, 1e-5, 1e-5, 1e-5, 1e-3]


def test_frozen_ranges_and_statistics_stay_while_weights_train() -> None:
    network = prepared()
    qat.freeze_ranges(network)
    qat.freeze_batchnorm(network)
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    weights = {name: value.detach().clone() for name, value in network.named_parameters()}
    train(network, 2, rate=0.1)
    for name, value in network.named_buffers():
        if not name.endswith("scale"):  # weights' scales follow the weights
            assert torch.equal(value, buffers[name]), name
    changed = [n for n, value in network.named_parameters() if not torch.equal(value, weights[n])]
    assert "head.weight" in changed


def test_a_run_resumes_from_a_checkpoint() -> None:
    network = prepared()
    qat.freeze_batchnorm(network)
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    resumed = copy.deepcopy(fresh()[1])
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for run in (network, resumed):
        torch.manual_seed(7)
        train(run, 2)
    states = zip(network.state_dict().items(), resumed.state_dict().values(), strict=True)
    for (name, value), other in states:
        assert torch.equal(value, other), name


def test_checkpoint_of_another_network_is_refused() -> None:
    state = prepared().state_dict()
    state.pop(next(name for name in state if name.endswith("amax")))
    with pytest.raises(RuntimeError, match=r"Missing key.*amax"):
        prepared().load_state_dict(state)


def test_shared_scale_follows_the_largest_tensor() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 32, 1), nn.Conv2d(3, 32, 1)
            self.out = nn.Conv2d(64, 32, 1)
            self.last = nn.Conv2d(32, 16, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left, right = torch.relu(self.left(x)), torch.relu(self.right(x))
            joined = torch.relu(self.out(torch.cat([left, right], 1)))
            return self.last(joined + torch.relu(self.out(torch.cat([right, left], 1))))

    network = qat.prepare(Joined(), (images(),)).train()
    groups = [m for m in network.modules() if isinstance(m, activation_quantizer()) and m.calls > 1]
    network(images())
    assert groups
    assert all(fake._pending is None for fake in groups), "each pass ends with a full count"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_trains_and_exports(dtype: torch.dtype, tmp_path: Path) -> None:
    network = prepared()
    before = network.head.weight.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    with torch.autocast("cpu", dtype=dtype):
        output = network(images(4))
        loss = output.square().mean()
    assert output.dtype == dtype
    loss.backward()
    optimizer.step()
    assert not torch.equal(network.head.weight, before)
    qat.export_onnx(network, tmp_path / "qat.onnx")


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo does
def test_compiled_network_trains_the_same_and_exports(tmp_path: Path) -> None:
    network = prepared()
    compiled = torch.compile(copy.deepcopy(network), backend="aot_eager", fullgraph=True)
    for run in (network, compiled):
        torch.manual_seed(11)
        train(run, 2)
        qat.freeze_ranges(run)
        qat.freeze_batchnorm(run)
        train(run, 1)
    x = images(3)
    with torch.no_grad():
        # Sums in another order: a value on a rounding tie may move by one step.
        torch.testing.assert_close(compiled.eval()(x), network.eval()(x), rtol=0.02, atol=0.02)
    qat.export_onnx(compiled, tmp_path / "compiled.onnx")
    qat.export_onnx(network, tmp_path / "eager.onnx")
    found = [placed(onnx.load(tmp_path / f"{name}.onnx")) for name in ("compiled", "eager")]
    assert found[0] == found[1]


def test_torchaos_own_conversion_has_the_same_numbers() -> None:
    """Its Q and DQ operators stand where our fake quantizers stood."""
    network = prepared().eval()
    x = images(5)
    with torch.no_grad():
        expected = network(x)
        converted = convert_pt2e(copy.deepcopy(network))
        targets = [str(node.target) for node in converted.graph.nodes]
        found = converted(x)
    assert sum("quantize_per_tensor" in target for target in targets) >= 5
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_frozen_parameters_stay_frozen() -> None:
    network = Small()
    network.stem.requires_grad_(False)
    tuned = qat.prepare(network, (images(),))
    frozen = [name for name, p in tuned.named_parameters() if not p.requires_grad]
    assert sorted(frozen) == ["stem.0.0.weight", "stem.0.1.bias", "stem.0.1.weight"]


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_distributed_data_parallel_trains_and_exports(tmp_path: Path) -> None:
    network = prepared()
    distributed = nn.parallel.DistributedDataParallel(network)
    before = network.head.weight.detach().clone()
    train(distributed, 2, rate=0.1)
    assert not torch.equal(network.head.weight, before)
    qat.freeze_ranges(distributed)
    qat.freeze_batchnorm(distributed)
    qat.export_onnx(distributed, tmp_path / "qat.onnx")
