"""Constants multiplied by the scales of channels, all in one copy of the model.

What is replaced is not copied first: protobuf gives no memory back before the whole model goes, and
the weights of a large network would be there three times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from graphs.amend import append_operator
from graphs.edit import GraphEditor
from graphs.layer_matrix import LayerMatrix
from graphs.tensor_data import without_data_of
from graphs.view import GraphView, Node
from graphs.walk import constants

__all__ = ["Factor", "input_factor", "output_factor", "rescale"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Factor:
    """What one constant of a node is multiplied by.

    Attributes:
        node: that reads it.
        index: of the input.
        values: of a shape that broadcasts to the constant's, or that it broadcasts to.
    """

    node: Node
    index: int
    values: Floats


def input_factor(layer: LayerMatrix, scale: Floats) -> Factor:
    """Multiplies the weight by the scale of each input channel.

    Args:
        layer: a layer whose input was divided by the scales.
        scale: of each channel that it reads, (C_in,).
    """
    if layer.is_conv:
        rows = layer.weight.shape[0] if layer.groups > 1 else 1  # one for all outputs of a group
        within = np.repeat(scale.reshape(layer.groups, -1), rows // layer.groups, axis=0)
        values = within.reshape(*within.shape, *[1] * (layer.weight.ndim - 2))
    else:
        values = scale[:, None] if layer.transposed else scale[None]
    return Factor(node=layer.node, index=1, values=values)


def output_factor(layer: LayerMatrix, scale: Floats) -> Factor:
    """Divides the weight by the scale of each output channel.

    Args:
        layer: a layer whose output is to be divided by the scales.
        scale: of each channel that it makes, (C_out,).
    """
    shape = (1, -1) if layer.transposed else (-1, *[1] * (layer.weight.ndim - 1))
    return Factor(node=layer.node, index=1, values=1.0 / scale.reshape(shape))


def rescale(
    view: GraphView, factors: Sequence[Factor], inserted: Mapping[str, Floats] | None = None
) -> onnx.ModelProto:
    """A new model with its constants multiplied; the view's own where there is nothing to do.

    A constant that others read, too, stays for them, and one that several read with factors of
    their own becomes several.

    Args:
        view: of the model, which is not changed.
        factors: of its constants; several of one are multiplied.
        inserted: tensor → what a Mul of its own divides each channel by, axis 1, (C,).
    """
    if not factors and not inserted:
        return view.model
    steps: dict[tuple[int, int], list[Floats]] = {}
    for factor in factors:
        steps.setdefault((factor.node.position, factor.index), []).append(factor.values)
    left = Counter(view.nodes[position].inputs[index] for position, index in steps)
    whole = {name for name, count in left.items() if _alone(view, name, count)}
    result = without_data_of(view.model, whole)
    stored, editor = constants(result.graph), GraphEditor(result)
    for (position, index), values in steps.items():
        node = view.nodes[position]
        name = node.inputs[index]
        changed = _multiplied(view, name, values)
        left[name] -= 1
        if name in whole and not left[name]:  # the last reader keeps the name
            stored[name].CopyFrom(numpy_helper.from_array(changed, name))
        else:
            editor.redirect(node, index, editor.constant(name, changed))
    for tensor, scale in (inserted or {}).items():
        rank = len(view.shape(tensor) or ())
        by = (1.0 / scale).reshape([-1 if axis == 1 else 1 for axis in range(rank)])
        append_operator(result, GraphView(result), tensor, "Mul", by)
    return result


def _alone(view: GraphView, name: str, readers: int) -> bool:
    """Whether nothing else reads the initializer."""
    alone = len(view.uses(name)) == readers and name not in view.read_outside
    return alone and name in view.initializers


def _multiplied(view: GraphView, name: str, factors: Sequence[Floats]) -> NDArray[np.generic]:
    """A constant times its factors, in its own type."""
    value = view.constant(name)
    assert value is not None
    result = value.astype(np.float64)
    for factor in factors:
        result = result * factor
    return np.ascontiguousarray(result.astype(value.dtype))
