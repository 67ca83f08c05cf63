"""What a manifest keeps of a build's flags, and the flags that build such an engine again."""

from __future__ import annotations

from typing import Any

from engines import Manifest, runtime_of
from pipeline.job import Job

__all__ = ["flags_of", "settings_of"]

# Fields of ``BuildOptions`` as the manifest has them → names of the flags.
_OPTIONS = {
    "workspace_mib": "workspace",
    "memory_pools_mib": "mem_pool_size",
    "optimization_level": "optimization_level",
    "compute_capabilities": "compute_capability",
    "dla_core": "dla_core",
    "allow_gpu_fallback": "allow_gpu_fallback",
    "hardware_compatibility": "hardware_compatibility",
    "version_compatible": "version_compatible",
    "tactic_sources": "tactic_sources",
    "preview_features": "preview",
    "threads": "threads",
}
# Only these are taken from a manifest: it is untrusted, and other flags name files to write.
_KEPT = (
    "calibrator",
    "improve",
    "exclude",
    "attention",
    "weights",
    "cpu_unsigned",
    "cpu_isa",
    "simulate_target",
    "float_part",
    "calib_batch",
    "batch_axis",
    "whole_samples",
    "require_int8",
)
_USERS, _SEARCHED = "excluded", "search"  # rules of layers that were left in float


def settings_of(job: Job) -> dict[str, Any]:
    """Flags that decided on the INT8 of an engine; its options and spec are in the manifest."""
    asked = job.quantize
    return {
        "calibrator": job.calibrate.method,
        "improve": asked.effort if asked.improvement_samples is None else asked.improvement_samples,
        "exclude": list(asked.exclude),
        "attention": asked.attention,
        "weights": asked.weights,
        "cpu_unsigned": asked.unsigned,
        "cpu_isa": asked.isa,
        "simulate_target": asked.simulate_target,
        "float_part": job.build.float_part,
        "calib_batch": job.data.batch,
        "batch_axis": dict(job.data.batch_axis),
        "whole_samples": job.data.whole_samples,
        "require_int8": job.build.options.require_int8,
        "random_calibration": job.data.random_calibration,
    }


def flags_of(manifest: Manifest) -> dict[str, Any]:
    """Keywords of ``build`` that make the same engine again, of samples that are given with them.

    Layers that a search or a recipe left in float are named: nothing is searched for again. An
    engine of a release that kept no settings is described by the rest of its manifest.
    """
    passport, placement = manifest.passport, manifest.passport.placement
    stored = passport.settings
    flags = {} if stored is None else {name: stored[name] for name in _KEPT if name in stored}
    rules = (_SEARCHED,) if "exclude" in flags else (_SEARCHED, _USERS)
    floating = () if placement is None else placement.floating
    left = [layer.node for layer in floating if layer.rule in rules]
    flags["exclude"] = [*flags.get("exclude", ()), *left]
    flags.setdefault("improve", passport.improvement_samples or 0)
    if stored is None and placement is not None:
        own = runtime_of(manifest.target).placement
        flags["simulate_target"] = None if placement.profile == own else placement.profile
    if passport.calibrator is not None:
        flags["calibrator"] = passport.calibrator
    options = {flag: manifest.options.get(name) for name, flag in _OPTIONS.items()}
    flags |= {flag: value for flag, value in options.items() if value}
    flags["no_tf32"] = manifest.options.get("tf32") is False
    # 0 is a core, too.
    flags |= {"dla_core": core} if (core := manifest.options.get("dla_core")) is not None else {}
    for end in ("min", "opt", "max"):
        flags[f"{end}Shapes"] = [dict(getattr(profile, end)) for profile in manifest.profiles]
    return {**flags, "target": manifest.target, "preprocess": passport.preprocess}
