"""Edits that several accuracy methods share: other values for constants, more bias for a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from artefacts.errors import ModelError
from graphs.edit import GraphEditor, copy_model, set_attribute
from graphs.names import stem
from graphs.operators import WEIGHTED_OPS
from graphs.view import GraphView, Node
from graphs.walk import constants

__all__ = [
    "add_bias",
    "append_operator",
    "can_add_bias",
]

Array = NDArray[Any]


def can_add_bias(node: Node) -> bool:
    """Whether :func:`add_bias` knows where a bias of ``node`` goes."""
    return node.op_type in WEIGHTED_OPS


def add_bias(
    model: onnx.ModelProto, shifts: Mapping[str, Array], *, own: bool = False
) -> onnx.ModelProto:
    """A new model whose weighted layers add a constant to each output channel.

    A constant bias is replaced (other readers of the same constant keep theirs), a missing one is
    created: as the layer's own input for Conv, ConvTranspose and Gemm, as an Add behind MatMul,
    whose result keeps its name. An Add of a constant that alone reads a MatMul is its bias. The
    model itself where there is nothing to add.

    Args:
        model: any model; it is not changed, unless it is the caller's own.
        shifts: name of a node → what to add, (C_out,).
        own: the model is a copy that the caller gives away: it is edited, and not held twice.

    Raises:
        ModelError: no such node, not a weighted layer, or a bias that is no constant.
    """
    if not shifts:
        return model
    view = GraphView(model)
    nodes = {node.name: node for node in view.nodes}
    editor = GraphEditor(model if own else copy_model(model))
    for name, shift in shifts.items():
        node = nodes.get(name)
        if node is None or not can_add_bias(node):
            found = "not in the graph" if node is None else f"a {node.op_type}"
            raise ModelError(
                f"layer {name!r} is {found}, expected one of {', '.join(sorted(WEIGHTED_OPS))}; "
                "correct layers of this graph"
            )
        if node.op_type == "MatMul":
            _grow_sum(editor, view, node, shift)
        else:
            _grow_bias(editor, view, node, shift)
    return editor.finish()


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
    editor, word = GraphEditor(model), op_type.lower()
    outputs = editor.node(maker).output
    inner = editor.names.tensor(f"{tensor}_before_{word}")
    outputs[list(outputs).index(tensor)] = inner
    dtype = helper.tensor_dtype_to_np_dtype(view.element_type(tensor) or onnx.TensorProto.FLOAT)
    constant = editor.constant(f"{tensor}_{word}_by", np.asarray(values, dtype))
    node = editor.names.node(op_type, [inner, constant], [tensor], wanted=f"{tensor}_{word}")
    editor.insert(maker.position + 1, node)
    editor.finish()


def _replace_constant(
    editor: GraphEditor, view: GraphView, node: Node, index: int, values: Array
) -> None:
    """Let one input of a node read other values.

    A constant that nobody else reads keeps its name.
    """
    name = node.inputs[index] if len(node.inputs) > index else ""
    stored = constants(editor.graph).get(name)
    if stored is not None and view.sole_use(name) is not None:
        stored.CopyFrom(numpy_helper.from_array(values, name))
        return
    fresh = editor.constant(name or f"{node.outputs[0]}_bias", values)
    editor.redirect(node, index, fresh)


def _grow_bias(editor: GraphEditor, view: GraphView, node: Node, shift: Array) -> None:
    # Gemm adds beta * C: with beta 0 whatever C is, nothing.
    beta = float(str(node.attributes.get("beta", 1.0))) if node.op_type == "Gemm" else 1.0
    present = len(node.inputs) > 2 and bool(node.inputs[2]) and beta != 0
    if beta == 0:
        beta = 1.0
        set_attribute(editor.node(node), "beta", beta)
    old = view.constant(node.inputs[2]) if present else np.zeros(1, dtype=_dtype(view, node))
    if old is None:
        raise ModelError(
            f"bias {node.inputs[2]!r} of layer {node.name!r} is computed, expected a constant; "
            "leave this layer out"
        )
    values = (old.astype(np.float64) + np.asarray(shift, np.float64) / beta).astype(old.dtype)
    _replace_constant(editor, view, node, 2, np.ascontiguousarray(values))


def _grow_sum(editor: GraphEditor, view: GraphView, node: Node, shift: Array) -> None:
    """Another constant in the Add behind a MatMul, or such an Add where there is none."""
    output = node.outputs[0]
    use = view.sole_use(output)
    add = use if use is not None and use.node.op_type == "Add" else None
    old = None if add is None else view.constant(add.node.inputs[1 - add.index])
    if add is None or old is None:
        _add_behind(editor, node, np.asarray(shift, _dtype(view, node)))
        return
    values = (old.astype(np.float64) + np.asarray(shift, np.float64)).astype(old.dtype)
    _replace_constant(editor, view, add.node, 1 - add.index, np.ascontiguousarray(values))


def _add_behind(editor: GraphEditor, node: Node, shift: Array) -> None:
    """An Add behind a MatMul, which writes to a new tensor, so readers see the sum."""
    output = node.outputs[0]
    inner = editor.names.tensor(f"{output}_unbiased")
    bias = editor.constant(f"{output}_bias", shift)
    editor.node(node).output[0] = inner
    wanted = f"{stem(node.proto)}_bias_add"
    add = editor.names.node("Add", [inner, bias], [output], wanted=wanted)
    editor.insert(node.position + 1, add)


def _dtype(view: GraphView, node: Node) -> Any:
    """Of the weight, which may have no data here."""
    kind = view.element_type(node.inputs[1]) or onnx.TensorProto.FLOAT
    return helper.tensor_dtype_to_np_dtype(kind)
