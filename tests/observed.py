"""Ranges of a network on random inputs, and the network quantized with them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from calibrators.ranges.ranges import Range, Ranges
from graphs.identity import graph_hash
from graphs.view import GraphView
from quantization import insert_qdq, place
from tests.odd_models import Feeds, run

DYNAMIC = 16  # for dynamic axes after the first


def random_feeds(model: onnx.ModelProto, rng: np.random.Generator, batch: int = 2) -> Feeds:
    """Normal numbers for floating-point inputs, 0 and 1 for integers (ids and masks)."""
    feeds: Feeds = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        sizes = [dim.dim_value or (DYNAMIC if axis else batch) for axis, dim in enumerate(dims)]
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        floating = np.issubdtype(dtype, np.floating)
        numbers = rng.normal(size=sizes) if floating else rng.integers(0, 2, sizes)
        feeds[value.name] = numbers.astype(dtype)
    return feeds


def observed_amax(model: onnx.ModelProto, feeds: Feeds) -> dict[str, float]:
    """Largest |x| of every float32 tensor of the top-level graph."""
    view = GraphView(model)
    names = [
        name
        for node in view.nodes
        for name in node.outputs
        if name and view.element_type(name) == TensorProto.FLOAT
    ]
    all_outputs = onnx.ModelProto()
    all_outputs.CopyFrom(model)
    del all_outputs.graph.output[:]
    all_outputs.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    found = dict(zip(names, run(all_outputs, feeds), strict=True))
    found |= {name: value for name, value in feeds.items() if value.dtype == np.float32}
    return {name: float(np.abs(value).max(initial=0)) for name, value in found.items()}


def ranges_of(model: onnx.ModelProto, amax: dict[str, float]) -> Ranges:
    """The largest magnitudes as ranges of a model."""
    return Ranges(
        graph_hash=graph_hash(model),
        statistics_digest="random",
        method="minmax",
        tensors={name: Range(amax=max(x, 1e-3), method="minmax") for name, x in amax.items()},
        samples=1,
        preprocess=None,
    )


def quantized(model: onnx.ModelProto, feeds: Feeds) -> onnx.ModelProto:
    """A prepared model with Q/DQ, calibrated on ``feeds``."""
    return insert_qdq(model, place(model), ranges_of(model, observed_amax(model, feeds)))
