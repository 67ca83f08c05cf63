"""One peer's Q/DQ model of an ONNX file: ``python accuracy_systems.py SYSTEM MODEL SAMPLES OUT``.

Each runs in a process of its own, under its own environment, so this file imports nothing of the
project. Settings are the peer's own for symmetric INT8 with per-channel weights; what it needs
beside them (a newer opset, no INT32 bias, which TensorRT refuses) is done for it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import version_converter

Rows = NDArray[np.float32]
Feeds = list[dict[str, NDArray[Any]]]
"""Inputs of each sample."""
CONTROL_SAMPLES = 64  # of NNCF's accuracy control, which scores the model again and again


def quantize_onnxruntime(model: Path, feeds: Feeds, output: Path, method: str) -> None:
    """The static quantization of onnxruntime, as its documentation advises for TensorRT."""
    from onnxruntime import quantization as ort
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rows: Iterator[dict[str, Any]] = iter(feeds)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._rows, None)

    methods = {
        "minmax": ort.CalibrationMethod.MinMax,
        "entropy": ort.CalibrationMethod.Entropy,
        "percentile": ort.CalibrationMethod.Percentile,
    }
    with tempfile.TemporaryDirectory() as folder:
        newer, ready = Path(folder) / "newer.onnx", Path(folder) / "ready.onnx"
        onnx.save(with_opset(onnx.load(model), 17), newer)
        quant_pre_process(str(newer), str(ready), skip_symbolic_shape=True)
        ort.quantize_static(
            str(ready),
            str(output),
            Reader(),
            quant_format=ort.QuantFormat.QDQ,
            per_channel=True,
            activation_type=ort.QuantType.QInt8,
            weight_type=ort.QuantType.QInt8,
            calibrate_method=methods[method],
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
            },
        )


def quantize_modelopt(model: Path, feeds: Feeds, output: Path, method: str) -> None:
    """ModelOpt's INT8 with a float32 remainder, calibrated on the CPU.

    With ``half`` the remainder is float16, ModelOpt's default, and the calibration the quick one.
    """
    from modelopt.onnx.quantization import quantize

    half = method == "half"
    shapes = {
        entry.name: [dim.dim_value or 1 for dim in entry.type.tensor_type.shape.dim]
        for entry in onnx.load(model).graph.input
    }
    quantize(
        str(model),
        quantize_mode="int8",
        calibration_data={name: np.concatenate([feed[name] for feed in feeds]) for name in shapes},
        calibration_eps=["cpu"],
        calibration_shapes=",".join(f"{n}:{'x'.join(map(str, s))}" for n, s in shapes.items()),
        calibration_method="max" if half else method,
        high_precision_dtype="fp16" if half else "fp32",
        output_path=str(output),
    )


def quantize_nncf(model: Path, feeds: Feeds, output: Path, method: str) -> None:
    """NNCF's defaults, performance preset; or more of its overflow fix, or its accuracy control.

    The overflow fix halves weights for CPUs without VNNI: by default those of the first
    convolution, on every CPU. With ``overflow`` it does so in all layers.

    The control is set to lose no more than 0.5 points of likeness to FP32 on the samples: equal
    top-1, or, where the output holds no class scores, 1 - noise / signal.
    """
    import nncf

    loaded = with_opset(onnx.load(model), 13)
    for number, node in enumerate(loaded.graph.node):  # NNCF takes none without a name
        node.name = node.name or f"node_{number}"
    dataset = nncf.Dataset(feeds)
    if method in ("default", "overflow"):
        fix = nncf.OverflowFix.ENABLE if method == "overflow" else None
        advanced = nncf.AdvancedQuantizationParameters(overflow_fix=fix)
        onnx.save(
            nncf.quantize(loaded, dataset, subset_size=len(feeds), advanced_parameters=advanced),
            output,
        )
        return
    some = feeds[:CONTROL_SAMPLES]
    exact = dict(zip(map(content, some), outputs_of(loaded, some), strict=True))

    def validate(model: onnx.ModelProto, samples: Any) -> tuple[float, list[float]]:
        asked = list(samples)  # while it ranks, NNCF asks for some of them only
        values = likeness([exact[content(feed)] for feed in asked], outputs_of(model, asked))
        return float(np.mean(values)), values

    controlled = nncf.quantize_with_accuracy_control(
        loaded,
        dataset,
        nncf.Dataset(some),
        validate,
        max_drop=0.005,
        subset_size=len(feeds),
    )
    onnx.save(controlled, output)


def content(feed: dict[str, Any]) -> bytes:
    """What tells one sample from another."""
    return b"".join(np.asarray(values).tobytes() for values in feed.values())


def outputs_of(model: onnx.ModelProto, feeds: list[dict[str, Any]]) -> list[Rows]:
    """The first output for every sample, as the graph is written."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(session.run(None, feed)[0], np.float32) for feed in feeds]


def likeness(exact: list[Rows], found: list[Rows]) -> list[float]:
    """Whether the top-1 is the same, or 1 - noise / signal; of each sample."""
    pairs = list(zip(exact, found, strict=True))
    if exact[0].ndim == 2:
        return [float(y.argmax() == x.argmax()) for y, x in pairs]
    return [1.0 - float(((y - x) ** 2).sum() / (y**2).sum()) for y, x in pairs]


def with_opset(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """The model raised to an opset where it is older."""
    if model.opset_import[0].version >= version:
        return model
    return version_converter.convert_version(model, version)


def ending_softmax(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Those whose result is an output: INT8 would leave probabilities in steps of 1/127."""
    outputs = {output.name for output in model.graph.output}
    return [
        node
        for node in model.graph.node
        if node.op_type == "Softmax" and outputs & set(node.output)
    ]


def read_feeds(path: Path, model: Path) -> Feeds:
    """Samples from a file: rows of the only input, or arrays named ``0/input``, ``1/input``, …."""
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        name = onnx.load(model).graph.input[0].name
        return [{name: row[None]} for row in loaded]
    feeds: dict[int, dict[str, NDArray[Any]]] = {}
    for key in loaded.files:
        row, _, name = key.partition("/")
        feeds.setdefault(int(row), {})[name] = loaded[key]
    return [feeds[row] for row in sorted(feeds)]


PEERS = {
    "onnxruntime": quantize_onnxruntime,
    "modelopt": quantize_modelopt,
    "nncf": quantize_nncf,
}


def tool_parser(description: str | None, **system: Any) -> argparse.ArgumentParser:
    """The command line of a script that quantizes: SYSTEM MODEL SAMPLES OUTPUT."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("system", **system)
    parser.add_argument("model", type=Path)
    parser.add_argument("samples", type=Path, help=".npy of one input, or .npz of ROW/INPUT")
    parser.add_argument("output", type=Path)
    return parser


def main() -> None:
    """Quantize and save."""
    arguments = tool_parser(__doc__, help="peer-method, e.g. modelopt-max").parse_args()
    peer, _, method = arguments.system.partition("-")
    feeds = read_feeds(arguments.samples, arguments.model)
    PEERS[peer](arguments.model, feeds, arguments.output, method)


if __name__ == "__main__":
    main()
