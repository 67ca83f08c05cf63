"""The mixed precision of a recipe, made again without searching."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import engines
from artefacts.errors import ArtefactError, InputError
from artefacts.files import digest_of
from graphs.identity import graph_hash
from graphs.view import GraphView
from pipeline.calibration import Calibrated
from pipeline.improvement import Improver
from pipeline.job import Job
from pipeline.mixed_precision import MixedPrecision
from quantization.improve.improved import as_calibrated
from quantization.placement.fusion_groups import fusion_groups, leave_float
from quantization.search.recipe import Recipe

__all__ = ["follow", "with_recipe"]


def with_recipe(job: Job) -> tuple[Job, Recipe | None]:
    """The job as the recipe wants it.

    Raises:
        InputError: no such file, or a promise whose samples the recipe was fitted to.
        ArtefactError: not a recipe.
    """
    path = job.quantize.recipe
    if path is None:
        return job, None
    recipe = Recipe.load(path)
    if job.data.holds_out and not recipe.held_out:
        raise InputError(
            f"{job.quantize.asked} with --recipe {path}, which was fitted to all calibration "
            "samples, expected others to judge by; give --eval-data"
        )
    changed = dataclasses.replace(
        job,
        data=dataclasses.replace(job.data, holds_out=recipe.held_out),
        calibrate=dataclasses.replace(job.calibrate, method=recipe.calibrator),
        quantize=dataclasses.replace(
            job.quantize,
            exclude=recipe.exclude,
            improvement_samples=recipe.improvement_samples,
            weights=recipe.weights,
            unsigned=recipe.unsigned,
        ),
    )
    return changed, recipe


def follow(
    path: Path | None, recipe: Recipe, given: Calibrated, improver: Improver
) -> MixedPrecision:
    """The mixed precision of a recipe, without searching.

    Args:
        path: of the recipe, for messages.
        recipe: read from it.
        given: the calibrated network.
        improver: of it.

    Raises:
        ArtefactError: it is for another graph, other samples or another target.
    """
    recipe.check(graph_hash=graph_hash(given.model), samples_digest=digest_of(given.digests))
    placement = given.placement
    groups = {group.name: group for group in fusion_groups(GraphView(given.model), placement)}
    unknown = [n for n in (*recipe.released, *recipe.fitted_without) if n not in groups]
    if placement.profile != recipe.profile or unknown:
        raise ArtefactError(
            f"recipe {path} is placed for {recipe.profile} and leaves "
            f"{', '.join(unknown) or 'known groups'} in float, found profile "
            f"{placement.profile}, expected the same target and groups; choose "
            "that --target, or search again"
        )
    improved, fitted_to = as_calibrated(given.model, given.ranges), None
    # Fitted without the groups of the search's fit, which may be more than are left in float.
    if recipe.methods is not None:
        fitted = leave_float(placement, [groups[n] for n in recipe.fitted_without], why="")
        found = improver.improve(dataclasses.replace(given, placement=fitted), recipe.methods)
        if found is not None:
            improved = improver.measure_again(given, fitted, found.network)
            fitted_to = found.samples
    chosen = leave_float(
        placement, [groups[name] for name in recipe.released], why=f"recipe {path}"
    )
    improver.screen.add(f"recipe {path}: {len(recipe.released)} of {len(groups)} groups in float")
    return MixedPrecision(
        placement=chosen,
        improved=improved.leaving(chosen),
        calibrator=given.method,
        fitted_to=fitted_to,
        recipe=engines.RecipeRecord(released=recipe.released, found=dict(recipe.found)),
    )
