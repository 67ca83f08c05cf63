"""Our builder on NVIDIA's own classes of TensorRT 8.6, 10.3, 10.16 and 11.4.

Every attribute they touch must exist in that release and every call fit its signature:
``surface.py`` fails the build otherwise, in the process of that release.
"""

from __future__ import annotations

import pytest

from tests.contract.driven import Seen, scenario


def test_explicit_int8(generation: tuple[str, Seen]) -> None:
    name, all_seen = generation
    seen = scenario(all_seen, "explicit")
    assert "error" not in seen
    # TensorRT 8 cannot be strongly typed: there the INT8 flag lets Q/DQ nodes be quantized.
    flags = ["FP16", "INT8"] if name == "trt8" else []
    assert seen["facts"] == {
        "typing": "weak" if name == "trt8" else "strong",
        "flags": sorted([*flags, "VERSION_COMPATIBLE"]),
    }
    assert seen["precisions"] == {"conv1_node": "int8"}
    assert seen["data"] == "plan"
    # What the manifest's schema calls it, whatever the module is called.
    assert seen["library"] == {"name": "tensorrt", "version": all_seen["version"]}
    assert seen["inputs"] == [{"name": "input", "dtype": "float32", "shape": [None, 3, 8, 8]}]
    touched = set(seen["touched"])
    assert touched >= {
        "Builder()",
        "OnnxParser()",
        "Runtime()",
        "IBuilderConfig.clear_flag",
        "IBuilderConfig.set_memory_pool_limit",
        "IBuilderConfig.builder_optimization_level =",
        "IBuilderConfig.hardware_compatibility_level =",
        "IBuilderConfig.profiling_verbosity =",
        "IBuilderConfig.set_tactic_sources",
        "IBuilderConfig.add_optimization_profile",
        "IOptimizationProfile.set_shape",
        "IBuilderConfig.set_timing_cache",
        "ITimingCache.serialize",
        "Runtime.engine_host_code_allowed =",
        "EngineInspector.execution_context =",
        "IExecutionContext.set_input_shape",
        "EngineInspector.get_engine_information",
    }
    assert ("IBuilderConfig.progress_monitor =" in touched) == (name != "trt8")
    # The second build reads what the first one wrote, and merges it before writing.
    assert (all_seen["folder"] / "explicit" / "timing.cache").read_bytes() == b"plan"
    assert "ITimingCache.combine" not in touched
    assert "ITimingCache.combine" in seen["again"]


def test_a_timing_cache_of_another_gpu(generation: tuple[str, Seen]) -> None:
    _, all_seen = generation
    seen = scenario(all_seen, "stale_timing_cache")
    # Offered and refused, replaced by an empty one, and offered for merging at the end.
    assert seen["given"] == ["of another GPU", "", "of another GPU"]
    cache = all_seen["folder"] / "stale_timing_cache" / "timing.cache"
    assert cache.read_bytes() == b"plan"


def test_a_builder_that_cannot_start(generation: tuple[str, Seen]) -> None:
    _, all_seen = generation
    seen = scenario(all_seen, "no_library")
    assert seen["kind"] == "UnsupportedError"
    assert f"TensorRT {all_seen['version']} cannot start its builder" in seen["error"]


def test_fp16_of_a_float_model(generation: tuple[str, Seen]) -> None:
    name, all_seen = generation
    seen = scenario(all_seen, "fp16")
    if name == "trt11":
        assert seen["kind"] == "UnsupportedError"
        assert "takes types from the graph only" in seen["error"]
    else:
        assert seen["facts"]["typing"] == "weak"
        assert "FP16" in seen["facts"]["flags"]


def test_a_dla_and_the_gpu_behind_it(generation: tuple[str, Seen]) -> None:
    name, all_seen = generation
    for which, flag in (("dla", "GPU_FALLBACK"), ("dla_alone", "DIRECT_IO")):
        seen = scenario(all_seen, which)
        if name == "trt11":
            assert "has no calibrators" in seen["error"]
            continue
        assert {"IBuilderConfig.DLA_core =", "IBuilderConfig.default_device_type ="} <= set(
            seen["touched"]
        )
        flags = {"FP16", "INT8", "PREFER_PRECISION_CONSTRAINTS", "VERSION_COMPATIBLE", flag}
        assert set(seen["facts"]["flags"]) == flags
        assert "Runtime.DLA_core =" in seen["touched"]  # the inspector's, too


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("dla_of_a_range", "is a range with DLA core 1, expected one shape"),
        ("dla_with_odd_pool", "memory pool dlaLocalDRAM is 24 MiB, expected a power of two"),
        (
            "dla_of_pairs",
            "has QuantizeLinear nodes with DLA core 1, expected a model without",
        ),
        ("shape_tensor", "tensor 'input' is an input or output that holds sizes"),
    ],
)
def test_what_is_refused_before_it_builds(
    generation: tuple[str, Seen], which: str, said: str
) -> None:
    name, all_seen = generation
    seen = scenario(all_seen, which)
    if name == "trt11" and which in ("dla_of_a_range", "dla_with_odd_pool"):
        said = "has no calibrators"
    assert said in seen["error"]
    assert "Builder.build_serialized_network" not in seen["touched"]


def test_pools_of_a_part_of_a_mib(generation: tuple[str, Seen]) -> None:
    name, all_seen = generation
    seen = scenario(all_seen, "dla_pools")
    if name == "trt11":
        assert all("has no calibrators" in said for said in seen["said"])
        return
    assert seen["bytes"] == {
        "DLA_MANAGED_SRAM": 524288,
        "DLA_LOCAL_DRAM": 16777216,
        "DLA_GLOBAL_DRAM": 4096,
        "WORKSPACE": 314572,
    }
    taken, odd, small, rounded_down = seen["said"]
    assert (taken, rounded_down) == ("", "")
    assert "memory pool dlaSRAM is 0.75 MiB, expected a power of two of at least 4 KiB" in odd
    assert "memory pool dlaSRAM is 0.00195312 MiB, expected" in small


def test_sizes_that_depend_on_the_data_are_refused(generation: tuple[str, Seen]) -> None:
    _, all_seen = generation
    seen = scenario(all_seen, "sizes_of_the_data")
    for when in ("parsed", "built"):
        assert seen[when]["kind"] == "ModelError"
        assert "its size depends on the data (NonMaxSuppression" in " ".join(
            seen[when]["error"].split()
        )


def test_no_inspector_loses_a_plan(generation: tuple[str, Seen]) -> None:
    _, all_seen = generation
    for how, seen in scenario(all_seen, "broken_inspector").items():
        assert "error" not in seen, how
        assert seen["data"] == "plan"
        assert seen["precisions"] is None


def test_pairs_in_float16_that_do_not_compile(generation: tuple[str, Seen]) -> None:
    name, all_seen = generation
    seen = scenario(all_seen, "halved_pairs")
    if name == "trt8":  # knows no such pairs: they came with opset 19
        assert "model has opset 19, expected at most 17" in seen["error"]
        return
    assert "leave the named layer unquantized, build with --float-part fp32 or" in seen["error"]


def test_opsets_that_the_parser_of_8_6_does_not_know(generation: tuple[str, Seen]) -> None:
    """Refused before anything is parsed, and by the command before anything is written."""
    name, all_seen = generation
    seen = scenario(all_seen, "opsets")
    assert "error" not in seen["lowered"]
    assert seen["lowered"]["same"]
    if name != "trt8":
        assert "error" not in seen["pairs"]
        assert "error" not in seen["plain"] or "no calibrators" in seen["plain"]["error"]
        assert "opset" not in seen["commanded"]["error"]
        # The parser takes it; without a GPU the command ends before its first step.
        without_gpu = "finds no NVIDIA GPU" in seen["commanded"]["error"]
        assert without_gpu or "m.int8.onnx" in seen["commanded"]["files"]
        assert not (without_gpu and seen["commanded"]["files"])
        return
    for which, opset in (("pairs", 19), ("plain", 18)):
        assert seen[which]["kind"] == "ModelError"
        assert (
            f"model has opset {opset}, expected at most 17 for the parser of TensorRT 8.6.1; "
            "export it again with opset_version=17, convert it with onnx.version_converter"
        ) in seen[which]["error"]
        assert "OnnxParser()" not in seen[which]["touched"]
    assert seen["commanded"]["error"] == seen["pairs"]["error"]
    assert seen["commanded"]["files"] == []


def test_parser_errors_name_their_nodes(generation: tuple[str, Seen]) -> None:
    name, all_seen = generation
    seen = scenario(all_seen, "parser_errors")
    assert seen["kind"] == "ModelError"
    for index in (0, 1):
        named = "" if name == "trt8" else f" (Odd name{index})"
        assert f"node {7 + index}{named}: no such operator" in seen["error"]
