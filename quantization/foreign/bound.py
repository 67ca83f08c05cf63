"""Models that come quantized, made right for CPUs without VNNI: their pairs of weights bounded.

An output channel with pairs that would saturate gets a larger scale, the one with the smallest
error, and new codes; those of the other channels stay. The weights that follow take over the error
of those before, as in weight_rounding: weighed by what each layer reads where samples are given,
else by what features of any network are like, neighbouring taps of a channel alike and channels
with a mean in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from graphs.edit import GraphEditor, copy_model, drop_dead
from graphs.layer_matrix import LayerMatrix, sample_columns
from graphs.operators import PRODUCT_OPS, WEIGHTED_OPS
from graphs.pairs import pair_partners, pairing_axis_of, saturating
from graphs.qdq import (
    DEQUANTIZE,
    QUANTIZE,
    copies,
    dequantizer,
    is_quantized,
    parameters,
)
from graphs.view import GraphView, Node
from quantization.foreign.constants import codes_of
from quantization.improve.weights.rounding import round_with_feedback
from quantization.improve.weights.wide import WIDEST_WHOLE
from quantization.measure.execution import Arrays, load_int8
from quantization.write.bounded_weights import as_rows, bounded_codes, bounded_scale, from_rows

__all__ = ["Bounded", "bound_weights"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
_BLOCK = 512  # columns that share an error where nothing is known of the samples
_SAME_CHANNEL, _ANY_CHANNEL = 0.3, 0.3  # second moments of made-up features, of a diagonal of 1
_POSITIONS = 4096
_MOMENTS = 1 << 27  # numbers of second moments kept at once


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """A quantized model that no CPU saturates.

    Attributes:
        model: with other codes and scales where pairs were too large.
        layers: names of the layers whose codes changed.
        channels: share of their output channels among those of all INT8 layers, 0 to 1.
        released: products of two activations, which run in floating point now.
    """

    model: ModelProto
    layers: tuple[str, ...]
    channels: float
    released: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Layer:
    node: Node
    pair: Node
    codes: Array
    axis: int | None  # of the output channels
    partners: NDArray[np.int64]

    @property
    def rows(self) -> Array:
        return as_rows(self.codes, self.axis)

    @property
    def binding(self) -> NDArray[np.bool_]:
        return np.asarray(saturating(self.rows, self.partners).any(axis=-1))


def bound_weights(model: ModelProto, samples: Sequence[Arrays] = ()) -> Bounded:
    """A new model whose INT8 layers no pair of weights can saturate.

    Args:
        model: an imported Q/DQ model; it is not changed.
        samples: feeds to weigh errors by, if there are any.

    Raises:
        ModelError: the model cannot be run on the samples.
    """
    copy = copy_model(model)
    released = _release_products(copy)
    view = GraphView(copy)
    layers = list(_layers(view))
    found = [layer for layer in layers if layer.binding.any()]
    editor, channels = GraphEditor(copy), 0
    for layer, moment in _with_moments(model, found, samples):
        codes, factors = _bounded(layer, moment)
        _store(editor, view, layer, codes, factors)
        channels += int(layer.binding.sum())
    editor.finish()
    drop_dead(copy.graph)
    return Bounded(
        model=copy,
        layers=tuple(layer.node.name for layer in found),
        channels=channels / max(sum(len(layer.rows) for layer in layers), 1),
        released=released,
    )


def _layers(view: GraphView) -> Iterator[_Layer]:
    """Layers that run INT8 with constant codes."""
    for node in view.nodes:
        if node.op_type not in WEIGHTED_OPS or not is_quantized(view, node.inputs[0]):
            continue
        pair = dequantizer(view, node.inputs[1])
        codes = None if pair is None else _codes(view, pair)
        if pair is None or codes is None or codes.dtype != np.int8:
            continue
        axis = pairing_axis_of(node, codes.shape)
        if axis is not None:
            rows = _rows(node.op_type, axis, codes.ndim)
            partners = pair_partners(codes.shape, axis, rows)
            yield _Layer(node=node, pair=pair, codes=codes, axis=rows, partners=partners)


def _rows(op_type: str, axis: int, rank: int) -> int | None:
    """The output channel axis; None of a stack of matrices, which is one row."""
    if op_type == "Conv":
        return 0
    return 1 - axis if rank == 2 or op_type == "ConvTranspose" else None


def _codes(view: GraphView, pair: Node) -> Array | None:
    stored = view.constant(pair.inputs[0])
    if stored is not None:
        return stored
    quantize = view.producer(pair.inputs[0])
    return codes_of(view, quantize) if quantize and quantize.op_type == QUANTIZE else None


def _bounded(layer: _Layer, moment: Floats | None) -> tuple[Array, Floats]:
    """Codes in the stored shape, and what the scale of each row grows by."""
    rows, binding = layer.rows.copy(), layer.binding
    values = rows[binding].astype(np.float64)
    power = None if moment is None else np.diag(moment)
    grown = bounded_scale(values, np.ones(len(values)), layer.partners, power)
    rows[binding] = _round(values / grown[:, None], layer, moment)
    factors = np.ones(len(rows))
    factors[binding] = grown
    return from_rows(rows, layer.axis, layer.codes.shape), factors


def _round(values: Floats, layer: _Layer, moment: Floats | None) -> Array:
    size = values.shape[-1]
    if layer.axis is None:  # a stack of matrices as one row has no columns to hand errors to
        return bounded_codes(values, np.ones(len(values)), layer.partners)
    if moment is not None:
        return _feedback(values, moment, layer.partners)
    taps = int(np.prod(layer.codes.shape[2:])) if layer.node.op_type.startswith("Conv") else 1
    step = max(_BLOCK // (2 * taps), 1) * 2 * taps
    parts = []
    for start in range(0, size, step):
        part = values[:, start : start + step]
        partners = layer.partners[start : start + step] - start
        partners = np.where(layer.partners[start : start + step] < 0, -1, partners)
        parts.append(_feedback(part, _made_up_moment(part.shape[-1], taps), partners))
    return np.concatenate(parts, axis=-1)


def _feedback(values: Floats, moment: Floats, partners: NDArray[np.int64]) -> Array:
    scale = np.ones((1, len(values)))
    return np.asarray(round_with_feedback(values[None], scale, moment[None], partners)[0])


def _made_up_moment(size: int, taps: int) -> Floats:
    """Second moments of features with a mean, alike within a channel: (K, K)."""
    channel = np.arange(size) // taps
    same = channel[:, None] == channel[None]
    rest = 1.0 - _SAME_CHANNEL - _ANY_CHANNEL
    return np.asarray(np.eye(size) * rest + same * _SAME_CHANNEL + _ANY_CHANNEL)


def _with_moments(
    model: ModelProto, layers: list[_Layer], samples: Sequence[Arrays]
) -> Iterator[tuple[_Layer, Floats | None]]:
    """Each layer with the second moments of what it reads; None without samples."""
    if not samples:
        yield from ((layer, None) for layer in layers)
        return
    pending = list(layers)
    while pending:
        now, numbers = [pending.pop(0)], 0
        while pending and (numbers := numbers + len(now[-1].partners) ** 2) < _MOMENTS:
            now.append(pending.pop(0))
        yield from zip(now, _moments(model, now, samples), strict=True)


def _moments(
    model: ModelProto, layers: list[_Layer], samples: Sequence[Arrays]
) -> list[Floats | None]:
    matrices = [_matrix(layer) for layer in layers]
    run = load_int8(model, outputs=sorted({layer.node.inputs[0] for layer in layers}))
    found: list[Floats | None] = [None] * len(layers)
    for number, sample in enumerate(samples):
        values = run(sample)
        for place, (layer, matrix) in enumerate(zip(layers, matrices, strict=True)):
            if matrix is not None:
                read = values[layer.node.inputs[0]]
                wanted = max(_POSITIONS // len(samples), 1)
                columns = sample_columns(matrix, [read], wanted=wanted, seed=number)
                x = columns.rows[:, 0].astype(np.float64)
                before = found[place]
                found[place] = x.T @ x if before is None else before + x.T @ x
    return found


def _matrix(layer: _Layer) -> LayerMatrix | None:
    """The layer as a matrix product; None for those without, groups, and layers too wide for it."""
    if layer.node.op_type == "ConvTranspose" or layer.node.integer("group", 1) != 1:
        return None
    if layer.codes.ndim < 2 or layer.axis is None or layer.node.integer("transA", 0):
        return None
    if len(layer.partners) > WIDEST_WHOLE:
        return None
    transposed = layer.axis == 1
    return LayerMatrix(
        node=layer.node,
        tensor=layer.node.inputs[1],
        weight=layer.codes.astype(np.float32),
        groups=1,
        transposed=transposed,
    )


def _store(
    editor: GraphEditor, view: GraphView, layer: _Layer, codes: Array, factors: Floats
) -> None:
    """A DequantizeLinear of its own for the layer, with one scale for each output channel."""
    old = parameters(view, layer.pair)
    assert old.scale is not None
    scale = np.asarray(old.scale.reshape(-1) * factors, old.scale.dtype)
    if layer.axis is None:
        scale = scale.reshape(old.scale.shape)
    wanted = f"{layer.node.inputs[1]}//bounded//{layer.node.position}"
    parts = {"codes": codes, "scale": scale, "zero": np.zeros(scale.shape, np.int8)}
    names = [editor.constant(f"{wanted}//{part}", values) for part, values in parts.items()]
    axis: dict[str, Any] = {} if layer.axis is None else {"axis": layer.axis}
    target = editor.names.tensor(wanted)
    node = editor.names.node(DEQUANTIZE, names, [target], wanted=f"{wanted}//{DEQUANTIZE}", **axis)
    editor.insert(0, node)  # it reads constants only
    editor.redirect(layer.node, 1, target)


def _release_products(model: ModelProto) -> tuple[str, ...]:
    """Let products of two quantized activations read the left one as it was before its Q."""
    view, editor = GraphView(model), GraphEditor(model)
    found: list[str] = []
    for node in view.nodes:
        if node.op_type not in PRODUCT_OPS:
            continue
        pair = dequantizer(view, node.inputs[1])
        if pair is not None and _codes(view, pair) is not None:
            continue
        if not all(is_quantized(view, name) for name in node.inputs[:2]):
            continue
        plain = _before_pair(view, node.inputs[0])
        if plain is not None:
            tensor, moves = plain
            for number, move in enumerate(reversed(moves)):
                copy = NodeProto()
                copy.CopyFrom(move.proto)
                released = editor.names.tensor(f"{node.outputs[0]}//released//{number}")
                editor.names.rename(copy, released)
                copy.input[0], copy.output[0] = tensor, released
                tensor = released
                editor.insert(node.position, copy)
            editor.redirect(node, 0, tensor)
            found.append(node.name)
    editor.finish()
    return tuple(found)


def _before_pair(view: GraphView, tensor: str) -> tuple[str, list[Node]] | None:
    """What a Q/DQ pair above ``tensor`` reads, and the moves of values that lie behind it."""
    moves: list[Node] = []
    node = view.producer(tensor)
    while node is not None and copies(node) and node.op_type != "Concat":
        moves.append(node)
        node = view.producer(node.inputs[0])
    if node is None or node.op_type != DEQUANTIZE:
        return None
    quantize = view.producer(node.inputs[0])
    if quantize is None or quantize.op_type != QUANTIZE:
        return None
    return quantize.inputs[0], moves
