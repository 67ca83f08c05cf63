"""The rules of each target, and the call that applies them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx

from artefacts.errors import InputError, ModelError
from graphs.bodies import bodies
from graphs.operators import CONTROL_OPS, WEIGHTED_OPS
from graphs.view import GraphView, Node
from quantization.placement import (
    edges,
    edges_attention,
    edges_cpu,
    edges_dla,
    keep_blocks,
    keep_general,
    keep_small,
    keep_spectra,
    shared,
)
from quantization.placement.apart import joined_tensors, unequal_joins
from quantization.placement.draft import Draft
from quantization.placement.exclude import excluded_nodes
from quantization.placement.keep_outputs import output_layers
from quantization.placement.result import ATTENTIONS, Attention, Placement, Profile
from quantization.placement.walk import may_be_unsigned

__all__ = ["PORTABLE", "PROFILES", "Rules", "place"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What one profile applies, in this order.

    Attributes:
        keep: asked of each weighted layer; the first that answers keeps it in floating point.
        place: run once each; they leave layers, quantize edges, share scales.
        own_ranges: each tensor has a range of its own, that of probabilities is 1. Else ranges are
            taken from above ops that keep them, and those of probabilities from samples: even
            attention to 256 positions, 0.004 each, would round to nothing in steps of 1/127.
    """

    keep: tuple[Callable[[Draft, Node], str | None], ...]
    place: tuple[Callable[[Draft], None], ...]
    own_ranges: bool = False


_GENERAL = (
    keep_general.excluded,
    keep_general.constant_layer,
    keep_general.unchanging_data,
    keep_general.masked_values,
    keep_general.not_float32,
    keep_general.computed_weights,
    keep_general.lacking_kernel,
    keep_blocks.float_attention,
    keep_spectra.log_spectrum,
)
_TENSORRT = Rules(
    keep=(
        *_GENERAL,
        keep_small.few_channels,
        keep_small.few_group_channels,
        keep_small.gemv,
        keep_small.small_matmul,
        keep_blocks.unfused_attention,
    ),
    place=(
        keep_general.other_products,
        keep_blocks.half_attention,
        keep_blocks.squeeze_excite,
        output_layers,
        edges.weighted_inputs,
        edges.residual_add,
        edges.pooling_chain,
        edges.average_pool,
        edges.resize,
        edges.layer_norm,
        edges_attention.sliced_attention,
        shared.concat,
        shared.linear_resize,
    ),
)
_CPU = Rules(
    keep=(
        *_GENERAL,
        keep_small.grouped_transposed,
        keep_small.vector_product,
        keep_small.outer_product,
    ),
    place=(
        keep_general.other_products,
        edges.weighted_inputs,
        edges_cpu.left_constants,
        edges_cpu.residual_add_both,
        edges.average_pool,
        edges.resize,
        shared.concat,
        shared.linear_resize,
        edges_cpu.before_pass_through,
    ),
)
_DLA = Rules(
    keep=_GENERAL,
    place=(
        keep_general.other_products,
        edges_dla.every_tensor,
        edges_dla.elementwise_inputs,
        edges_dla.equal_ranges,
    ),
    own_ranges=True,
)

PORTABLE = (keep_small.unbounded_product, keep_small.halved_weights)
"""What ``place(portable=True)`` keeps in floating point beside that."""
PROFILES: dict[Profile, Rules] = {"tensorrt": _TENSORRT, "cpu": _CPU, "dla": _DLA}


def place(
    model: onnx.ModelProto,
    *,
    profile: Profile = "tensorrt",
    exclude: Sequence[str] = (),
    unsigned: bool = False,
    portable: bool = False,
    lacking: Collection[str] = (),
    attention: Attention = "auto",
    amax: Mapping[str, float] | None = None,
) -> Placement:
    """Decide which tensors of a model become INT8.

    Args:
        model: a checked model of opset 13 or later without Q/DQ nodes.
        profile: whose rules: ``tensorrt``, ``cpu`` (OpenVINO) or ``dla`` (every tensor).
        exclude: node names, ``/regular expressions/`` or op types to keep in floating point.
        unsigned: cpu profile only: uint8 with zero point 0 for tensors that are never negative.
        portable: for any x86 CPU: weights are bounded so that none without VNNI saturates, and
            products without a weight to bound stay in floating point.
        lacking: operators that the runtime has no INT8 kernel for, e.g. ``ConvTranspose`` with
            TensorRT-RTX; they stay in floating point.
        attention: ``auto`` leaves it to the profile: TensorRT's quantizes an attention where one
            INT8 kernel computes it, the others all; ``int8`` does so everywhere, ``float`` nowhere.
        amax: ranges of the tensors of a first placement, if they are known: a Concat whose
            branches are too far apart for one scale leaves them scales of their own, but on DLA,
            and what reads a mask's values is left in floating point.

    Raises:
        ModelError: a pattern of ``exclude`` selects nothing, no layer can be quantized, or
            ``unsigned`` is asked for another profile than cpu.
        InputError: ``attention`` is none of the three.
    """
    if unsigned and profile != "cpu":
        raise ModelError(
            f"unsigned activations were asked for the {profile} profile, expected cpu: "
            f"TensorRT reads uint8 as int8; leave it out or choose --target cpu"
        )
    if attention not in ATTENTIONS:
        raise InputError(
            f"attention is {attention!r}, expected one of {', '.join(ATTENTIONS)}; choose one"
        )
    view, rules = GraphView(model), PROFILES[profile]
    excluded = excluded_nodes(view, exclude)

    def start(apart: frozenset[str]) -> Placement:
        draft = Draft(
            view,
            excluded,
            own_ranges=rules.own_ranges,
            apart=apart,
            lacking=frozenset(lacking),
            attention=attention,
            amax=amax,
        )
        return _placed(profile, draft, portable=portable)

    apart: frozenset[str] = frozenset()
    placement = start(apart)
    known = {**(amax or {}), **placement.fixed} if profile != "dla" else {}
    while known and (found := unequal_joins(view, placement, known, apart)):
        apart |= found
        placement = start(apart)
    if not placement.int8_nodes:
        raise ModelError(_nothing_to_quantize(view, placement))
    bounded = tuple(dataclasses.replace(w, bounded=portable) for w in placement.weights)
    return dataclasses.replace(
        placement,
        weights=bounded,
        unsigned=_unsigned(view, placement) if unsigned else (),
        joined=joined_tensors(view, placement, apart, known),
    )


def _placed(profile: Profile, draft: Draft, *, portable: bool) -> Placement:
    """What the rules of a profile make of a graph."""
    rules = PROFILES[profile]
    for node in tuple(draft.layers.values()):
        for rule in (*rules.keep, *(PORTABLE if portable else ())):
            if (why := rule(draft, node)) is not None:
                draft.leave(node, rule.__name__, why)
                break
    for step in rules.place:
        step(draft)
    return draft.finish(profile)


def _unsigned(view: GraphView, placement: Placement) -> tuple[str, ...]:
    """Tensors without negative values; of those that share a scale, all or none."""
    observed = {edge.observed for edge in placement.activations}
    found = {tensor for tensor in observed if may_be_unsigned(view, tensor)}
    for group in placement.shared:
        if not found.issuperset(group):
            found.difference_update(group)
    return tuple(sorted(found))


def _weighted_in_bodies(view: GraphView) -> int:
    inner = (GraphView(body) for _, body in bodies(view))
    return sum(node.op_type in WEIGHTED_OPS for body in inner for node in body.nodes)


def _nothing_to_quantize(view: GraphView, placement: Placement) -> str:
    remedy = "build it without INT8, or for another target"
    if all(layer.op_type in CONTROL_OPS for layer in placement.floating):
        ops = ", ".join(sorted({node.op_type for node in view.nodes})) or "no node at all"
        found = f"it has none of {', '.join(sorted(WEIGHTED_OPS))} (found: {ops})"
        if inside := _weighted_in_bodies(view):
            found += f"; {inside} are inside control flow, which is left alone"
            remedy = "export the branch that is used as a model of its own"
    else:
        listed = "; ".join(f"{f.node}: {f.why}" for f in placement.floating[:3])
        found = f"all {len(placement.floating)} weighted layers stay in floating point ({listed})"
    return (
        f"model {view.model.graph.name!r} has no layer to quantize: {found}, expected at least "
        f"one; {remedy}"
    )
