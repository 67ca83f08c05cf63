"""Edits that several accuracy methods share: other values for constants, more bias for a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from artefacts.errors import ModelError
from graphs.view import WEIGHTED_OPS, GraphView, Node

__all__ = [
    "add_bias",
    "append_operator",
    "can_add_bias",
    "copy_model",
    "fresh_name",
    "replace_constant",
]

Array = NDArray[Any]


def copy_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """A deep copy, which the caller may edit."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def can_add_bias(node: Node) -> bool:
    """Whether :func:`add_bias` knows where a bias of ``node`` goes."""
    return node.op_type in WEIGHTED_OPS


def add_bias(model: onnx.ModelProto, shifts: Mapping[str, Array]) -> onnx.ModelProto:
    """A new model whose weighted layers add a constant to each output channel.

    A constant bias is replaced (other readers of the same constant keep theirs), a missing one is
    created: as the layer's own input for Conv, ConvTranspose and Gemm, as an Add behind MatMul,
    whose result keeps its name.

    Args:
        model: any model; it is not changed.
        shifts: name of a node → what to add, (C_out,).

    Raises:
        ModelError: no such node, not a weighted layer, or a bias that is no constant.
    """
    view = GraphView(model)
    nodes = {node.name: node for node in view.nodes}
    result = copy_model(model)
    inserted: list[tuple[int, onnx.NodeProto]] = []
    for name, shift in shifts.items():
        node = nodes.get(name)
        if node is None or not can_add_bias(node):
            found = "not in the graph" if node is None else f"a {node.op_type}"
            raise ModelError(
                f"layer {name!r} is {found}, expected one of {', '.join(sorted(WEIGHTED_OPS))}; "
                "correct layers of this graph"
            )
        proto = result.graph.node[node.position]
        if node.op_type == "MatMul":
            inserted.append((node.position + 1, _bias_node(result, proto, shift)))
        else:
            _grow_bias(result, view, node, proto, shift)
    for position, extra in sorted(inserted, key=lambda entry: -entry[0]):
        result.graph.node.insert(position, extra)
    return result


def append_operator(
    model: onnx.ModelProto, view: GraphView, tensor: str, op_type: str, values: Array
) -> None:
    """Let a tensor be ``op_type(what it was, values)``; edits ``model``, the caller's copy.

    The new node makes the tensor of the old name, so that a placement stays valid; what made it
    before writes to a new name.

    Args:
        model: the graph of ``view``; nodes behind the tensor's maker move by one.
        view: of ``model``.
        tensor: made by a node.
        op_type: Mul or Sub.
        values: the constant, of a shape that broadcasts.
    """
    maker = view.producer(tensor)
    assert maker is not None
    graph, stem = model.graph, f"{tensor}_{op_type.lower()}"
    proto = graph.node[maker.position]
    inner = fresh_name(graph, f"{tensor}_before_{op_type.lower()}")
    proto.output[list(proto.output).index(tensor)] = inner
    constant = fresh_name(graph, f"{stem}_by")
    dtype = helper.tensor_dtype_to_np_dtype(view.element_type(tensor) or onnx.TensorProto.FLOAT)
    graph.initializer.append(numpy_helper.from_array(np.asarray(values, dtype), constant))
    node = helper.make_node(op_type, [inner, constant], [tensor], name=fresh_name(graph, stem))
    graph.node.insert(maker.position + 1, node)


def replace_constant(
    model: onnx.ModelProto, view: GraphView, proto: onnx.NodeProto, index: int, values: Array
) -> None:
    """Let one input of a node read other values; edits ``model``, which is the caller's copy.

    A constant that nobody else reads keeps its name.
    """
    name = proto.input[index]
    stored = next((t for t in model.graph.initializer if t.name == name), None)
    alone = len(view.uses(name)) == 1 and name not in view.captured and name not in view.outputs
    if stored is not None and alone:
        stored.CopyFrom(numpy_helper.from_array(values, name))
        return
    name = fresh_name(model.graph, name or f"{proto.output[0]}_bias")
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    while len(proto.input) <= index:
        proto.input.append("")
    proto.input[index] = name


def fresh_name(graph: onnx.GraphProto, stem: str) -> str:
    """``stem``, with a number where a tensor of the graph has that name."""
    taken = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        taken.update((node.name, *node.input, *node.output))
    name, number = stem, 1
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    return name


def _grow_bias(
    model: onnx.ModelProto, view: GraphView, node: Node, proto: onnx.NodeProto, shift: Array
) -> None:
    # Gemm adds beta * C: with beta 0 whatever C is, nothing.
    beta = float(str(node.attributes.get("beta", 1.0))) if node.op_type == "Gemm" else 1.0
    present = len(node.inputs) > 2 and bool(node.inputs[2]) and beta != 0
    if beta == 0:
        kept = [attribute for attribute in proto.attribute if attribute.name != "beta"]
        del proto.attribute[:]
        proto.attribute.extend(kept)
        beta = 1.0
    old = view.constant(node.inputs[2]) if present else np.zeros(1, dtype=_dtype(view, node))
    if old is None:
        raise ModelError(
            f"bias {node.inputs[2]!r} of layer {node.name!r} is computed, expected a constant; "
            "leave this layer out"
        )
    values = (old.astype(np.float64) + np.asarray(shift, np.float64) / beta).astype(old.dtype)
    while len(proto.input) <= 2:
        proto.input.append("")
    replace_constant(model, view, proto, 2, np.ascontiguousarray(values))


def _bias_node(model: onnx.ModelProto, proto: onnx.NodeProto, shift: Array) -> onnx.NodeProto:
    """The Add behind a MatMul; the MatMul writes to a new tensor, so readers see the sum."""
    output = proto.output[0]
    inner = fresh_name(model.graph, f"{output}_unbiased")
    bias = fresh_name(model.graph, f"{output}_bias")
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(shift, np.float32), bias))
    proto.output[0] = inner
    name = fresh_name(model.graph, f"{proto.name or output}_bias_add")
    return helper.make_node("Add", [inner, bias], [output], name=name)


def _dtype(view: GraphView, node: Node) -> Any:
    weight = view.constant(node.inputs[1])
    return np.float32 if weight is None else weight.dtype
