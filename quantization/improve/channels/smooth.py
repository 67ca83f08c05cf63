"""Equalising the last axis: what products read, and a constant in front of them can be divided by.

Transformers have channels that are tens of times larger than the others, the same for every
position, and one scale for the tensor leaves those few codes. Where a constant of each channel
comes before (a normalisation's scale and bias, a Mul or Div by a constant, the weights of a product
behind a ReLU or of the plain factor of a gated one), any s_c > 0 moves into it:

    y = W (γ · n + β)  =  (W S) ((γ / s) · n + β / s),    S = diag(s)

exactly and at no cost. With a_c the largest magnitude of channel c in the samples and w_c that of
the weights which read it, the sets tried are s = 1, √(a / A), a / A, and √(a / w).

Source: Xiao et al., SmoothQuant, 2022, eq. 4 with α = ½ (https://arxiv.org/abs/2211.10438).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphs.layer_matrix import LayerMatrix, layer_matrix, reading_layers
from graphs.operators import SCALE_KEEPING_OPS
from graphs.view import GraphView, Node
from quantization.improve.channels.amax import levelling_scales
from quantization.improve.channels.rescale import Factor, input_factor

__all__ = ["Constant", "absorbers", "last_axis_readers", "smooth_sets", "smoothing_factors"]

Floats = NDArray[np.float64]

_SMALLEST = 1 / 128  # a smaller factor would only amplify what float32 rounds away
_MOST_STEPS = 8  # between a tensor and the constant in front of it
_NORMS, _ADDED = ("LayerNormalization", "RMSNormalization"), ("Add", "Sub")


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A constant that scales of the tensor behind it move into.

    Attributes:
        node: that reads it.
        index: of the input.
        power: -1 where it is divided by s, 1 where it is multiplied (a divisor).
        rows: it is a matrix with a row for each channel.
    """

    node: Node
    index: int
    power: int = -1
    rows: bool = False

    def widens(self, view: GraphView) -> bool:
        """Whether a number becomes a vector, which a fusion may not look for (0.5 of a GELU)."""
        value = view.constant(self.node.inputs[self.index])
        return value is None or value.size == 1

    def factor(self, scale: Floats) -> Factor:
        """What it is multiplied by for scaled channels."""
        values = scale**self.power
        shaped = values[:, None] if self.rows else values
        return Factor(node=self.node, index=self.index, values=shaped)


def last_axis_readers(view: GraphView, tensor: str) -> tuple[LayerMatrix, ...]:
    """The products that read ``tensor`` along its last axis; none if anything else reads it."""
    found = reading_layers(view, tensor)
    return () if any(layer.is_conv for layer in found) else found


def absorbers(
    view: GraphView, tensor: str, quantized: Collection[str] = ()
) -> tuple[Constant, ...]:
    """The constants that take the scales of a tensor's last axis; none where there are not all.

    Args:
        view: of a prepared graph.
        tensor: made by a node.
        quantized: tensors with a range of their own, which nothing behind them may change.
    """
    shape = view.shape(tensor)
    width = shape[-1] if shape else None
    return () if width is None else _taken(view, tensor, width, set(quantized) - {tensor}, 0) or ()


def smooth_sets(amax: Floats, readers: Sequence[LayerMatrix]) -> Floats:
    """Scales to try, (4, C): none, half the way, all the way, and by what the weights are, too.

    Args:
        amax: largest magnitude of each channel, (C,).
        readers: the layers that read the tensor.
    """
    weights = np.max([np.abs(reader.judging[0]).max(axis=0) for reader in readers], axis=0)
    balance = np.sqrt(np.divide(amax, weights, out=np.zeros_like(amax), where=weights > 0))
    full, shared = (levelling_scales(each, _SMALLEST) for each in (amax, balance))
    return np.stack([np.ones(amax.size), np.sqrt(full), full, shared])


def smoothing_factors(
    view: GraphView, scales: Mapping[str, Floats], quantized: Collection[str]
) -> Iterator[Factor]:
    """Of the constants before and behind each tensor whose last axis is divided by its scales.

    Args:
        view: of a prepared model.
        scales: tensor with :func:`absorbers` → s of each channel, (C,).
        quantized: as :func:`absorbers` has them.
    """
    for tensor, scale in scales.items():
        yield from (input_factor(layer, scale) for layer in last_axis_readers(view, tensor))
        for constant in absorbers(view, tensor, quantized):
            yield constant.factor(scale)


def _taken(
    view: GraphView, tensor: str, width: int, quantized: Collection[str], steps: int
) -> tuple[Constant, ...] | None:
    """The constants in front of a tensor that take its scales; None where something does not."""
    node = view.producer(tensor)
    shape = view.shape(tensor)
    hidden = tensor in view.read_outside or tensor in quantized
    if node is None or not shape or shape[-1] != width or hidden or steps > _MOST_STEPS:
        return None
    if node.op_type in _NORMS:
        return _of_norm(view, node, width)
    if (layer := layer_matrix(view, node)) is not None and not layer.is_conv:
        return _of_product(view, node, layer)
    behind = steps + 1
    if (
        node.op_type in SCALE_KEEPING_OPS
        and len(node.inputs) == 1
        and view.shape(node.inputs[0]) == view.shape(tensor)
    ):
        return _alone(view, node.inputs[0], width, quantized, behind)
    if node.op_type in ("Mul", "Div"):
        return _of_factor(view, node, width, quantized, behind)
    if node.op_type in _ADDED:
        parts = [
            (Constant(node=node, index=index),)
            if _is_vector(view, name, width)
            else _alone(view, name, width, quantized, behind)
            for index, name in enumerate(node.inputs)
        ]
        whole = [constant for part in parts if part is not None for constant in part]
        return None if None in parts else tuple(whole)
    return None


def _alone(
    view: GraphView, tensor: str, width: int, quantized: Collection[str], steps: int
) -> tuple[Constant, ...] | None:
    """Of a tensor that nothing else reads."""
    return _taken(view, tensor, width, quantized, steps) if view.sole_use(tensor) else None


def _of_norm(view: GraphView, node: Node, width: int) -> tuple[Constant, ...] | None:
    rank = len(view.shape(node.inputs[0]) or ())
    last = node.integer("axis", -1) in (-1, rank - 1)
    indices = [index for index, name in enumerate(node.inputs) if index and name]
    fits = last and all(_is_vector(view, node.inputs[index], width) for index in indices)
    return tuple(Constant(node=node, index=index) for index in indices) if fits else None


def _of_product(view: GraphView, node: Node, layer: LayerMatrix) -> tuple[Constant, ...] | None:
    """The rows of a product's weight, and its bias."""
    bias = [index for index, name in enumerate(node.inputs) if index > 1 and name]
    width = layer.stored.shape[1]
    if not all(_is_vector(view, node.inputs[index], width) for index in bias):
        return None
    weight = Constant(node=node, index=1, rows=not layer.transposed)
    return (weight, *(Constant(node=node, index=index) for index in bias))


def _of_factor(
    view: GraphView, node: Node, width: int, quantized: Collection[str], steps: int
) -> tuple[Constant, ...] | None:
    """One factor takes all: a constant, or what is behind one of two."""
    for index, name in enumerate(node.inputs):
        power = 1 if node.op_type == "Div" and index else -1
        if _is_vector(view, name, width):
            return (Constant(node=node, index=index, power=power),)
    for index, name in enumerate(node.inputs[: 1 if node.op_type == "Div" else 2]):
        if not view.is_constant(name) and node.inputs[1 - index] != name:
            found = _alone(view, name, width, quantized, steps)
            if found is not None:
                return found
    return None


def _is_vector(view: GraphView, name: str, width: int) -> bool:
    """Whether a constant can have a value of its own for each place of the last axis."""
    value = view.constant(name) if view.is_constant(name) else None
    if value is None or value.dtype.kind != "f":
        return False
    return value.ndim == 0 or value.shape[-1] in (1, width)
