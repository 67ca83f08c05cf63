"""What is quantized where no promise and no recipe says: all that INT8 does not erase."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from artefacts.words import counted
from graphs.tensor_data import weight_bytes
from graphs.view import GraphView
from pipeline.calibration import Calibrated
from pipeline.improvement import Fitted, Improver
from pipeline.mixed_precision import MixedPrecision
from quantization.improve.improved import Improved, as_calibrated
from quantization.measure.execution import Arrays
from quantization.measure.own_error import own_sqnr_db
from quantization.measure.standardised import standardisation_behind
from quantization.placement.fusion_groups import fusion_groups, leave_float

__all__ = ["LEAST_OWN_DB", "all_that_survives"]

LEAST_OWN_DB = 15.0
"""A layer that its own rounding leaves less of is noise in INT8.

Of the networks at hand the worst layer keeps 16.7 dB as calibrated (YOLOX-nano; MobileNetV2 22.1,
MobileNetV1 32.4, the ResNets 33.3 and 37.3); of two inputs joined that are 1,000 times apart, 0.0.
"""
LEAST_STANDARDISED_DB = 20.0
"""The same of a layer whose channels are standardised behind it: all of them count alike there.

A DCT of pictures, 16.9 and 9.2 dB in two products, left 11.0 dB of a classifier (CSATv2, random
weights, cpu) and 27.5 in float.
"""
_SHOWN = 3
_ENOUGH_SAMPLES = 4
_LARGEST_BYTES = 1 << 30  # of a model that is run once more with its float weights beside INT8


def all_that_survives(given: Calibrated, improver: Improver) -> MixedPrecision:
    """The network improved; layers that are erased even so stay in float, and it is fitted again.

    Args:
        given: the calibrated network.
        improver: of it.
    """
    fitted = improver.improve(given)
    erased = _erased(given, fitted, improver)
    if erased:
        given = _leave(given, erased, improver)
        fitted = improver.improve(given)
    return MixedPrecision(
        placement=given.placement,
        improved=_network(given, fitted),
        calibrator=given.method,
        fitted_to=None if fitted is None else fitted.samples,
    )


def _leave(given: Calibrated, erased: dict[str, float], improver: Improver) -> Calibrated:
    """The network with some layers in float, and a line that says so."""
    groups = fusion_groups(GraphView(given.model), given.placement)
    lost = [group for group in groups if not erased.keys().isdisjoint(group.nodes)]
    limit = LEAST_OWN_DB if max(erased.values()) < LEAST_OWN_DB else LEAST_STANDARDISED_DB
    why = f"INT8 alone leaves less than {limit:g} dB of it: one scale for values too far apart"
    placement = leave_float(given.placement, lost, why=why, rule="erased")
    names = f"{', '.join(list(erased)[:_SHOWN])}{', …' if len(erased) > _SHOWN else ''}"
    improver.screen.add(
        f"left in float, because INT8 alone leaves {min(erased.values()):.1f} dB of it: "
        f"{counted(len(lost), 'layer')} ({names})"
    )
    return dataclasses.replace(given, placement=placement)


def _network(given: Calibrated, fitted: Fitted | None) -> Improved:
    return as_calibrated(given.model, given.ranges) if fitted is None else fitted.network


def _erased(given: Calibrated, fitted: Fitted | None, improver: Improver) -> dict[str, float]:
    """Name of each layer that INT8 erases → what it leaves, dB; nothing where that is all."""
    feeds = improver.feeds(given)[:_ENOUGH_SAMPLES] if improver.data.learns else []
    if not feeds or weight_bytes(given.model) > _LARGEST_BYTES:
        return {}
    # As calibrated first: a fit to what an erased layer hands on is that layer's fault.
    erased = _below(given, _network(given, None), given.placement.int8_nodes, feeds)
    if erased and fitted is not None:
        erased = _below(given, fitted.network, tuple(erased), feeds)
    if len(erased) < len(given.placement.int8_nodes):
        return erased
    improver.screen.warn(
        f"INT8 leaves less than {LEAST_OWN_DB:g} dB of each of {counted(len(erased), 'layer')}: "
        "values of very different size take one scale; normalise the model's inputs, or build it "
        "with --precision fp32"
    )
    return {}


def _below(
    given: Calibrated, network: Improved, layers: Sequence[str], feeds: Sequence[Arrays]
) -> dict[str, float]:
    # Given away: a large INT8 model is not held beside the session that is made of it.
    levels = own_sqnr_db(network.model, network.quantized(given.placement), layers, feeds)
    low = {name: level for name, level in levels.items() if level < LEAST_STANDARDISED_DB}
    view = GraphView(given.model)
    standardised = {
        node.name for node in view.nodes if node.name in low and standardisation_behind(view, node)
    }
    return {n: level for n, level in low.items() if level < LEAST_OWN_DB or n in standardised}
