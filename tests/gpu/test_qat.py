"""Quantization-aware training on a GPU: prepared there, under autocast, moved, exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.gpu.conftest import require


@pytest.fixture
def cuda(request: pytest.FixtureRequest) -> str:
    require(request.config, "torch", "torchao", "onnxscript")
    import torch

    if not torch.cuda.is_available():
        pytest.skip("this torch is built without CUDA")
    return "cuda"


def test_training_on_the_gpu_and_moving_to_the_cpu(cuda: str, tmp_path: Path) -> None:
    import torch

    from quantization import qat
    from tests.integration.test_qat import run_onnx
    from tests.networks.torch_networks import ResNet, with_statistics

    network = qat.prepare(
        with_statistics(ResNet()).to(cuda), (torch.zeros(2, 3, 32, 32, device=cuda),)
    ).train()
    optimizer = torch.optim.SGD(network.parameters(), 1e-2)
    scaler = torch.amp.GradScaler(cuda)
    for _ in range(3):
        with torch.autocast(cuda, dtype=torch.float16):
            loss = network(torch.randn(8, 3, 32, 32, device=cuda)).square().mean()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    qat.freeze_ranges(network)
    qat.export_onnx(network, tmp_path / "gpu.onnx")
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = network.cpu().eval()(x).numpy()
    [found] = run_onnx(tmp_path / "gpu.onnx", x)
    assert np.abs(found - expected).mean() < 1e-3 * np.abs(expected).max()
    qat.export_onnx(network, tmp_path / "cpu.onnx")
    assert (tmp_path / "cpu.onnx").read_bytes() == (tmp_path / "gpu.onnx").read_bytes()
