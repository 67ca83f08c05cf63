"""Activations moved so that zero lies in the middle of their range, where that costs nothing.

TensorRT's INT8 has no zero point, so a tensor that is never negative uses half of its codes. But

    x = max(W₁ x₀ + b₁, 0),    y = W₂ x + b₂

is, for any number c, exactly

    x' = max(W₁ x₀ + (b₁ - c), -c) = x - c,    y = W₂ x' + (b₂ + c · W₂ 1)

and with c in the middle of [0, amax] the tensor x' needs half the amax: half the rounding error,
6 dB, for two other biases and a Clip with other bounds, which TensorRT fuses with the convolution
whatever the bounds are. It holds where every reader is linear and sees no zero padding: 1×1
convolutions (the expensive layers of MobileNets), Gemm, MatMul, also behind pooling and reshaping.

SiLU, GELU and their kind end at -0.28 or so and waste nearly as much, but have no bias behind them:
x' = f(x₀) - c takes a Sub. TensorRT computes them in a pointwise kernel of their own, which takes
in the Sub and the quantization (seen in the kernels that TensorRT-RTX 1.7 generates).

Sources: the algebra is that of zero points, Jacob et al., 2018, eq. 7
(https://arxiv.org/abs/1712.05877), kept in biases; the fusion: TensorRT's layer fusion catalogue,
"Convolution and Clip activation"
(https://docs.nvidia.com/deeplearning/tensorrt/latest/performance/fusion-catalog.html).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from graphs.amend import append_operator, can_add_bias
from graphs.edit import GraphEditor, copy_model
from graphs.layer_matrix import layer_matrix
from graphs.names import replacement
from graphs.operators import SELF_GATED_OPS, SHIFT_KEEPING_OPS, WEIGHTED_OPS
from graphs.view import GraphView, Node, Use
from quantization.placement import Placement

__all__ = ["Centrable", "centrable", "centring_shifts", "move_bounds"]

# Activations in a kernel of their own; Mul: SiLU as exported.
_OWN_KERNEL_OPS = SELF_GATED_OPS | {"Mul"}


@dataclass(frozen=True, kw_only=True)
class Centrable:
    """A tensor that can be moved: who makes it and which layers make up for it.

    Attributes:
        producer: the layer whose bias moves it; None where a Sub does.
        activation: what makes it: a Relu or Clip, or an operator with a kernel of its own.
        readers: the layers whose bias moves the results back.
        low: lower bound of its values; minus infinity where a Sub moves it.
        high: upper bound, infinite for a Relu.
    """

    producer: Node | None
    activation: Node
    readers: tuple[Node, ...]
    low: float
    high: float


def centrable(view: GraphView, placement: Placement) -> dict[str, Centrable]:
    """The tensors of a placement that can be moved for nothing."""
    observed = {edge.observed for edge in placement.activations}
    grouped = {name for group in placement.shared for name in group}
    found = {}
    for tensor in sorted(observed - grouped - set(placement.fixed)):
        plan = _plan(view, tensor, observed)
        if plan is not None:
            found[tensor] = plan
    return found


def centring_shifts(
    view: GraphView,
    plans: Mapping[str, Centrable],
    centres: Mapping[str, float],
    rounded: Callable[[str], NDArray[Any] | None] = lambda _: None,
) -> dict[str, NDArray[np.float64]]:
    """What the biases gain: -c where a tensor is made, c · Σ W where it is read.

    Args:
        view: the graph.
        plans: from :func:`centrable`.
        centres: tensor → c.
        rounded: constant → the values that INT8 makes of it, if it does: the sum is of these.

    Returns:
        Node name → shift of its bias, (C_out,).
    """
    shifts: dict[str, NDArray[np.float64]] = {}
    for tensor, shift in centres.items():
        plan = plans[tensor]
        parts = []
        if plan.producer is not None:
            parts.append((plan.producer.name, np.full(_channels(view, plan.producer), -shift)))
        for reader in plan.readers:
            layer = layer_matrix(view, reader)
            if layer is not None:
                weight = rounded(layer.tensor)
                if weight is not None:
                    layer = dataclasses.replace(layer, weight=weight)
                parts.append((reader.name, shift * layer.matrix.sum(axis=-1).reshape(-1)))
        for name, values in parts:
            shifts[name] = shifts.get(name, np.zeros(1)) + values
    return shifts


def move_bounds(
    model: onnx.ModelProto,
    plans: Mapping[str, Centrable],
    centres: Mapping[str, float],
    *,
    own: bool = False,
) -> onnx.ModelProto:
    """A new model with Relu(x) → Clip(x, -c) and Clip(x, low, high) → Clip(x, low - c, high - c).

    Other activations get a Sub. With :func:`centring_shifts` added to the biases it computes the
    same. The model itself where nothing is moved, and where it is the caller's ``own`` copy.
    """
    if not centres:
        return model
    view = GraphView(model)
    editor = GraphEditor(model if own else copy_model(model))
    for tensor, shift in centres.items():
        if plans[tensor].producer is not None:
            _move(editor, view, plans[tensor], shift)
    result = editor.finish()
    for tensor, shift in centres.items():  # last, because they move the nodes behind them
        if plans[tensor].producer is None:
            append_operator(result, GraphView(result), tensor, "Sub", np.asarray(shift))
    return result


def _plan(view: GraphView, tensor: str, observed: Set[str]) -> Centrable | None:
    activation = view.producer(tensor)
    if activation is None:
        return None
    producer, bounds = None, (-float("inf"), float("inf"))
    if activation.op_type in ("Relu", "Clip"):
        found = _bounds(view, activation)
        producer = view.producer(activation.inputs[0])
        if found is None or producer is None or not _owned(view, producer):
            return None
        bounds = found
    elif activation.op_type not in _OWN_KERNEL_OPS:
        return None
    readers = _readers(view, tensor, observed)
    if readers is None:
        return None
    return Centrable(
        producer=producer, activation=activation, readers=readers, low=bounds[0], high=bounds[1]
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
    movable = can_add_bias(producer) and producer.op_type != "MatMul" and constant
    return movable and view.sole_use(output) is not None


def _readers(view: GraphView, tensor: str, observed: Set[str]) -> tuple[Node, ...] | None:
    """The layers that read ``tensor``, pooling and reshaping looked through; None if not only.

    A tensor on the way that has a range of its own would move too: None.
    """
    found: list[Node] = []
    pending = [tensor]
    while pending:
        name = pending.pop()
        if name in view.read_outside:
            return None
        for use in view.uses(name):
            if _absorbs(view, use):
                found.append(use.node)
            elif _commutes(use) and use.node.outputs[0] not in observed:
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
    return node.op_type in SHIFT_KEEPING_OPS and len([o for o in node.outputs if o]) == 1


def _channels(view: GraphView, node: Node) -> int:
    """Output channels of a weighted layer with a constant weight; 1 broadcasts."""
    shape = view.shape(node.inputs[1]) or ()
    if node.op_type == "Conv":
        return int(shape[0] or 1)
    if node.op_type == "ConvTranspose":
        return int(shape[1] or 1) * node.integer("group", 1)
    return int(shape[0 if node.integer("transB", 0) else 1] or 1)


def _move(editor: GraphEditor, view: GraphView, plan: Centrable, shift: float) -> None:
    proto = editor.node(plan.activation)
    output = plan.activation.outputs[0]
    kind = view.element_type(output) or onnx.TensorProto.FLOAT
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    inputs = [proto.input[0]]
    for word, bound in (("min", plan.low), ("max", plan.high)):
        if np.isfinite(bound):
            inputs.append(editor.constant(f"{output}_{word}", np.asarray(bound - shift, dtype)))
    proto.CopyFrom(replacement(proto, "Clip", inputs, proto.output))
