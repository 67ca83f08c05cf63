"""What quantization-aware training refuses, and the sentence it says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from artefacts.errors import (
    ArtefactError,
    InputError,
    MissingLibraryError,
    ModelError,
    UnsupportedError,
)
from quantization import qat
from quantization.qat.attention import decompose_attention
from tests.integration.test_qat import images

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


def conv() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 16, 1), nn.ReLU(), nn.Conv2d(16, 8, 1)
    )


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = conv()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return self.layers(x)
        return -self.layers(x)


def test_control_flow_that_hangs_on_values_names_the_line() -> None:
    with pytest.raises(ModelError) as caught:
        qat.prepare(Branching(), (images(),))
    message = str(caught.value)
    assert "model Branching cannot be captured by torch.export" in message
    line = Path(__file__).read_text().splitlines().index("        if x.sum() > 0:") + 1
    assert f"at test_qat_refusals.py, line {line}: 'if x.sum() > 0:'" in message


class FixedBatch(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).reshape(2, -1)


def test_a_model_with_a_fixed_batch_is_refused() -> None:
    with pytest.raises(ModelError, match="batch"):
        qat.prepare(FixedBatch(*conv()), (images(),))


def with_layer(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(*conv(), layer)


@pytest.mark.parametrize(
    ("model", "inputs", "found"),
    [
        (conv(), images(), "example_inputs are Tensor, expected a tuple"),
        (conv(), [images()], "example_inputs are list of Tensor"),
        (conv(), (), "example_inputs are tuple of"),
        (conv(), (images(1),), "batch sizes [1], expected one size of 2 or more"),
        (conv(), (images(2), images(3)), "batch sizes [2, 3]"),
        (nn.DataParallel(conv()), (images(),), "wrapped in DataParallel"),
        (with_layer(nn.SyncBatchNorm(8)), (images(),), "layer 5 is a SyncBatchNorm"),
        (with_layer(nn.BatchNorm2d(8, momentum=None)), (images(),), "layer 5 has momentum None"),
        (with_layer(nn.Conv2d(8, 8, 1, device="meta")), (images(),), "on devices cpu, meta"),
    ],
)
def test_inputs_and_models_that_do_not_fit(model: nn.Module, inputs: tuple, found: str) -> None:
    with pytest.raises(InputError, match=re.escape(found)):
        qat.prepare(model, inputs)


def test_inputs_of_the_wrong_shape_say_what_torch_says() -> None:
    with pytest.raises(ModelError, match=r"expected input\[.*, 4, 9, 9\] to have 3 channels"):
        qat.prepare(conv(), (torch.zeros(2, 4, 9, 9),))


def test_exclusions_are_checked_and_followed(tmp_path: Path) -> None:
    model = conv()
    with pytest.raises(ModelError, match="'Convolution' selects no node"):
        qat.prepare(model, (images(),), exclude=["Convolution"])
    with pytest.raises(ModelError, match="no layer to quantize"):
        qat.prepare(model, (images(),), exclude=["Conv"])


def test_steps_out_of_order(tmp_path: Path) -> None:
    model = conv()
    for step in (qat.freeze_ranges, qat.freeze_batchnorm, lambda m: qat.export_onnx(m, tmp_path)):
        with pytest.raises(InputError, match="Sequential is not prepared"):
            step(model)
    prepared = qat.prepare(model, (images(),))
    with pytest.raises(InputError, match="is prepared already"):
        qat.prepare(prepared, (images(),))
    prepared.eval()(images())
    for step in (qat.freeze_ranges, lambda m: qat.export_onnx(m, tmp_path / "qat.onnx")):
        with pytest.raises(InputError, match=r"3 tensors have no range .*evaluation does not move"):
            step(prepared)
    prepared.train()(images())
    broken = prepared.get_parameter("2.weight")
    with torch.no_grad():
        broken[0] = torch.nan
    with pytest.raises(ArtefactError, match=r"parameter 2\.weight holds NaN"):
        qat.export_onnx(prepared, tmp_path / "qat.onnx")
    assert not (tmp_path / "qat.onnx").exists()


class Causal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(x).unsqueeze(1).chunk(3, -1)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return torch.relu(self.out(mixed.squeeze(1)))


def test_layers_inside_one_torch_operator() -> None:
    x = (torch.randn(2, 16, 32),)
    with pytest.raises(
        UnsupportedError, match="lies inside scaled_dot_product_attention"
    ) as caught:
        qat.prepare(Causal(), x)
    named = re.search(r"exclude (\S+),", str(caught.value))
    assert named
    qat.prepare(Causal(), x, exclude=[named.group(1)])  # the other product goes with it


def test_one_scale_for_a_weight_in_front_of_batchnorm() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.ConvTranspose2d(32, 32, 2, 2, groups=2),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 16, 1),
    )
    with pytest.raises(UnsupportedError, match="takes one scale for its whole weight and feeds a"):
        qat.prepare(model, (images(),))


@pytest.mark.parametrize("module", ["torchao.quantization.pt2e", "onnxscript"])
def test_missing_extra(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingLibraryError, match=re.escape("pip install '.[qat]'")):
        qat.prepare(conv(), (images(),))


class Masked(nn.Module):
    def __init__(self, mask: torch.Tensor | None, scale: float | None) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = self.mask
        return functional.scaled_dot_product_attention(
            x, 2 * x, x, attn_mask=mask, scale=self.scale
        )


@pytest.mark.parametrize(
    "mask", [None, torch.randn(5, 5), torch.ones(5, 5).tril().bool()], ids=["none", "sum", "bool"]
)
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_written_out_computes_the_same(
    mask: torch.Tensor | None, scale: float | None
) -> None:
    model = Masked(mask, scale).eval()
    x = torch.randn(2, 3, 5, 8)
    network = torch.export.export(model, (x,)).module(check_guards=False)
    decompose_attention(network)
    targets = [str(node.target) for node in network.graph.nodes]
    assert not any("scaled_dot_product" in target for target in targets)
    torch.testing.assert_close(network(x), model(x))
