"""Linear models of scikit-learn's exporters (``ai.onnx.ml``), written as products.

    LinearRegressor         X Cᵀ + b
    LinearClassifier        the same, its post transform, and the label of the largest score
    ArrayFeatureExtractor   columns by their numbers: labels of what an ArgMax found

Left as they are: labels of text, one row of coefficients for two classes, other post transforms.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from graphs.walk import attributes
from quantization.prepare.writer import Writer

__all__ = ["write_classifier", "write_columns", "write_regressor"]

_TRANSFORMS = {b"NONE": "Identity", b"SOFTMAX": "Softmax", b"LOGISTIC": "Sigmoid"}


def write_regressor(writer: Writer, node: NodeProto) -> list[NodeProto]:
    """The nodes that take the place of a LinearRegressor; none where it stays."""
    given = attributes(node)
    if given.get("post_transform", b"NONE") != b"NONE":
        return []
    return _products(writer, node, int(given.get("targets", 1)), last=True)


def write_classifier(writer: Writer, node: NodeProto) -> list[NodeProto]:
    """The nodes that take the place of a LinearClassifier; none where it stays."""
    given = attributes(node)
    labels = given.get("classlabels_ints", [])
    transform = _TRANSFORMS.get(given.get("post_transform", b"NONE"))
    if transform is None or len(labels) < 2 or len(given.get("intercepts", labels)) != len(labels):
        return []
    written = _products(writer, node, len(labels), last=False)
    if not written:
        return []
    scores = written[-1].output[0]
    axis = {"axis": 1} if transform == "Softmax" else {}
    largest = writer.step(node, "ArgMax", [scores], axis=1, keepdims=0)
    named = writer.constant(node, "labels", labels, np.int64)
    label = writer.step(node, "Gather", [named, largest.output[0]], last=True)
    return [
        *written,
        largest,
        label,
        writer.step(node, transform, [scores], last=True, makes=1, **axis),
    ]


def write_columns(writer: Writer, node: NodeProto) -> list[NodeProto]:
    """The nodes that take the place of an ArrayFeatureExtractor; none where it stays."""
    rank = writer.rank(node.input[0])
    tensor = writer.constants.get(node.input[0])
    rank = len(tensor.dims) if rank is None and tensor is not None else rank
    if not rank:
        return []
    flat = writer.constant(node, "flat", [-1], np.int64)
    numbers = writer.step(node, "Reshape", [node.input[1], flat])
    inputs = [node.input[0], numbers.output[0]]
    if rank > 1:
        return [numbers, writer.step(node, "Gather", inputs, last=True, axis=rank - 1)]
    row = writer.constant(node, "row", [1, -1], np.int64)
    found = writer.step(node, "Gather", inputs, axis=0)
    return [numbers, found, writer.step(node, "Reshape", [found.output[0], row], last=True)]


def _products(writer: Writer, node: NodeProto, rows: int, *, last: bool) -> list[NodeProto]:
    """Scores of each row of coefficients; nothing where they do not fit."""
    given = attributes(node)
    coefficients = np.asarray(given.get("coefficients", []), np.float32)
    if not coefficients.size or coefficients.size % rows or writer.rank(node.input[0]) != 2:
        return []
    written = writer.as_float(node)
    source = written[-1].output[0] if written else node.input[0]
    weights = writer.constant(node, "coefficients", coefficients.reshape(rows, -1), np.float32)
    offsets = given.get("intercepts") or [0.0] * rows
    bias = writer.constant(node, "intercepts", offsets, np.float32)
    return [*written, writer.step(node, "Gemm", [source, weights, bias], last=last, transB=1)]
