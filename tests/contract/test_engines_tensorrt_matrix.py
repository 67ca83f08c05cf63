"""Every precision on NVIDIA's own classes: its typing, its flags, and implicit INT8."""

from __future__ import annotations

from tests.contract.driven import Seen, scenario


def strong(opset: int, *scales: str) -> Seen:
    return {"typing": "strong", "flags": ["TF32"], "opset": opset, "scales": list(scales)}


def weak(*flags: str, scales: tuple[str, ...] = ()) -> Seen:
    found = {"typing": "weak", "flags": sorted([*flags, "TF32"])}
    return found | {"opset": 17, "scales": list(scales)}


DLA = ("FP16", "INT8", "PREFER_PRECISION_CONSTRAINTS", "DIRECT_IO")
IMPLICIT = {
    "--precision int8 --implicit": weak("INT8", "FP16"),
    "--precision int8 --implicit --float-part fp32": weak("INT8"),
    "--precision int8 --implicit --useDLACore 0": weak(*DLA),
    "--precision int8 --implicit --useDLACore 0 --float-part fp32": weak(*DLA),
}
MATRIX_8 = {
    "--precision fp32": weak(),
    "--precision fp16": weak("FP16"),
    # Its parser reads scales as float32 and opsets up to 17.
    "--precision int8": weak("INT8", "FP16", scales=("FLOAT",)),
    "--precision int8 --float-part fp32": weak("INT8", scales=("FLOAT",)),
} | IMPLICIT
MATRIX_11 = {
    "--precision fp32": strong(17),
    "--precision fp16": strong(17),
    "--precision int8": strong(19, "FLOAT16"),
    "--precision int8 --float-part fp32": strong(17, "FLOAT"),
}


def test_the_matrix_of_builds(generation: tuple[str, Seen]) -> None:
    """Precision × typing × float part × DLA: flags, opset and the type of scales."""
    name, all_seen = generation
    found = scenario(all_seen, "matrix")
    expected = MATRIX_8 if name == "trt8" else MATRIX_11
    for words, seen in expected.items():
        assert found[words] == seen, words
    for words, seen in IMPLICIT.items():
        if name == "trt11":
            assert "has no calibrators" in found[words]["error"]
        else:
            assert found[words] == seen, words


def test_implicit_int8_from_a_cache(generation: tuple[str, Seen]) -> None:
    name, all_seen = generation
    seen = scenario(all_seen, "implicit_cache")
    if name == "trt11":
        assert seen["kind"] == "UnsupportedError"
        assert "has no calibrators, expected TensorRT 8.6 to 10.16" in seen["error"]
        return
    assert seen["facts"]["typing"] == "weak"
    assert "INT8" in seen["facts"]["flags"]
    assert "IBuilderConfig.int8_calibrator =" in seen["touched"]
    assert "IBuilderConfig.set_calibration_profile" not in seen["touched"]


def test_implicit_int8_from_a_calibrator(generation: tuple[str, Seen]) -> None:
    name, all_seen = generation
    if name == "trt11":
        assert "implicit_calibrator" not in all_seen
        return
    seen = scenario(all_seen, "implicit_calibrator")
    assert "INT8" in seen["facts"]["flags"]
    assert {"IBuilderConfig.int8_calibrator =", "IBuilderConfig.set_calibration_profile"} <= set(
        seen["touched"]
    )


def test_a_cache_that_the_builder_rejects(generation: tuple[str, Seen]) -> None:
    name, all_seen = generation
    seen = scenario(all_seen, "rejected_cache")
    if name == "trt11":
        assert seen["kind"] == "UnsupportedError"
        return
    assert seen["kind"] == "ArtefactError"
    assert "calib.cache is rejected by TensorRT" in seen["error"]
    assert all_seen["version"] in seen["error"]
