from __future__ import annotations

from pathlib import Path

import pytest

from artefacts.errors import InputError
from engines import BuildOptions, options, resolve_target
from engines.runtimes import settle_target


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"target": "npu"}, "target is 'npu', expected one of auto, cpu, tensorrt, tensorrt-rtx"),
        ({"precision": "int4"}, "precision is 'int4', expected one of fp32, fp16, int8"),
        ({"optimization_level": 6}, "optimization_level is 6, expected 0 to 5"),
        ({"workspace_mib": 0}, "workspace_mib is 0, expected 1 to"),
        ({"require_int8": 1.5}, "require_int8 is 1.5, expected 0 to 1"),
        ({"threads": 0}, "threads is 0, expected 1 to"),
        ({"memory_pools_mib": {"DLA_LOCAL_DRAM": -1}}, r"memory_pools_mib\[DLA_LOCAL_DRAM\] is -1"),
        ({"tactic_sources": ("CUBLAS",)}, r"tactic_sources has 'CUBLAS', expected \+ or -"),
        ({"preview_features": ("+",)}, r"preview_features has '\+'"),
        ({"compute_capabilities": ("86",)}, "compute capability '86' is not a number pair"),
        ({"hardware_compatibility": "turing"}, "hardware_compatibility is 'turing'"),
        ({"calibration_cache": Path("c"), "precision": "fp16"}, "precision is fp16 with a calib"),
        (
            {"calibration_cache": Path("c"), "calibrator": object(), "precision": "int8"},
            "both a calibrator and a calibration cache",
        ),
    ],
)
def test_nonsense_is_refused_by_name(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        BuildOptions(**wrong)  # type: ignore[arg-type]


def test_tf32_is_stated_in_the_manifest() -> None:
    assert settle_target(BuildOptions(target="tensorrt")).to_json()["tf32"] is True
    assert settle_target(BuildOptions(target="tensorrt", tf32=False)).to_json()["tf32"] is False
    assert settle_target(BuildOptions(target="cpu")).to_json()["tf32"] is None


@pytest.mark.parametrize(
    ("library", "gpu", "target"),
    [(True, True, "tensorrt"), (True, False, "cpu"), (False, True, "cpu"), (False, False, "cpu")],
)
def test_auto_takes_tensorrt_only_with_library_and_gpu(
    monkeypatch: pytest.MonkeyPatch, library: bool, gpu: bool, target: str
) -> None:
    monkeypatch.setattr(options, "has_module", lambda name: library and name == "tensorrt")
    monkeypatch.setattr(options, "has_gpu", lambda: gpu)
    assert resolve_target("auto") == target
    assert settle_target(BuildOptions()).target == target


def test_named_targets_stay() -> None:
    for target in ("cpu", "tensorrt", "tensorrt-rtx"):
        assert resolve_target(target) == target
    with pytest.raises(InputError, match="target is 'gpu'"):
        resolve_target("gpu")


@pytest.mark.parametrize(
    ("target", "option", "value"),
    [
        ("cpu", "dla_core", 0),
        ("cpu", "calibration_cache", Path("x")),
        ("cpu", "timing_cache", Path("x")),
        ("tensorrt", "threads", 2),
        ("tensorrt", "compute_capabilities", ("8.6",)),
        ("tensorrt-rtx", "calibrator", object()),
    ],
)
def test_an_option_without_effect_is_refused(target: str, option: str, value: object) -> None:
    given = {"target": target, "precision": "int8", option: value}
    with pytest.raises(InputError) as caught:
        settle_target(BuildOptions(**given))  # type: ignore[arg-type]
    assert f"option {option} is" in str(caught.value)
    assert f"with target {target}" in str(caught.value)
