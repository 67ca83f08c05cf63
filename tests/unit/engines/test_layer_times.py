"""Kernels and their times, from what the profilers of the two runtimes tell."""

from __future__ import annotations

from engines.layer_times import LayerTime, openvino_layer_times, tensorrt_layer_times


def node(name: str, kind: str, origin: str, precision: str) -> dict[str, str]:
    return {
        "name": name,
        "layerType": kind,
        "originalLayersNames": origin,
        "runtimePrecision": precision,
    }


def test_openvino_kernels_are_named_by_their_onnx_nodes() -> None:
    executed = [
        node("x", "Input", "x", "f32"),  # never executed: the profiler has no time for it
        node("x_abcd_conv", "Reorder", "", "u8"),
        node("conv/WithoutBiases", "Convolution", "conv/WithoutBiases,conv,relu", "u8"),
    ]
    runs = [[("conv/WithoutBiases", ms), ("x_abcd_conv", 0.01)] for ms in (0.5, 9.0, 0.3)]
    assert openvino_layer_times(executed, runs) == (
        LayerTime(name="x_abcd_conv", kind="Reorder", nodes=(), precision="int8", time_ms=0.01),
        LayerTime(
            name="conv/WithoutBiases",
            kind="Convolution",
            nodes=("conv", "relu"),
            precision="int8",
            time_ms=0.5,
        ),
    )


def test_tensorrt_layers_are_joined_with_the_inspector() -> None:
    inspected = {
        "Layers": [
            {
                "Name": "conv_node + relu",
                "LayerType": "CaskConvolution",
                "Metadata": "[ONNX Layer: conv_node]\x1e[ONNX Layer: relu]",
                "Weights": {"Type": "Int8", "Count": 9},
            },
            "only a name",
        ]
    }
    copy = "Reformatting CopyNode for Input Tensor 0 to conv_node"
    runs = [[(copy, 0.1), ("conv_node + relu", ms), ("only a name", 0.2)] for ms in (1.0, 3.0)]
    assert tensorrt_layer_times(inspected, runs) == (
        LayerTime(name=copy, kind="Reformat", nodes=(copy,), precision="unknown", time_ms=0.1),
        LayerTime(
            name="conv_node + relu",
            kind="CaskConvolution",
            nodes=("conv_node", "relu"),
            precision="int8",
            time_ms=2.0,
        ),
        LayerTime(
            name="only a name",
            kind="unknown",
            nodes=("only a name",),
            precision="unknown",
            time_ms=0.2,
        ),
    )


def test_a_kernel_that_a_loop_runs_twice_counts_with_both() -> None:
    runs = [[("body", 1.0), ("body", 2.0)], [("body", 3.0), ("body", 5.0)], [("once", 7.0)]]
    body, once = tensorrt_layer_times({}, runs)
    assert (body.time_ms, once.time_ms) == (3.0, 0)


def test_nodes_get_their_own_names() -> None:
    time = LayerTime(
        name="k", kind="MatMul", nodes=("logits", "gemm", "relu"), precision="int8", time_ms=1.0
    )
    assert time.renamed({"logits": "gemm"}).nodes == ("gemm", "relu")
