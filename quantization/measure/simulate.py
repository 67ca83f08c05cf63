"""The INT8 graph on a CPU, tensor by tensor beside the float one: where does it lose the signal?

onnxruntime computes Q/DQ pairs as ONNX defines them, in float32, with its graph optimizations off:
the arithmetic that explicit TensorRT keeps (rint, saturation at -128 and 127). Rounding of implicit
engines and DLA differs.

    SQNR = 10 log10(sum x² / sum (x - x')²) dB        cosine = sum x x' / (|x| |x'|)

over all samples, with x the float tensor and x' the one of the INT8 graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from artefacts.decibels import sqnr_db
from artefacts.errors import ArtefactError, DataError
from graphs.comparable import chosen_shapes
from graphs.identity import graph_hash
from graphs.qdq import QUANTIZE, parameters
from graphs.shapes import check
from graphs.view import GraphView
from quantization.measure.execution import load_onnxruntime
from quantization.prepare.prepare import prepare
from quantization.write.insert import METADATA_GRAPH

__all__ = ["TensorError", "simulate"]

Feeds = Mapping[str, NDArray[Any]]
Pair = tuple[float, float, float]  # scale, lowest and highest code
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True, kw_only=True)
class TensorError:
    """What INT8 does to one tensor.

    Attributes:
        tensor: its name in both graphs.
        op_type: operator that makes it.
        sqnr_db: against the float graph, with all errors that reach it; inf where equal.
        cosine: the same as an angle; 1 where equal.
        own_sqnr_db: error of its own Q/DQ pair on the float values alone; None where it has none.
        position: of its node in the graph, for plots.
    """

    tensor: str
    op_type: str
    sqnr_db: float
    cosine: float
    own_sqnr_db: float | None
    position: int


class _Sums:
    """Running sums of one tensor, in float64."""

    def __init__(self) -> None:
        self.signal = self.noise = self.other = self.product = self.own = 0.0

    def add(
        self, x: NDArray[Any], y: NDArray[Any], pair: tuple[float, float, float] | None
    ) -> None:
        exact, found = x.astype(np.float64).ravel(), y.astype(np.float64).ravel()
        self.signal += float(exact @ exact)
        self.other += float(found @ found)
        self.product += float(exact @ found)
        self.noise += float(np.sum((exact - found) ** 2))
        if pair is not None:
            scale, low, high = pair
            rounded = np.clip(np.rint(exact / scale), low, high) * scale
            self.own += float(np.sum((exact - rounded) ** 2))


def simulate(
    reference: ModelProto, int8: ModelProto, samples: Iterable[Feeds]
) -> tuple[TensorError, ...]:
    """Error of every tensor that both graphs have, worst first.

    Args:
        reference: the float model that ``int8`` was made from; it is prepared where it is not.
        int8: the Q/DQ model.
        samples: feeds for both, e.g. {"input": (1, 3, 32, 32) float32}.

    Raises:
        ArtefactError: ``int8`` was made from another model.
        DataError: there are no samples.
        ModelError: a model is not valid, or onnxruntime cannot run it.
    """
    check(int8)
    reference = _matching(reference, int8)
    view, quantized = GraphView(reference), GraphView(int8)
    names = _common(view, quantized)
    pairs = {name: _pair(quantized, name) for name in names}
    made = [name for name in names if name not in view.inputs]
    run_float, run_int8 = (
        load_onnxruntime(model, outputs=made, optimize=False) for model in (reference, int8)
    )
    sums = {name: _Sums() for name in names}
    count = 0
    for feeds in samples:
        exact, found = {**feeds, **run_float(feeds)}, {**feeds, **run_int8(feeds)}
        for name in names:
            sums[name].add(exact[name], found[name], pairs[name])
        count += 1
    if not count:
        raise DataError("no samples to simulate on, expected at least one; check the data")
    errors = [_error(view, name, sums[name], pairs[name] is not None) for name in names]
    return tuple(sorted(errors, key=lambda error: (error.sqnr_db, error.position)))


def _matching(reference: ModelProto, int8: ModelProto) -> ModelProto:
    """The reference as it was when ``int8`` was made from it."""
    wanted = {entry.key: entry.value for entry in int8.metadata_props}.get(METADATA_GRAPH)
    if wanted is None or graph_hash(reference) == wanted:
        return reference
    prepared = prepare(reference)
    found = graph_hash(prepared)
    if found != wanted:
        raise ArtefactError(
            f"INT8 model was made from graph {wanted[:12]}, expected {found[:12]} of model "
            f"{reference.graph.name!r}; give the float model it was made from"
        )
    return prepared


def _common(view: GraphView, quantized: GraphView) -> list[str]:
    """Float tensors of one shape that a node makes in both graphs, in graph order."""
    chosen = chosen_shapes(view)
    made = {
        name
        for node in quantized.nodes
        for name in node.outputs
        if quantized.element_type(name) in _FLOATS and name not in chosen
    }
    names = [
        name
        for node in view.nodes
        for name in node.outputs
        if name in made and view.element_type(name) == TensorProto.FLOAT
    ]
    inputs = [name for name in view.inputs if _pair(quantized, name) is not None]
    return inputs + names


def _pair(view: GraphView, tensor: str) -> Pair | None:
    """Scale and limits of the symmetric per-tensor pair that reads a tensor."""
    for use in view.uses(tensor):
        if use.node.op_type != QUANTIZE:
            continue
        found = parameters(view, use.node)
        if found.scale is None or found.scale.size != 1 or found.zero_point is None:
            return None
        limits = np.iinfo(helper.tensor_dtype_to_np_dtype(found.data_type))
        zero = int(found.zero_point.flat[0])
        return float(found.scale.flat[0]), limits.min - zero, limits.max - zero
    return None


def _error(view: GraphView, name: str, sums: _Sums, has_pair: bool) -> TensorError:
    node = view.producer(name)
    length = math.sqrt(sums.signal * sums.other)
    return TensorError(
        tensor=name,
        op_type="input" if node is None else node.op_type,
        sqnr_db=sqnr_db(sums.signal, sums.noise),
        cosine=min(1.0, sums.product / length) if length else float(sums.signal == sums.other),
        own_sqnr_db=sqnr_db(sums.signal, sums.own) if has_pair else None,
        position=-1 if node is None else node.position,
    )
