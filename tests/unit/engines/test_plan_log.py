"""The builder's list of layers, read from its log."""

from __future__ import annotations

import pytest

from engines.tensorrt.plan_log import logged_layers, logged_precisions

# As TensorRT-RTX 1.7 prints it, strides and formats left out.
TENSOR = (
    "{{ Name: {0}, Dimensions: [{1}], Strides: [1], StrideOrder: [0], Datatype: {2}, Format: F }}"
)


def line(name: str, kind: str, reads: str, constants: str, nodes: str) -> str:
    inputs = ", ".join(TENSOR.format("i", "1,4,8,8", kind) for kind in reads.split())
    held = ", ".join(TENSOR.format("c", *text.split(":")) for text in constants.split())
    made = TENSOR.format("o", "1,8,8,8", "Float")
    metadata = "".join(f"[ONNX Layer: {node}]" for node in nodes.split())
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {inputs}], Constants: [ {held}], "
        f"Outputs: [ {made}], TacticName: stub, StreamId: 0, Metadata: {metadata}"
    )


def layers(*lines: str) -> str:
    return "\n".join(["Layers:", *lines, "", "Bindings:", "x"])


@pytest.mark.parametrize(
    ("reads", "constants", "precision"),
    [
        ("Int8", "32,4,3,3:Int8 1,32,1,1:Float", "int8"),
        ("Int8 Float", "32,4,3,3:Int8", "int8"),  # a skip connection in floating point
        ("Int8", "", "int8"),
        ("Int8 Int8 Float", "", "int8"),  # two activations
        ("Float", "32,4,3,3:Float", "fp32"),
        ("Half", "32,4,3,3:Half", "fp16"),
        ("Float", "1,32,1,1:Int8", "fp32"),  # no weight: one value a channel
    ],
)
def test_what_a_kernel_multiplies(reads: str, constants: str, precision: str) -> None:
    glue = line("before", "kgen", "Float", "1:Float", "conv x_quantize")
    kernel = line("conv_myl0_1", "correlation", reads, constants, "conv relu")
    found = logged_precisions([layers(glue, kernel)])
    assert found["conv"] == found["relu"] == precision
    assert found["x_quantize"] == "fp32"


def test_int8_must_be_so_for_every_compute_capability() -> None:
    int8 = layers(line("c", "correlation", "Int8", "8,4,3,3:Int8", "conv"))
    half = layers(line("c", "correlation", "Half", "8,4,3,3:Half", "conv"))
    assert logged_precisions([int8, int8]) == {"conv": "int8"}
    assert logged_precisions([int8, half]) == {"conv": "fp16"}
    assert logged_precisions([half, int8]) == {"conv": "fp16"}


def test_fused_attention_is_arithmetic() -> None:
    code = line("__myl_fc_mha_myl0_3", "kgen", "Int8 Int8 Int8 Float", "", "qk softmax pv")
    glue = line("__myl_Mul", "kgen", "Float", "", "qk")
    assert logged_precisions([layers(glue, code)])["qk"] == "int8"


@pytest.mark.parametrize("mask", ["1,1,128,128:Bool", "1,2,49,49:Half"])
def test_the_constant_of_an_attention_is_its_mask(mask: str) -> None:
    code = line("_gemm_mha_v2_myl0_5", "kgen", "Int8 Int8 Int8", mask, "qk softmax pv")
    assert logged_precisions([layers(code)])["qk"] == "int8"
    code = line("_gemm_mha_v2_myl0_5", "kgen", "Half Half Half", mask, "qk softmax pv")
    assert logged_precisions([layers(code)])["pv"] == "fp16"


@pytest.mark.parametrize("mask", ["Bool", "Half"])
def test_a_mask_before_the_factors_of_an_attention_is_no_factor(mask: str) -> None:
    """BERT's, and one that is added: the builder lists the mask that it was given first."""
    code = line("_gemm_mha_v2_myl0_6", "kgen", f"{mask} Int8 Int8 Int8", "", "qk softmax pv")
    assert set(logged_precisions([layers(code)]).values()) == {"int8"}
    code = line("_gemm_mha_v2_myl0_6", "kgen", f"{mask} Half Half Half", "", "qk softmax pv")
    assert set(logged_precisions([layers(code)]).values()) == {"fp16"}


def test_weights_made_float_for_a_generated_product_are_no_int8_layer() -> None:
    """What becomes of a product of q, k and v whose slices go straight to an attention."""
    made = line("__myl_CastMulSlicSlicSlicConc_myl0_3", "kgen", "", "1,384,1152:Int8", "w_dq qkv")
    product = line("__myl_CastMulFc_myl0_4", "runtime_fusion", "Int8 Half", "", "qkv x_dq")
    glue = line("__myl_AddFcst_myl0_5", "kgen", "Int8", "", "qkv")
    assert logged_precisions([layers(made, product, glue)])["qkv"] == "fp16"
    whole = line("__myl_FcAddCast_myl0_4", "runtime_fusion", "Int8 Int8 Half", "", "qkv")
    assert logged_precisions([layers(whole)])["qkv"] == "int8"


def test_other_text_is_no_layer() -> None:
    assert logged_precisions([]) == {}
    assert list(logged_layers("Layers:\nName: odd\nnothing")) == []
