"""Constants: nodes that compute the same thing in every run become initializers."""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)
from onnx.reference import ReferenceEvaluator

from graphs.edit import replace_nodes
from graphs.operators import EXACT_OPS, ROUNDED_OPS, SIZE_OPS
from graphs.shapes import static_shape, values
from graphs.tensor_data import tensor_bytes, tensors_of
from graphs.walk import constants, is_default_domain, nodes, output_names

__all__ = ["GROWTH_LIMIT_BYTES", "constant_bytes", "fold_constants"]

_TYPES = frozenset(
    TensorProto.DataType.Value(name)
    for name in (
        *("FLOAT", "DOUBLE", "FLOAT16", "BOOL", "INT8", "INT16", "INT32", "INT64"),
        *("UINT8", "UINT16", "UINT32", "UINT64"),
    )
)
# Folding may not blow a small file up: a ConstantOfShape of a few bytes makes a tensor of 1 GB.
GROWTH_LIMIT_BYTES = 1 << 26
# What numpy raises for a constant expression that no runtime could compute either.
_IMPOSSIBLE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def fold_constants(model: ModelProto, limit_bytes: int) -> bool:
    """Replace ``Constant`` nodes and computations on constants by initializers.

    Shapes must have been inferred. Returns whether anything changed.

    Args:
        model: changed in place.
        limit_bytes: of all constants together; folds that pass it are left.
    """
    room = limit_bytes - constant_bytes(model)
    graph = model.graph
    known = constants(graph)
    shapes = values(model)
    outputs = output_names(graph)
    kept: list[NodeProto] = []
    for node in nodes(graph):
        results = None
        if not outputs.intersection(node.output):
            results = _evaluate(node, known, model, shapes, room)
        if results is None:
            kept.append(node)
            continue
        for tensor in results:
            known[tensor.name] = graph.initializer.add()
            known[tensor.name].CopyFrom(tensor)
            room -= tensor_bytes(tensor)
    changed = len(kept) < len(nodes(graph))
    if changed:
        replace_nodes(graph, kept)
    return changed


def _evaluate(
    node: NodeProto,
    known: dict[str, TensorProto],
    model: ModelProto,
    shapes: dict[str, ValueInfoProto],
    room: int,
) -> list[TensorProto] | None:
    """The outputs of a node as tensors, or None where they are not constant or not worth it."""
    if not is_default_domain(node):
        return None
    if node.op_type == "Constant":
        tensor = _constant(node)
        return None if tensor is None else [tensor]
    if node.op_type in SIZE_OPS and node.input[0] not in known:
        return _shape(node, shapes)
    if node.op_type not in EXACT_OPS | ROUNDED_OPS or not node.output[0]:
        return None
    inputs = [known.get(name) for name in node.input if name]
    if not inputs or any(tensor is None or tensor.data_type not in _TYPES for tensor in inputs):
        return None
    if _result_bytes(node, shapes) > room:
        return None
    feeds = {t.name: numpy_helper.to_array(t) for t in inputs if t is not None}
    if node.op_type in ROUNDED_OPS:
        return _run_rounded(node, feeds, model)
    return _run(node, feeds, model)


def _run_rounded(
    node: NodeProto, feeds: dict[str, NDArray[np.generic]], model: ModelProto
) -> list[TensorProto] | None:
    """In float64, rounded to the type of the first input; None for numbers out of its range."""
    kind = feeds[node.input[0]].dtype
    if kind.kind != "f":
        return _run(node, feeds, model)
    wide = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in feeds.items()}
    results = _run(node, wide, model)
    if results is None:
        return None
    with np.errstate(over="ignore"):
        arrays = [numpy_helper.to_array(result).astype(kind) for result in results]
    if not all(np.isfinite(array).all() for array in arrays):
        return None  # whatever a runtime makes of it, it is not folded in
    return [numpy_helper.from_array(a, r.name) for a, r in zip(arrays, results, strict=True)]


def _constant(node: NodeProto) -> TensorProto | None:
    """The value of a ``Constant`` node; None for strings and sparse tensors."""
    attribute = next(iter(node.attribute), AttributeProto())
    kinds = dict.fromkeys(("value_float", "value_floats"), "float32")
    kinds |= dict.fromkeys(("value_int", "value_ints"), "int64")
    if attribute.type == AttributeProto.TENSOR:
        tensor = TensorProto()
        tensor.CopyFrom(attribute.t)
        tensor.name = node.output[0]
        return tensor if tensor.data_type != TensorProto.STRING else None
    if attribute.name not in kinds:
        return None
    value = np.asarray(helper.get_attribute_value(attribute), kinds[attribute.name])
    return numpy_helper.from_array(value, node.output[0])


def _shape(node: NodeProto, shapes: dict[str, ValueInfoProto]) -> list[TensorProto] | None:
    """``Shape`` or ``Size`` of a tensor that is no constant but has a fixed shape."""
    shape = static_shape(shapes.get(node.input[0]))
    if shape is None:
        return None
    if node.op_type == "Size":
        return [numpy_helper.from_array(np.array(math.prod(shape), np.int64), node.output[0])]
    span = {a.name: a.i for a in node.attribute}
    part = shape[span.get("start", 0) : span.get("end", len(shape))]
    return [numpy_helper.from_array(np.array(part, np.int64), node.output[0])]


def _result_bytes(node: NodeProto, shapes: dict[str, ValueInfoProto]) -> float:
    """Size of a node's outputs at 4 bytes an element; infinite where a shape is not known."""
    found = [static_shape(shapes.get(name)) for name in node.output if name]
    return sum(math.inf if shape is None else 4 * math.prod(shape) for shape in found)


def constant_bytes(model: ModelProto) -> int:
    """Size of all constants of a model."""
    return sum(tensor_bytes(tensor) for tensor in tensors_of(model.graph))


def _run(
    node: NodeProto, feeds: dict[str, NDArray[np.generic]], model: ModelProto
) -> list[TensorProto] | None:
    graph = helper.make_graph(
        [node],
        "constant",
        [
            helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for k, v in feeds.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in node.output if name],
    )
    single = helper.make_model(graph, opset_imports=model.opset_import, ir_version=10)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = ReferenceEvaluator(single).run(None, feeds)
    except _IMPOSSIBLE:
        return None
    names = [name for name in node.output if name]
    return [numpy_helper.from_array(np.asarray(r), n) for r, n in zip(results, names, strict=True)]
