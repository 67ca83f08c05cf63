"""Which ONNX nodes run INT8, read from layers as NVIDIA's engine inspector writes them."""

from __future__ import annotations

import pytest

from engines.tensorrt.layers import tensorrt_precisions


def inspected(**layer: object) -> dict[str, object]:
    return {"Layers": ["only a name", {"Name": "x", "LayerType": "kgen", **layer}]}


@pytest.mark.parametrize(
    ("found", "precision"),
    [
        ({"Weights": {"Type": "Int8", "Count": 9}}, "int8"),
        (
            {"Weights": {"Type": "Half", "Count": 9}, "Inputs": [{"Format/Datatype": "Int8"}]},
            "fp16",
        ),
        ({"Inputs": [{"Format/Datatype": "Thirty-two wide channel ... Int8 format."}]}, "int8"),
        ({"Inputs": [{"Format": "linear", "Datatype": "Int8"}]}, "int8"),
        ({"Inputs": [{"Format/Datatype": "Int8"}, {"Format/Datatype": "Half"}]}, "fp16"),
        ({"Inputs": [{"Format/Datatype": "Row major linear FP32"}]}, "fp32"),
        ({"Inputs": [{"Format/Datatype": "BFloat16"}]}, "bf16"),
        ({"Inputs": []}, "unknown"),
    ],
)
def test_tensorrt_precision_of_a_layer(found: dict[str, object], precision: str) -> None:
    assert tensorrt_precisions(inspected(**found)) == {"x": precision}


@pytest.mark.parametrize("separator", ["\x1e", "\x1f", "", " "])
def test_tensorrt_layers_name_their_onnx_nodes(separator: str) -> None:
    metadata = separator.join(["[ONNX Layer: /a/Conv]", "[ONNX Layer: relu | call (function)]"])
    found = tensorrt_precisions(
        inspected(Metadata=metadata, Weights={"Type": "Int8", "Count": 1}, TacticName="i8i8")
    )
    assert found == {"/a/Conv": "int8", "relu": "int8"}


def test_without_metadata_the_name_lists_the_nodes() -> None:
    found = tensorrt_precisions({"Layers": [{"Name": "conv1 + relu1", "Inputs": []}]})
    assert found == {"conv1": "unknown", "relu1": "unknown"}


def test_the_kernel_with_a_tactic_decides() -> None:
    copy = {"Name": "c", "Metadata": "[ONNX Layer: n]", "Inputs": [{"Datatype": "FP32"}]}
    kernel = {
        "Name": "k",
        "Metadata": "[ONNX Layer: n]",
        "TacticName": "sm80_i8i8_i8i32",
        "Weights": {"Type": "Int8", "Count": 4},
    }
    assert tensorrt_precisions({"Layers": [copy, kernel]}) == {"n": "int8"}


UNKNOWN_FORMAT = [{"Name": "x", "Format/Datatype": "N/A due to dynamic shapes"}]


@pytest.mark.parametrize(
    ("tactic", "precision"),
    [
        ("sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_tilesize1", "int8"),
        ("sm80_xmma_fprop_implicit_gemm_interleaved_i8f16_i8i32_f32_nchw_vect_c_32", "int8"),
        ("ampere_fp32_icudnn_int8x4_128x64_relu_medium_nn_v1", "int8"),
        ("sm75_imma_fprop_t1r1s1", "int8"),
        ("sm80_xmma_gemm_f16f16_f16f16_f16_nn", "unknown"),
        ("sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nchw", "unknown"),
        ("ampere_h16816gemm_256x128_ldg8_nn_v1", "unknown"),
    ],
)
@pytest.mark.parametrize("kind", ["CaskConvolution", "gemm", "CaskGemmConvolution"])
def test_where_shapes_hide_the_formats_the_tactic_tells(
    tactic: str, precision: str, kind: str
) -> None:
    layer = {"Name": "n", "LayerType": kind, "TacticName": tactic, "Inputs": UNKNOWN_FORMAT}
    assert tensorrt_precisions({"Layers": [layer]}) == {"n": precision}


def named(name: str, kind: str, *formats: str, **more: object) -> dict[str, object]:
    inputs = [{"Name": "x", "Format/Datatype": each} for each in formats]
    metadata = "[ONNX Layer: /fc/MatMul]\x1e[ONNX Layer: /fc/Add]"
    return {"Name": name, "LayerType": kind, "Inputs": inputs, "Metadata": metadata} | more


def test_a_product_reads_its_first_input_whatever_its_bias_is() -> None:
    layer = named("/fc/MatMul_myl0_3", "gemm", "Int8", "Half", "Float")
    assert set(tensorrt_precisions({"Layers": [layer]}).values()) == {"int8"}
    other = named("/fc/MatMul_myl0_3", "gemm", "Half", "Int8")
    assert set(tensorrt_precisions({"Layers": [other]}).values()) == {"fp16"}


@pytest.mark.parametrize("reverse", [False, True])
def test_generated_code_does_not_speak_for_the_product_it_surrounds(reverse: bool) -> None:
    layers = [
        named("__myl_QuanMul", "kgen", "Half", TacticName="__myl_QuanMul_0x5e"),
        named("/fc/MatMul_myl0_3", "gemm", "Int8", "Float", TacticName="sm80_i8f16_i8i32"),
        named("Reformatting CopyNode for Input Tensor 0 to /fc/MatMul", "Reformat", "Float"),
    ]
    found = tensorrt_precisions({"Layers": layers[::-1] if reverse else layers})
    assert set(found.values()) == {"int8"}


def test_an_attention_in_one_kernel() -> None:
    layer = named("_gemm_mha_v2_myl0_4", "kgen", "Int8", "Half", "Half")
    assert set(tensorrt_precisions({"Layers": [layer]}).values()) == {"int8"}


@pytest.mark.parametrize("mask", ["Bool", "Half"])
def test_a_mask_before_the_factors_is_no_factor(mask: str) -> None:
    layer = named("_gemm_mha_v2_myl0_4", "kgen", mask, "Int8", "Int8", "Int8")
    assert set(tensorrt_precisions({"Layers": [layer]}).values()) == {"int8"}


ORDER = ("stem", "Conv_0", "Relu_1", "Conv_2", "Concat_3", "head")


def test_a_dla_computes_all_that_lies_between() -> None:
    layer = {
        "Name": "{ForeignNode[Conv_0...Concat_3]}",
        "LayerType": "DLA",
        "Inputs": [{"Name": "x nvm", "Format/Datatype": "Four wide channel DLA Int8 format"}],
    }
    found = tensorrt_precisions({"Layers": [layer, "only a name"]}, ORDER)
    assert found == dict.fromkeys(("Conv_0", "Concat_3", "Relu_1", "Conv_2"), "int8")
    half = layer | {"Inputs": [{"Name": "x nvm", "Format/Datatype": "Row major linear FP16"}]}
    assert set(tensorrt_precisions({"Layers": [half]}, ORDER).values()) == {"fp16"}
    single = layer | {"Name": "{ForeignNode[Conv_0]}"}
    assert tensorrt_precisions({"Layers": [single]}, ORDER) == {"Conv_0": "int8"}


def test_a_part_of_myelin_without_details_is_unknown() -> None:
    layer = {
        "Name": "{ForeignNode[Conv_0...Concat_3]}",
        "LayerType": "Myelin",
        "Inputs": [{"Name": "x", "Format/Datatype": "Int8"}],
        "TacticValue": "0x0000000000000000",
    }
    assert set(tensorrt_precisions({"Layers": [layer]}, ORDER).values()) == {"unknown"}


def test_odd_layers_end_nothing() -> None:
    odd = [{"Name": "a"}, {"Name": "b", "Inputs": None, "Weights": "none", "TacticName": None}, 7]
    assert tensorrt_precisions({"Layers": odd}) == {"a": "unknown", "b": "unknown"}
    assert tensorrt_precisions({}) == {}
