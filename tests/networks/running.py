"""Run a model in onnxruntime and take min-max ranges: the shortest calibration for tests."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

from calibrators.ranges.ranges import Range, Ranges
from graphs.identity import graph_hash

Feeds = dict[str, np.ndarray]


def random_feeds(model: onnx.ModelProto, rng: np.random.Generator, *, dynamic: int = 2) -> Feeds:
    """Normal values for float inputs, token ids below 100, masks of ones; dynamic axes get 2."""
    weights = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name in weights:
            continue
        shape = [d.dim_value or dynamic for d in value.type.tensor_type.shape.dim]
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
        elif "mask" in value.name:
            feeds[value.name] = np.ones(shape, np.int64)
        else:
            feeds[value.name] = rng.integers(0, 100, shape)
    return feeds


def run(model: onnx.ModelProto, feeds: Feeds, *, optimize: bool | None = None) -> Feeds:
    """Outputs by name, from the reference runtime; a Q/DQ graph as it is written.

    Optimised, onnxruntime puts integer kernels into it that saturate on a CPU without VNNI.
    """
    if optimize is None:
        optimize = all(node.op_type != "DequantizeLinear" for node in model.graph.node)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def minmax_ranges(
    model: onnx.ModelProto, tensors: Iterable[str], feeds: Feeds, *, factor: float = 1.0
) -> Ranges:
    """Ranges of ``tensors`` that hold every value seen, times ``factor``."""
    names = list(tensors)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {value.name for value in (*watched.graph.output, *watched.graph.input)}
    for name in names:
        if name not in known:
            watched.graph.output.append(onnx.ValueInfoProto(name=name))
    values = {**run(watched, feeds), **feeds}
    ranges = {
        name: Range(amax=max(factor * float(np.abs(values[name]).max(initial=0)), 1e-6), method="t")
        for name in names
    }
    return Ranges(
        graph_hash=graph_hash(model),
        statistics_digest="0" * 64,
        method="minmax",
        tensors=ranges,
        samples=1,
        preprocess=None,
    )


def sqnr_db(reference: np.ndarray, other: np.ndarray) -> float:
    """Signal over quantization noise in decibel: 20 dB is a relative error of 10 %."""
    exact = np.asarray(reference, np.float64)
    noise = float(((exact - other) ** 2).sum())
    return float(10 * np.log10(float((exact**2).sum()) / max(noise, 1e-30)))
