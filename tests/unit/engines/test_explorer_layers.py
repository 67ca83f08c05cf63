"""Layers as TensorRT itself described them, not as we imagine them.

The values (kinds of layers, formats, types of weights, names of tactics) were read off the plans
that NVIDIA ships with its TensorRT Engine Explorer: github.com/NVIDIA/TensorRT,
tools/experimental/trt-engine-explorer, ``*.graph.json`` under examples/ and tests/inputs/, written
by TensorRT 8 on an A100, an RTX 3090 and a Turing GPU. Each layer below has what the reader looks
at, and nothing else of those files.
"""

from __future__ import annotations

from typing import Any

import pytest

from engines.tensorrt.layers import plan_kernel, tensorrt_precisions

FP32, FP16X32, INT8X32, INT8X4, INT8 = (
    "Row major linear FP32",
    "Thirty-two wide channel vectorized row major FP16 format",
    "Thirty-two wide channel vectorized row major Int8 format",
    "Four wide channel vectorized row major Int8 format",
    "Row major Int8 format",
)
FP16X8 = "Channel major FP16 format where channel % 8 == 0"
FP32X4 = "Channel major FP32 format where channel % 4 == 0"
XMMA = "sm80_xmma_fprop_implicit_gemm_"
INTERLEAVED = "_nchw_vect_c_32kcrs_vect_c_32_nchw_vect_c_32_tilesize"
HIDDEN = "N/A due to dynamic shapes"
COPY = "Reformatting CopyNode for Input Tensor 0 to "


def layer(
    name: str, kind: str, *formats: str, weights: str = "", tactic: str = "", **more: object
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "Name": name,
        "LayerType": kind,
        "Inputs": [{"Name": "x", "Format/Datatype": each} for each in formats],
        "TacticValue": "0x0000000000000000",
    }
    if weights:
        made |= {"ParameterType": "Convolution", "Weights": {"Type": weights, "Count": 9408}}
        made["Bias"] = {"Type": "Half" if weights == "Half" else "Float", "Count": 64}
    return made | ({"TacticName": tactic} if tactic else {}) | more


CONV_POOL = layer(
    "conv1.weight + QuantizeLinear_7 + Conv_9 + MaxPool_12",
    "ConvActPool",
    INT8,
    ParameterType="ConvActPool",
    ConvParameterType="Convolution",
    ConvWeights={"Type": "Int8", "Count": 9408},
    ConvBias={"Type": "Float", "Count": 64},
)
INT8_LAYERS = {
    "resnet-qat-residual, A100": layer(
        "layer1.0.conv2.weight + QuantizeLinear_32 + Conv_34 + Add_42 + Relu_43",
        "CaskConvolution",
        *(INT8X32, INT8X32),
        weights="Int8",
        tactic=f"{XMMA}interleaved_i8i8_i8i32_f32{INTERLEAVED}192x64x64_stage3_warpsize4x1x1",
    ),
    "resnet-qat, A100: writes FP16, adds FP16": layer(
        "layer4.1.conv2.weight + QuantizeLinear_240 + Conv_242 + Add_244 + Relu_245",
        "CaskConvolution",
        *(INT8X32, FP16X32),
        weights="Int8",
        tactic=f"{XMMA}interleaved_i8f16_i8i32_f32{INTERLEAVED}64x128x64_stage6_warpsize2x2x1",
    ),
    "resnet-qat, A100: the product at the end": layer(
        "fc.weight + QuantizeLinear_255 + Gemm_257 + fc.bias + (Unnamed Layer* 306) [Shuffle]",
        "CaskConvolution",
        INT8X32,
        weights="Int8",
        tactic=f"{XMMA}interleaved_i8f32_i8i32_f32_nchw_vect_c_32kcrs_vect_c_32_nchw_tilesize64",
    ),
    "resnet-qat-residual-qgap, A100": CONV_POOL,
    "resnet-qat, RTX 3090": layer(
        "ReadVariableOp:0 + QuantLinearNode__622 + resnet50/quant_conv1_conv/BiasAdd",
        "CaskConvolution",
        INT8X4,
        weights="Int8",
        tactic="ampere_int8x4_icudnn_int8x4_128x32_relu_interior_c32_nn_v1",
    ),
    "mobilenet.qat: depthwise, without a tactic": layer(
        "features.1.conv.0.0.weight + QuantizeLinear_25 + Conv_29 + PWN(Clip_33)",
        "CudaDepthwiseConvolution",
        INT8X32,
        weights="Int8",
    ),
    "mobilenet.qat: writes FP16": layer(
        "features.3.conv.2.weight + QuantizeLinear_138 + Conv_142 + Add_144",
        "CaskConvolution",
        *(INT8X32, FP16X32),
        weights="Int8",
        tactic="turing_fp16_i8816cudnn_int8_128x128_ldg16_relu_small_nt_v1",
    ),
    "mobilenet_v2_residuals.qat: the product at the end": layer(
        "classifier.1.weight + QuantizeLinear_762 + Gemm_764 + classifier.1.bias",
        "CaskConvolution",
        INT8X4,
        weights="Int8",
        tactic="sm70_xmma_fprop_conv1x1_i8f32_f32_f32_nchw_vect_c_4kcrs_vect_c_4_nchw_simt",
    ),
}


@pytest.mark.parametrize("found", INT8_LAYERS.values(), ids=INT8_LAYERS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_int8_layers_are_seen_where_shapes_are_dynamic_too(
    found: dict[str, Any], dynamic: bool
) -> None:
    if dynamic:
        inputs = [each | {"Format/Datatype": HIDDEN} for each in found["Inputs"]]
        found = found | {"Inputs": inputs}
    assert plan_kernel(found)[1] == "int8"


@pytest.mark.parametrize(
    ("found", "precision"),
    [
        (
            layer(
                "Conv_0 + Relu_1",
                "CaskConvolution",
                "Channel major FP16 format where channel % 4 == 0",
                weights="Half",
                tactic="trt_turing_cutlass_image_network_first_layer_hmma_fprop_f16f16f32_nhwc",
            ),
            "fp16",
        ),
        (
            layer(
                "Conv_24 + Relu_25",
                "CaskConvolution",
                FP16X8,
                weights="Half",
                tactic="ampere_h16816cudnn_128x128_ldg8_relu_exp_stages_64x3_large_nhwc_tn_v1",
            ),
            "fp16",
        ),
        (
            layer(
                "Conv_43 + Add_44 + Relu_45",
                "CaskConvolution",
                *(FP32X4, FP32X4),
                weights="Float",
                tactic=f"{XMMA}f32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize64x128x32_stage5",
            ),
            "fp32",
        ),
        (
            layer(
                "GlobalAveragePool_46",
                "CaskPooling",
                FP32X4,
                tactic="sm50_xmma_pooling_fw_4d_FP32FP32NHWC_Average_FastDiv_CAlign4",
            ),
            "fp32",
        ),
        (layer("MaxPool_2", "CudaPooling", FP16X8), "fp16"),
        (layer("GlobalAveragePool_300", "CudaPooling", INT8X32), "int8"),
        (layer("QuantizeLinear_2", "Reformat", FP32, Origin="QDQ"), "fp32"),
    ],
)
def test_float_layers_and_those_without_weights(found: dict[str, Any], precision: str) -> None:
    assert plan_kernel(found)[1] == precision


def test_every_fused_node_is_named() -> None:
    assert plan_kernel(CONV_POOL)[0] == ("conv1.weight", "QuantizeLinear_7", "Conv_9", "MaxPool_12")
    assert plan_kernel(layer("w + Conv_12 + PWN(Clip_16)", "CaskConvolution"))[0] == (
        *("w", "Conv_12", "Clip_16"),
    )
    nested = (
        "PWN((Unnamed Layer* 112) [ElementWise], PWN(PWN((Unnamed Layer* 109) [Constant] + "
        "(Unnamed Layer* 110) [ElementWise], (Unnamed Layer* 111) [Unary]), /a/Mul))"
    )
    assert plan_kernel(layer(nested, "PointWiseV2"))[0] == (
        "(Unnamed Layer* 112) [ElementWise]",
        "(Unnamed Layer* 109) [Constant]",
        "(Unnamed Layer* 110) [ElementWise]",
        "(Unnamed Layer* 111) [Unary]",
        "/a/Mul",
    )


@pytest.mark.parametrize("kind", ["Reformat", "NoOp"])
def test_a_copy_does_not_speak_for_the_nodes_it_is_made_for(kind: str) -> None:
    copy = layer(f"{COPY}Pool_5 + Add_6 + Relu_7", kind, FP32)
    kernel = layer("Pool_5 + Add_6 + Relu_7", "PointWiseV2", FP16X8)
    found = tensorrt_precisions({"Layers": [copy, kernel]})
    assert found == {
        **dict.fromkeys(("Pool_5", "Add_6", "Relu_7"), "fp16"),
        copy["Name"]: "fp32",
    }
    assert plan_kernel(copy) == ((copy["Name"],), "fp32")


def test_a_plan_of_names_alone_says_nothing_and_a_mixed_one_what_it_can() -> None:
    """Without detailed verbosity there are strings, and ``[trainStation1]`` between them."""
    names = ["[trainStation1]", "w + /conv1/Conv", "{ForeignNode[/Split_2.../Concat_1]}"]
    assert tensorrt_precisions({"Layers": names, "Bindings": ["input", "output"]}) == {}
    assert tensorrt_precisions({"Layers": [*names, CONV_POOL]})["Conv_9"] == "int8"
