"""Write a placement and its ranges into a graph: Q/DQ pairs and INT8 weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import onnx
from onnx import helper

from artefacts.errors import ArtefactError, ModelError
from calibrators.ranges.ranges import Range, Ranges
from graphs.identity import graph_hash
from graphs.operators import PAIR_OPS
from graphs.opset import opset_of
from graphs.raising import MINIMUM_OPSET
from graphs.shapes import check
from graphs.walk import nodes
from quantization.placement import Placement
from quantization.write.editor import Editor
from quantization.write.weights import QuantizedTensor

__all__ = [
    "METADATA_GRAPH",
    "METADATA_PROFILE",
    "METADATA_RANGES",
    "QuantizedTensor",
    "insert_qdq",
    "unify_ranges",
]

METADATA_GRAPH = "int8.graph_hash"
METADATA_RANGES = "int8.ranges_digest"
METADATA_PROFILE = "int8.placement"


def unify_ranges(ranges: Ranges, placement: Placement) -> Ranges:
    """The same ranges with one range, the largest, for tensors that take one scale.

    What a Concat joins of branches that keep their own gets the largest of theirs, too.

    Raises:
        ArtefactError: a tensor of a group has no range.
    """
    for name, parts in placement.joined.items():
        if parts and name not in ranges.tensors:
            known = [placement.fixed[n] for n in parts if n in placement.fixed]
            known += [ranges[n].amax for n in parts if n in ranges.tensors]
            why = f"the largest of {len(parts)} tensors that it consists of"
            joined = Range(amax=max(known), method=ranges.method, why=why)
            ranges = ranges.replace({name: joined})
    for group in placement.shared:
        observed = [name for name in group if name not in placement.fixed]
        ranges = ranges.shared(observed, why=f"shares one scale with {len(group) - 1} others")
    return ranges


def spread_ranges(ranges: Ranges, placement: Placement) -> Ranges:
    """The same ranges with an entry for every placed tensor, as a calibration cache needs.

    A tensor that only passes values on (Reshape, MaxPool, ...) takes the range it was given; one
    whose range is known without data (Softmax) takes that.

    Raises:
        ArtefactError: an observed tensor has no range.
    """
    known = {
        name: Range(amax=amax, method="fixed", why="known without data")
        for name, amax in placement.fixed.items()
    }
    passed = {
        edge.tensor: known.get(edge.observed) or ranges[edge.observed]
        for edge in placement.activations
    }
    return ranges.replace({**passed, **known})


def insert_qdq(
    model: onnx.ModelProto,
    placement: Placement,
    ranges: Ranges,
    *,
    weights: Literal["int8", "float"] = "int8",
    weight_overrides: Mapping[str, QuantizedTensor] | None = None,
) -> onnx.ModelProto:
    """A new model whose placed edges go through QuantizeLinear and DequantizeLinear.

    Each quantized tensor has one pair, shared by its readers. Scales are float32 initializers,
    zero points are 0. The result carries the graph hash and the ranges digest in its metadata.

    Args:
        model: the model that was placed and calibrated.
        placement: from ``place(model)``.
        ranges: of the same graph.
        weights: ``int8`` stores weights as INT8 behind a DequantizeLinear (a quarter of the
            file); ``float`` keeps them, rounded to their codes, behind a Q/DQ pair for old parsers.
        weight_overrides: weights already quantized, by name of the constant.

    Raises:
        ModelError: the model has Q/DQ already, or is older than opset 13.
        ArtefactError: the ranges belong to another graph, or one is missing.
    """
    overrides = weight_overrides or {}
    _check_request(model, ranges)
    _check_overrides(placement, overrides)
    unified = unify_ranges(ranges, placement)
    unsigned = frozenset(placement.unsigned)
    editor = Editor(model)
    for edge in placement.activations:
        amax = placement.fixed.get(edge.observed)
        amax = unified[edge.observed].amax if amax is None else amax
        editor.quantize_activation(edge, amax, unsigned=edge.observed in unsigned)
    for weight in placement.weights:
        override = overrides.get(weight.tensor)
        editor.quantize_weight(weight, override, keep_float=weights == "float")
    result = editor.finish()
    check(result)
    helper.set_model_props(
        result,
        {
            **{entry.key: entry.value for entry in model.metadata_props},
            METADATA_GRAPH: ranges.graph_hash,
            METADATA_RANGES: ranges.digest,
            METADATA_PROFILE: placement.profile,
        },
    )
    return result


def _check_request(model: onnx.ModelProto, ranges: Ranges) -> None:
    present = sum(node.op_type in PAIR_OPS for node in nodes(model))
    if present:
        raise ModelError(
            f"model {model.graph.name!r} has {present} Q/DQ nodes, expected none; build it as it "
            f"is, or strip them first"
        )
    opset = opset_of(model)
    if opset < MINIMUM_OPSET:
        raise ModelError(
            f"model {model.graph.name!r} has opset {opset}, expected {MINIMUM_OPSET} or later; "
            f"prepare it first"
        )
    found = graph_hash(model)
    if found != ranges.graph_hash:
        raise ArtefactError(
            f"ranges belong to graph {ranges.graph_hash[:12]}, expected {found[:12]} of model "
            f"{model.graph.name!r}; calibrate this model again"
        )


def _check_overrides(placement: Placement, overrides: Mapping[str, QuantizedTensor]) -> None:
    unknown = sorted(set(overrides) - {weight.tensor for weight in placement.weights})
    if unknown:
        raise ModelError(
            f"quantized weight {unknown[0]} is no weight of this placement, expected one of its "
            f"{len(placement.weights)}; quantize the weights of this model"
        )
