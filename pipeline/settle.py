"""Parsed flags, or keywords, to a job: what they leave open is decided here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from artefacts.errors import InputError
from engines import BuildOptions, Profile
from pipeline.flag_values import Shapes
from pipeline.job import Build, Calibrate, Data, Job, Paths, Quantize, Show, Verify
from pipeline.promise import Promise
from quantization.improve.methods import EFFORTS

__all__ = ["settle_job"]

PROMISES = ("max_drop", "min_sqnr", "min_agreement")


def settle_job(given: dict[str, Any]) -> Job:
    """The job of parsed flags; what they leave open is decided here.

    Raises:
        InputError: flags that do not fit together.
    """
    _refuse_beside_recipe(given)
    promise = _promise(given)
    improve, not_improved, effort = given["improve"], "", "default"
    if improve in EFFORTS:
        effort, improve = improve, None
    elif improve is None and given["calibrator"]:
        # Who names a method wants to see that method, not ranges that were chosen again.
        improve = 0
        not_improved = (
            f"improvement off: --calibrator {given['calibrator']} is named; "
            f"--improve {effort} switches it on"
        )
    return Job(
        paths=Paths(onnx=given["onnx"], engine=given["engine"], force=given["force"]),
        data=_data(given, promise),
        calibrate=Calibrate(
            method=given["calibrator"] or "mse",
            statistics=given["statistics"],
            cache=given["calib_cache"],
            cache_version=given["cache_version"],
            workers=given["workers"],
        ),
        quantize=Quantize(
            exclude=tuple(given["exclude"]),
            improvement_samples=improve,
            effort=effort,
            not_improved=not_improved,
            weights=given["weights"],
            attention=given["attention"],
            unsigned=given["cpu_unsigned"],
            isa=given["cpu_isa"],
            simulate_target=given["simulate_target"],
            promise=promise,
            search_time_s=given["search_time"],
            recipe=given["recipe"],
        ),
        build=_build(given),
        verify=Verify(
            allow_runtime_gap=given["allow_runtime_gap"],
            sign=given["sign"],
            save_outputs=given["save_outputs"],
        ),
        stop_after=given["stop_after"],
        show=Show(
            verbose=given["verbose"],
            quiet=given["quiet"],
            json=given["json"],
            dry_run=given["dry_run"],
        ),
    )


def _refuse_beside_recipe(given: dict[str, Any]) -> None:
    for name in ("calibrator", "improve", "exclude", "search_time"):
        if given["recipe"] is not None and given[name]:
            raise InputError(
                f"--recipe with {flag_of(name)}, expected the recipe alone to say that; drop "
                "one of the two"
            )


def flag_of(name: str) -> str:
    """``max_drop`` → ``--max-drop``."""
    return f"--{name.replace('_', '-')}"


def _promise(given: dict[str, Any]) -> Promise | None:
    flags = [flag_of(name) for name in PROMISES if given[name] is not None]
    if len(flags) > 1:
        raise InputError(f"{' and '.join(flags)}, expected one promise; drop the others")
    if given["max_drop"] is not None:
        return Promise(kind="drop", minimum=-given["max_drop"])
    if given["min_sqnr"] is not None:
        return Promise(kind="sqnr", minimum=given["min_sqnr"])
    if given["min_agreement"] is not None:
        return Promise(kind="agreement", minimum=100.0 * given["min_agreement"])
    return None


def _data(given: dict[str, Any], promise: Promise | None) -> Data:
    return Data(
        calib_data=given["calib_data"],
        preprocess=given["preprocess"],
        calib_num=given["calib_num"],
        batch=given["calib_batch"],
        random_calibration=given["random_calibration"],
        shard=given["shard"],
        eval_data=given["eval_data"],
        task=given["task"],
        labelled=promise is None or promise.kind == "drop",
        holds_out=promise is not None and given["eval_data"] is None,
        batch_axis=given["batch_axis"],
        whole_samples=given["whole_samples"],
        searched=promise is not None or given["recipe"] is not None,
    )


def _build(given: dict[str, Any]) -> Build:
    return Build(
        options=BuildOptions(
            target=given["target"],
            precision=given["precision"],
            profiles=_profiles(given["minShapes"], given["optShapes"], given["maxShapes"]),
            workspace_mib=given["workspace"],
            memory_pools_mib=given["mem_pool_size"],
            timing_cache=given["timing_cache"],
            optimization_level=given["optimization_level"],
            tf32=not given["no_tf32"],
            compute_capabilities=given["compute_capability"],
            dla_core=given["dla_core"],
            allow_gpu_fallback=given["allow_gpu_fallback"],
            hardware_compatibility=given["hardware_compatibility"],
            version_compatible=given["version_compatible"],
            tactic_sources=given["tactic_sources"],
            preview_features=given["preview"],
            threads=given["threads"],
            require_int8=given["require_int8"],
            calibration_cache=given["calib"],
        ),
        implicit=given["implicit"] or given["calib"] is not None,
        float_part=given["float_part"],
    )


def _profiles(*given: Sequence[Shapes]) -> tuple[Profile, ...]:
    """What the flags bound; one that is not given is as another."""
    # A profile is one entry of each flag, by position; one flag may be left out altogether.
    counts = [len(shapes) for shapes in given]
    if len({count for count in counts if count}) > 1:
        raise InputError(
            f"--minShapes, --optShapes and --maxShapes are given {counts[0]}, {counts[1]} and "
            f"{counts[2]} times, expected equally often: once for each profile; add what is missing"
        )
    lowest, usual, highest = given
    columns = [shapes or usual or highest or lowest for shapes in given]
    return tuple(Profile(min=a, opt=b, max=c) for a, b, c in zip(*columns, strict=True))
