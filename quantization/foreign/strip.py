"""Q/DQ out of a graph: the plain model, and what the pairs knew as ranges.

For builders that take ranges instead of nodes: implicit quantization up to TensorRT 10.16, and DLA.
Weights keep the values that their codes stand for, so the network computes with the weights it was
quantized or trained to; only the rounding of activations is gone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from artefacts.errors import ModelError
from calibrators.ranges.ranges import SMALLEST_AMAX, Range, Ranges
from graphs.edit import GraphEditor, drop_dead
from graphs.identity import graph_hash
from graphs.operators import PAIR_OPS, PARTIAL_OPS
from graphs.qdq import DEQUANTIZE, QUANTIZE, Parameters, copies, parameters
from graphs.view import GraphView, Node
from graphs.walk import nodes
from quantization.foreign.constants import along, codes_of, fold_clipped_codes, fold_integer_biases
from quantization.foreign.importer import quantized_format
from quantization.foreign.operators import unfold_operators
from quantization.prepare.prepare import prepare

__all__ = ["Stripped", "strip"]

_TYPES = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16)


@dataclass(frozen=True, kw_only=True)
class Stripped:
    """A plain model and the ranges its Q/DQ pairs had.

    Attributes:
        model: prepared, without Q/DQ.
        ranges: of its tensors, and of those that only move their numbers; method "imported".
        lost: tensors that had a range and are not in the model any more.
    """

    model: ModelProto
    ranges: Ranges
    lost: tuple[str, ...]


def strip(model: ModelProto) -> Stripped:
    """A new model without Q/DQ, and its ranges.

    An asymmetric pair gives the larger of its two ends: TensorRT's ranges are symmetric.

    Raises:
        ModelError: the model is not quantized, or codes are an input or output of its graph.
    """
    if quantized_format(model) is None:
        raise ModelError(
            f"model {model.graph.name!r} has no Q/DQ and no QLinear nodes, expected a quantized "
            f"model; there is nothing to strip"
        )
    copy = prepare(model)
    unfold_operators(copy)
    fold_integer_biases(copy)
    fold_clipped_codes(copy)
    _fold_quantized_constants(copy)
    copy = prepare(copy)
    amax, names = _unquantize(copy)
    drop_dead(copy.graph)
    plain = prepare(copy)
    return _result(model, plain, amax, names)


def _result(
    model: ModelProto, plain: ModelProto, amax: dict[str, float], names: dict[str, str]
) -> Stripped:
    """Ranges under the names that are left: a tensor may have taken that of the output it is."""
    alive = {name for node in nodes(plain) for name in (*node.input, *node.output)}
    later: dict[str, list[str]] = {}
    for new, old in names.items():
        later.setdefault(old, []).append(new)
    ranges: dict[str, Range] = {}
    lost = []
    for name, value in amax.items():
        found = next((n for n in (name, *later.get(name, ())) if n in alive), None)
        if found is None:
            lost.append(name)
        else:
            ranges[found] = Range(amax=value, method="imported", why="from its Q/DQ pair")
    return Stripped(
        model=plain,
        ranges=Ranges(
            graph_hash=graph_hash(plain),
            statistics_digest=graph_hash(model),
            method="imported",
            tensors=_spread(GraphView(plain), ranges),
            samples=0,
            preprocess=None,
        ),
        lost=tuple(sorted(lost)),
    )


def _spread(view: GraphView, ranges: dict[str, Range]) -> dict[str, Range]:
    """Ranges of tensors whose numbers are only moved, too: a cache wants all there can be."""
    known = dict(ranges)
    moving = [node for node in view.nodes if copies(node)]
    for node in moving:
        sources = [known.get(name) for name in _moved(node)]
        found = [entry for entry in sources if entry is not None]
        if found and len(found) == len(sources):
            largest = max(found, key=lambda entry: entry.amax)
            _pass_on(known, largest, node.outputs, f"passed on by {node.name}")
    for node in reversed(moving):
        after = known.get(node.outputs[0])
        if after is not None and node.op_type not in PARTIAL_OPS:  # else ranges go forward only
            _pass_on(known, after, _moved(node), f"passed on by {node.name}")
    return known


def _moved(node: Node) -> tuple[str, ...]:
    """Inputs whose numbers an operator moves; the others say where."""
    return node.inputs if node.op_type == "Concat" else node.inputs[:1]


def _pass_on(known: dict[str, Range], entry: Range, names: Sequence[str], why: str) -> None:
    for name in names:
        if name:
            known.setdefault(name, replace(entry, why=why))


def _unquantize(model: ModelProto) -> tuple[dict[str, float], dict[str, str]]:
    """Turn each Q and DQ into a constant or an Identity, in place.

    Returns:
        Largest |x| by tensor, and for each tensor behind a pair the tensor in front of it.
    """
    view, editor = GraphView(model), GraphEditor(model)
    amax: dict[str, float] = {}
    front: dict[str, str] = {}
    for node in view.nodes:
        if node.op_type not in PAIR_OPS:
            continue
        if view.is_constant(node.inputs[0]):
            value = _constant(view, node)
            if value is not None:  # else blocks, or floats of 8 bits: left as they are
                editor.fold(node, value)
            continue
        _check_inside(view, node)
        source = front.get(node.inputs[0], node.inputs[0])
        if node.op_type == QUANTIZE:
            amax[source] = max(amax.get(source, 0.0), _amax(view, node))
        front[node.outputs[0]] = source
        identity = helper.make_node("Identity", [node.inputs[0]], [node.outputs[0]])
        editor.node(node).CopyFrom(identity)
    editor.finish()
    del model.graph.value_info[:]
    return {name: value for name, value in amax.items() if value >= SMALLEST_AMAX}, front


def _fold_quantized_constants(model: ModelProto) -> None:
    """Replace each QuantizeLinear of a constant by its codes, in place."""
    view, editor = GraphView(model), GraphEditor(model)
    for node in view.nodes:
        codes = codes_of(view, node) if node.op_type == QUANTIZE else None
        if codes is not None:
            editor.fold(node, codes)
    editor.finish()


def _constant(view: GraphView, node: Node) -> NDArray[Any] | None:
    """The float value of a DequantizeLinear of constant codes of 8 or 16 bits."""
    codes, found = view.constant(node.inputs[0]), parameters(view, node)
    if codes is None or found.scale is None or found.zero_point is None:
        return None
    if found.data_type not in _TYPES:
        return None
    scale, zero = (along(part, codes, found.axis) for part in (found.scale, found.zero_point))
    with np.errstate(over="ignore"):  # infinite, as DequantizeLinear would make it
        return np.asarray((codes.astype(np.int32) - zero) * scale, found.scale.dtype)


def _amax(view: GraphView, node: Node) -> float:
    """Largest number that the codes of a QuantizeLinear reach on both sides of zero.

    Raises:
        ModelError: its scale is computed, or its type is no integer of 8 or 16 bits.
    """
    found = parameters(view, node)
    if found.scale is None or found.zero_point is None or found.data_type not in _TYPES:
        raise ModelError(
            f"node {node.name!r} has a computed scale or codes that are not 8 or 16 bits, expected "
            f"constants; export the model with static quantization"
        )
    scale = float(np.max(np.abs(found.scale.astype(np.float64)), initial=0.0))
    amax = scale * _levels(found)
    return amax if math.isfinite(amax) else 0.0


def _levels(found: Parameters) -> int:
    """Codes on the wider side of zero; the one more of two's complement does not count."""
    limits = np.iinfo(helper.tensor_dtype_to_np_dtype(found.data_type))
    zero = np.zeros(1, np.int64) if found.zero_point is None else found.zero_point.astype(np.int64)
    below, above = int(np.max(zero)) - limits.min, limits.max - int(np.min(zero))
    return above if below == above + 1 else max(below, above)


def _check_inside(view: GraphView, node: Node) -> None:
    """Codes at the edge of a graph would change its inputs or outputs."""
    edge = node.outputs[0] in view.outputs if node.op_type == QUANTIZE else False
    name = node.outputs[0] if edge else node.inputs[0]
    edge = edge or (node.op_type == DEQUANTIZE and name in view.inputs)
    uses = view.uses(node.outputs[0]) if node.op_type == QUANTIZE else ()
    strange = [u.node for u in uses if u.node.op_type != DEQUANTIZE and not copies(u.node)]
    if edge or strange:
        where = "an input or output of the graph" if edge else f"read by {strange[0].op_type}"
        raise ModelError(
            f"tensor {name!r} of codes is {where}, expected floating point there; export the model "
            f"with float inputs and outputs and with Q/DQ in pairs"
        )
