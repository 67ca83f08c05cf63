"""Which machine an engine fits, decided from manifest and GPU facts alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from artefacts.errors import EngineError, UnsupportedError
from engines import environment
from engines.loading import check_machine
from engines.manifest import Manifest
from engines.tensorrt import library as tensorrt_library
from engines.tensorrt import runtime as tensorrt_runtime
from tests.unit.engines.test_manifest import manifest

RTX3060 = {"name": "RTX 3060", "compute_capability": "8.6", "driver_cuda": "12.6"}
A100 = {"name": "A100", "compute_capability": "8.0", "driver_cuda": "12.6"}
H100 = {"name": "H100", "compute_capability": "9.0", "driver_cuda": "12.6"}
# One name and SM for two chips.
ORIN_AGX = {
    "name": "Orin",
    "compute_capability": "8.7",
    "multiprocessors": "16",
    "driver_cuda": "12.6",
}
ORIN_NANO = ORIN_AGX | {"multiprocessors": "8"}
T4 = {"name": "T4", "compute_capability": "7.5", "driver_cuda": "12.6"}


def built_on(gpu: dict[str, str], target: str = "tensorrt", **options: Any) -> Manifest:
    return manifest(
        target=target,
        device=gpu,
        options=options,
        library={"name": target.replace("-", "_"), "version": "10.3.0"},
    )


def release(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    library = SimpleNamespace(__version__=version)
    monkeypatch.setattr(tensorrt_runtime, "tensorrt", lambda target: library)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The GPU of this machine; tests change it."""
    gpu: dict[str, str] = dict(RTX3060)
    monkeypatch.setattr(
        tensorrt_runtime, "tensorrt", lambda target: SimpleNamespace(__version__="10.3.0")
    )
    monkeypatch.setattr(tensorrt_library, "gpu_facts", lambda device: gpu or None)
    return gpu


@pytest.mark.parametrize(
    ("built", "here", "options", "fits"),
    [
        (RTX3060, RTX3060, {}, True),
        (A100, RTX3060, {}, False),
        (RTX3060 | {"name": "RTX 3090"}, RTX3060, {}, False),
        (A100, H100, {"hardware_compatibility": "ampere+"}, True),
        (A100, T4, {"hardware_compatibility": "ampere+"}, False),
        (
            RTX3060 | {"name": "RTX 3090"},
            RTX3060,
            {"hardware_compatibility": "same-compute-capability"},
            True,
        ),
        (A100, RTX3060, {"hardware_compatibility": "same-compute-capability"}, False),
        (ORIN_AGX, ORIN_AGX, {}, True),
        (ORIN_AGX, ORIN_NANO, {}, False),
        (ORIN_AGX, ORIN_NANO, {"hardware_compatibility": "same-compute-capability"}, True),
        # Engines of before the number was kept.
        ({k: v for k, v in ORIN_AGX.items() if k != "multiprocessors"}, ORIN_NANO, {}, True),
    ],
)
def test_tensorrt_engines_fit_their_kind_of_gpu(
    found: dict[str, str],
    built: dict[str, str],
    here: dict[str, str],
    options: dict[str, Any],
    fits: bool,
) -> None:
    found.update(here)
    made = built_on(built, **options)
    if fits:
        check_machine("m.engine", made)
        return
    with pytest.raises(EngineError) as caught:
        check_machine("m.engine", made)
    said = str(caught.value)
    assert f"found {here['compute_capability']} ({here['name']}" in said
    assert "python build_engine.py --onnx model.onnx --engine m.engine" in said
    assert "--target tensorrt" in said


@pytest.mark.parametrize(
    ("listed", "fits"), [(["8.6"], True), (["7.5", "8.6"], True), (["8.9"], False), ([], True)]
)
def test_rtx_engines_fit_the_listed_capabilities(
    found: dict[str, str], listed: list[str], fits: bool
) -> None:
    made = built_on({"name": "any"}, "tensorrt-rtx", compute_capabilities=listed)
    if fits:
        check_machine("m.engine", made)
        return
    with pytest.raises(EngineError, match=r"compute capability one of 8\.9, found 8\.6"):
        check_machine("m.engine", made)


def test_another_release(found: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tensorrt_runtime, "tensorrt", lambda target: SimpleNamespace(__version__="11.4.0")
    )
    with pytest.raises(EngineError, match=r"built with tensorrt 10\.3\.0, found 11\.4\.0"):
        check_machine("m.engine", built_on(RTX3060))
    check_machine("m.engine", built_on(RTX3060, version_compatible=True))


def test_no_gpu(found: dict[str, str]) -> None:
    found.clear()
    with pytest.raises(UnsupportedError, match="no NVIDIA GPU on this machine, expected one to"):
        check_machine("m.engine", built_on(RTX3060))


def test_a_blocked_module_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "openvino", None)
    assert not environment.has_module("openvino")
    assert environment.has_module("json")
