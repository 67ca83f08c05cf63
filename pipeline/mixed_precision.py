"""What is quantized in the end, and what the manifest says of how it came about."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import engines
import quantization
from artefacts.files import sha256_file
from graphs.identity import graph_hash
from pipeline.building import usual_shapes
from pipeline.calibration import Calibrated
from pipeline.job import Job, Paths
from pipeline.sample_axes import graph_passport
from pipeline.screen import Screen
from pipeline.settings import settings_of
from quantization.improve.improved import Improved

__all__ = ["MixedPrecision", "passport_of", "record", "say_placement"]

_SHOWN_REASONS = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class MixedPrecision:
    """What is quantized in the end.

    Attributes:
        placement: which layers.
        improved: the network, its ranges and weights.
        calibrator: method of the ranges that it began with.
        fitted_to: samples that it was improved on; None where it was not.
        obstacle: why no candidate keeps the promise; empty where one does.
        recipe: that it was made by, for the manifest.
        promise: that was searched for, for the manifest.
    """

    placement: quantization.Placement
    improved: Improved
    calibrator: str
    fitted_to: int | None = None
    obstacle: str = ""
    recipe: engines.RecipeRecord | None = None
    promise: engines.PromiseRecord | None = None


def record(paths: Paths, mixed: MixedPrecision) -> None:
    """Write the network that is quantized, and its ranges, beside the engine."""
    if mixed.fitted_to is None:
        return
    quantization.save_model(mixed.improved.model, paths.beside(".improved.onnx"))
    mixed.improved.ranges.save(paths.beside(".ranges.json"))


def passport_of(job: Job, given: Calibrated, mixed: MixedPrecision) -> engines.Passport:
    """What the manifest of the engine carries; its files are written."""
    paths, shapes = job.paths, usual_shapes(job.build, job.data, given.model)
    placement, model = mixed.placement, mixed.improved.model
    return replace(
        graph_passport(given.model),
        ranges_sha256=sha256_file(paths.beside(".ranges.json")),
        statistics_sha256=sha256_file(given.statistics),
        preprocess=given.ranges.preprocess,
        labels=given.labels,
        calibrator=mixed.calibrator,
        samples=len(given.digests),
        calibration_samples=given.digests,
        inputs=given.inputs,
        improved_graph_hash=None if mixed.fitted_to is None else graph_hash(model),
        improvement_samples=mixed.fitted_to,
        placement=engines.PlacementRecord(
            profile=placement.profile,
            int8_layers=placement.int8_nodes,
            int8_mac_share=placement.int8_mac_share(given.model, shapes),
            shapes=shapes,
            floating=tuple(engines.FloatLayer(**vars(layer)) for layer in placement.floating),
        ),
        recipe=mixed.recipe,
        promise=mixed.promise,
        settings=settings_of(job),
    )


def say_placement(
    placement: quantization.Placement, passport: engines.Passport, screen: Screen
) -> None:
    """Say how much becomes INT8, which layers stay in floating point and why."""
    share = 0.0 if passport.placement is None else passport.placement.int8_mac_share
    screen.add(
        f"{len(placement.int8_nodes)} layers read INT8 ({share:.1%} of multiply-accumulates), "
        f"{len(placement.floating)} stay in floating point",
    )
    reasons = Counter((layer.op_type, layer.rule, layer.why) for layer in placement.floating)
    for (op_type, rule, why), times in reasons.most_common(_SHOWN_REASONS):
        screen.add(f"  {times} {op_type}: {why} ({rule})")
    if len(reasons) > _SHOWN_REASONS:
        screen.add(f"  and {len(reasons) - _SHOWN_REASONS} more reasons; all are in the manifest")
