"""What the tests in this folder need, asked once: an NVIDIA GPU, TensorRT and PyCUDA."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.environment import gpu_facts, has_module

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.gpu)


def missing(*modules: str) -> str | None:
    """Why the tests cannot run here; ``None`` if they can."""
    if gpu_facts() is None:
        return "no NVIDIA GPU on this machine"
    absent = [name for name in modules if not has_module(name)]
    return f"not installed: {', '.join(absent)}" if absent else None


def require(config: pytest.Config, *modules: str) -> None:
    """Skip with the reason, or fail with it under ``--require-gpu``."""
    reason = missing(*modules)
    if reason is None:
        return
    if config.getoption("--require-gpu"):
        pytest.fail(f"--require-gpu: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def trt(pytestconfig: pytest.Config) -> Any:
    """TensorRT, on a machine that can run it."""
    require(pytestconfig, "tensorrt", "pycuda")
    import tensorrt

    return tensorrt


@pytest.fixture(scope="session")
def rtx(pytestconfig: pytest.Config) -> Any:
    """TensorRT-RTX, on a machine that can run it."""
    require(pytestconfig, "tensorrt_rtx", "pycuda")
    import tensorrt_rtx

    return tensorrt_rtx


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Every device buffer that a test allocates is freed when it ends, also by errors."""
    from engines.cuda.memory import live_buffers

    before = live_buffers()
    yield
    gc.collect()
    assert live_buffers() == before
