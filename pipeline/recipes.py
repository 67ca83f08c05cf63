"""The mixture of a recipe, made again without searching."""

from __future__ import annotations

import dataclasses
from typing import Any

import onnx

import calibrators
import quantization
from artefacts.errors import ArtefactError, InputError
from graphs.identity import graph_hash
from graphs.view import GraphView
from pipeline.flags import Job
from pipeline.improvement import improve, measure_again, record
from pipeline.screen import Screen
from pipeline.search import Mixture
from quantization.improve.improve import Improved
from quantization.improve.methods import NOTHING
from quantization.placement.fusion_groups import fusion_groups, leave_float
from quantization.search.recipe import Recipe
from quantization.search.splits import digest_of

__all__ = ["follow", "with_recipe"]


def with_recipe(job: Job) -> tuple[Job, Recipe | None]:
    """The job as the recipe wants it.

    Raises:
        InputError: no such file, or a promise whose samples the recipe was fitted to.
        ArtefactError: not a recipe.
    """
    if job.recipe is None:
        return job, None
    recipe = Recipe.load(job.recipe)
    if job.holds_out and not recipe.held_out:
        raise InputError(
            f"{job.promise} with --recipe {job.recipe}, which was fitted to all calibration "
            "samples, expected others to judge by; give --eval-data"
        )
    changed = dataclasses.replace(
        job,
        calibrator=recipe.calibrator,
        exclude=recipe.exclude,
        improve=recipe.improvement_samples,
        weights=recipe.weights,
        cpu_unsigned=recipe.unsigned,
        holds_out=recipe.held_out,
    )
    return changed, recipe


def follow(
    job: Job,
    recipe: Recipe,
    prepared: onnx.ModelProto,
    placement: quantization.Placement,
    ranges: calibrators.Ranges,
    passport: dict[str, Any],
    screen: Screen,
) -> Mixture:
    """The mixture of a recipe, without searching.

    Raises:
        ArtefactError: it is for another graph, other samples or another target.
    """
    recipe.check(
        graph_hash=graph_hash(prepared),
        samples_digest=digest_of(passport["calibration_samples"]),
    )
    groups = {group.name: group for group in fusion_groups(GraphView(prepared), placement)}
    unknown = [n for n in (*recipe.released, *recipe.fitted_without) if n not in groups]
    if placement.profile != recipe.profile or unknown:
        raise ArtefactError(
            f"recipe {job.recipe} is placed for {recipe.profile} and releases "
            f"{', '.join(unknown) or 'known groups'}, found profile {placement.profile}, expected "
            "the same target and groups; choose that --target, or search again"
        )
    better = None
    if recipe.methods is not None:
        fitted = leave_float(placement, [groups[n] for n in recipe.fitted_without], why="")
        better = improve(job, prepared, fitted, ranges, passport, screen, methods=recipe.methods)
        if better is not None:
            better = measure_again(job, prepared, placement, fitted, better)
    improved = better or Improved(model=prepared, ranges=ranges, weights={}, methods=NOTHING)
    chosen = leave_float(
        placement, [groups[name] for name in recipe.released], why=f"recipe {job.recipe}"
    )
    screen.add(f"recipe {job.recipe}: {len(recipe.released)} of {len(groups)} groups in float")
    passport["recipe"] = {"released": list(recipe.released), "found": dict(recipe.found)}
    left = improved.leaving(chosen)
    if left.methods != NOTHING:
        record(job, left, passport)
    return Mixture(placement=chosen, improved=left)
