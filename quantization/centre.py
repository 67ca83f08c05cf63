"""Activations moved so that zero lies in the middle of their range, where that costs nothing.

TensorRT's INT8 has no zero point, so a tensor that is never negative uses half of its codes. But

    x = max(W₁ x₀ + b₁, 0),    y = W₂ x + b₂

is, for any number c, exactly

    x' = max(W₁ x₀ + (b₁ - c), -c) = x - c,    y = W₂ x' + (b₂ + c · W₂ 1)

and with c in the middle of [0, amax] the tensor x' needs half the amax: half the rounding error,
6 dB, for two other biases and a Clip with other bounds, which TensorRT fuses with the convolution
whatever the bounds are. It holds where every reader is linear and sees no zero padding: 1×1
convolutions (the expensive layers of MobileNets), Gemm, MatMul, also behind pooling and reshaping.

Sources: the algebra is that of zero points, Jacob et al., 2018, eq. 7
(https://arxiv.org/abs/1712.05877), kept in biases; the fusion: TensorRT's layer fusion catalogue,
"Convolution and Clip activation"
(https://docs.nvidia.com/deeplearning/tensorrt/latest/performance/fusion-catalog.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quantization.amend import add_bias, can_add_bias, copy_model, fresh_name
from quantization.graph_view import WEIGHTED_OPS, GraphView, Node, Use
from quantization.layer_matrix import layer_matrix
from quantization.placement import Placement

__all__ = ["centre"]

# What these make of x - c is what they make of x, less c.
_COMMUTING_OPS = frozenset(
    {
        "Dropout", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool",
        "Reshape", "Squeeze", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
# A shift by less is not worth another graph.
_SMALLEST_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class _Centring:
    """One tensor to move by ``-shift``: who makes it and which layers make up for it."""

    producer: Node
    activation: Node
    readers: tuple[Node, ...]
    low: float
    high: float
    shift: float


def centre(
    model: onnx.ModelProto, placement: Placement, amax: Mapping[str, float]
) -> tuple[onnx.ModelProto, dict[str, float]]:
    """A model that computes the same with centred activations, and by how much each was moved.

    Args:
        model: a prepared model; it is not changed.
        placement: of the model; only tensors that become INT8 are moved.
        amax: range of each observed tensor. A ReLU's tensor is moved by half of it, a Clip's to
            the middle of its own bounds or, if it ends earlier, of its range.

    Returns:
        The model (node and tensor names are kept), and tensor → c with x' = x - c.
    """
    view = GraphView(model)
    found = {}
    for tensor in sorted({edge.observed for edge in placement.activations} & amax.keys()):
        plan = _plan(view, tensor, amax[tensor])
        if plan is not None:
            found[tensor] = plan
    if not found:
        return model, {}
    shifts: dict[str, np.ndarray] = {}
    for plan in found.values():
        for layer, values in _bias_shifts(view, plan):
            shifts[layer] = shifts.get(layer, np.zeros(1)) + values
    result = copy_model(model)
    for plan in found.values():
        _move_bounds(result, view, plan)
    return add_bias(result, shifts), {tensor: plan.shift for tensor, plan in found.items()}


def _plan(view: GraphView, tensor: str, amax: float) -> _Centring | None:
    activation = view.producer(tensor)
    if activation is None or activation.op_type not in ("Relu", "Clip"):
        return None
    bounds = _bounds(view, activation)
    producer = view.producer(activation.inputs[0])
    if bounds is None or producer is None or not _owned(view, producer):
        return None
    readers = _readers(view, tensor)
    shift = (max(bounds[0], -amax) + min(bounds[1], amax)) / 2
    if readers is None or abs(shift) < _SMALLEST_SHARE * amax:
        return None
    return _Centring(
        producer=producer,
        activation=activation,
        readers=readers,
        low=bounds[0],
        high=bounds[1],
        shift=float(np.float32(shift)),
    )


def _bounds(view: GraphView, node: Node) -> tuple[float, float] | None:
    """Lower and upper bound of a Relu or Clip; None where they are computed or lower is open."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    bounds = []
    for index, default in ((1, -np.inf), (2, np.inf)):
        name = node.inputs[index] if len(node.inputs) > index else ""
        value = view.constant(name) if name else np.asarray(default)
        if value is None or value.size != 1:
            return None
        bounds.append(float(value.reshape(())))
    low, high = bounds
    return (low, high) if np.isfinite(low) and low < high else None


def _owned(view: GraphView, producer: Node) -> bool:
    """Whether the layer's constant bias can move its output for one reader alone."""
    output = producer.outputs[0]
    constant = len(producer.inputs) < 3 or not producer.inputs[2]
    constant = constant or view.constant(producer.inputs[2]) is not None
    alone = len(view.uses(output)) == 1 and output not in {*view.outputs, *view.captured}
    return can_add_bias(producer) and producer.op_type != "MatMul" and constant and alone


def _readers(view: GraphView, tensor: str) -> tuple[Node, ...] | None:
    """The layers that read ``tensor``, pooling and reshaping looked through; None if not only."""
    found: list[Node] = []
    pending = [tensor]
    while pending:
        name = pending.pop()
        if name in view.outputs or name in view.captured:
            return None
        for use in view.uses(name):
            if _absorbs(view, use):
                found.append(use.node)
            elif _commutes(use):
                pending.append(use.node.outputs[0])
            else:
                return None
    return tuple(found) or None


def _absorbs(view: GraphView, use: Use) -> bool:
    """Whether a constant added to this input is a constant added to each output channel."""
    node = use.node
    if use.index != 0 or node.op_type not in WEIGHTED_OPS or layer_matrix(view, node) is None:
        return False
    padded = any(node.integers("pads")) or node.text("auto_pad", "NOTSET").startswith("SAME")
    bias = node.inputs[2] if len(node.inputs) > 2 else ""
    return not padded and (not bias or view.constant(bias) is not None)


def _commutes(use: Use) -> bool:
    node = use.node
    if use.index != 0:
        return False
    if node.op_type == "AveragePool":
        padded = any(node.integers("pads")) or node.text("auto_pad", "NOTSET").startswith("SAME")
        return not padded and not node.integer("ceil_mode", 0)
    return node.op_type in _COMMUTING_OPS and len([o for o in node.outputs if o]) == 1


def _bias_shifts(view: GraphView, plan: _Centring) -> list[tuple[str, np.ndarray]]:
    """What each layer's bias gains: -c where the tensor is made, c · Σ W where it is read."""
    channels = _channels(view, plan.producer)
    shifts = [(plan.producer.name, np.full(channels, -plan.shift))]
    for reader in plan.readers:
        layer = layer_matrix(view, reader)
        if layer is not None:
            shifts.append((reader.name, plan.shift * layer.matrix.sum(axis=-1).reshape(-1)))
    return shifts


def _channels(view: GraphView, node: Node) -> int:
    """Output channels of a weighted layer with a constant weight; 1 broadcasts."""
    shape = view.shape(node.inputs[1]) or ()
    if node.op_type == "Conv":
        return int(shape[0] or 1)
    if node.op_type == "ConvTranspose":
        return int(shape[1] or 1) * node.integer("group", 1)
    return int(shape[0 if node.integer("transB", 0) else 1] or 1)


def _move_bounds(model: onnx.ModelProto, view: GraphView, plan: _Centring) -> None:
    """Relu(x) → Clip(x, -c); Clip(x, low, high) → Clip(x, low - c, high - c)."""
    graph = model.graph
    proto = graph.node[plan.activation.position]
    kind = view.element_type(plan.activation.outputs[0]) or onnx.TensorProto.FLOAT
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    inputs = [proto.input[0]]
    for word, bound in (("min", plan.low), ("max", plan.high)):
        if np.isfinite(bound):
            name = fresh_name(graph, f"{proto.output[0]}_{word}")
            value = np.asarray(bound - plan.shift, dtype)
            graph.initializer.append(numpy_helper.from_array(value, name))
            inputs.append(name)
    moved = helper.make_node("Clip", inputs, list(proto.output), name=proto.name)
    proto.CopyFrom(moved)
