"""Options → a TensorRT builder configuration. Features are detected, versions never compared."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from artefacts.errors import InputError, ModelError, UnsupportedError
from engines.options import BuildOptions
from engines.tensorrt.library import enum_member, title
from engines.tensorrt.network import Typing
from engines.tensors import Profile, TensorSpec

__all__ = ["configure", "set_flags"]

logger = logging.getLogger(__name__)

MIB = 1 << 20
LEAST_DLA_POOL = 1 << 12
# trtexec's name → MemoryPoolType; both are taken.
POOLS = {
    "workspace": "WORKSPACE",
    "dlaSRAM": "DLA_MANAGED_SRAM",
    "dlaLocalDRAM": "DLA_LOCAL_DRAM",
    "dlaGlobalDRAM": "DLA_GLOBAL_DRAM",
    "tacticSharedMem": "TACTIC_SHARED_MEMORY",
}
HARDWARE = {"ampere+": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}


def configure(
    trt: Any, builder: Any, options: BuildOptions, typing: Typing, inputs: Sequence[TensorSpec]
) -> Any:
    """A builder configuration for these options.

    Raises:
        UnsupportedError: this release or device lacks what was asked for.
        ModelError: a dynamic input has no profile.
    """
    config = builder.create_builder_config()
    # The inspector can say which layers run INT8 only in engines that were built with it.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    set_flags(trt, config, options, typing)
    _set_pools(trt, config, options)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.hardware_compatibility is not None:
        config.hardware_compatibility_level = enum_member(
            trt.HardwareCompatibilityLevel,
            HARDWARE[options.hardware_compatibility],
            "hardware compatibility level",
        )
    _set_switches(trt, config, options)
    _set_devices(trt, builder, config, options)
    _add_profiles(builder, config, options, inputs)
    if options.calibration_shapes:
        _set_calibration_profile(builder, config, options, inputs)
    return config


def set_flags(trt: Any, config: Any, options: BuildOptions, typing: Typing) -> None:
    """Every flag that decides numbers is set or cleared, none is left to the library's default."""
    flags = trt.BuilderFlag
    _switch(config, flags.TF32, on=bool(options.tf32))
    if typing == "weak":
        if options.precision == "int8":
            config.set_flag(flags.INT8)
        if options.half:
            config.set_flag(flags.FP16)
        if options.dla_core is not None:  # as trtexec does
            config.set_flag(flags.PREFER_PRECISION_CONSTRAINTS)
    if options.dla_core is not None and not options.allow_gpu_fallback:
        config.set_flag(flags.DIRECT_IO)  # a reformat at the border would run on the GPU
    if options.version_compatible:
        config.set_flag(enum_member(flags, "VERSION_COMPATIBLE", "builder flag"))
    if options.allow_gpu_fallback:
        config.set_flag(flags.GPU_FALLBACK)


def _switch(config: Any, flag: Any, *, on: bool) -> None:
    if on:
        config.set_flag(flag)
    else:
        config.clear_flag(flag)


def _set_pools(trt: Any, config: Any, options: BuildOptions) -> None:
    pools: dict[str, float] = dict(options.memory_pools_mib)
    if options.workspace_mib is not None:
        pools["WORKSPACE"] = options.workspace_mib
    for name, size_mib in pools.items():
        pool = enum_member(trt.MemoryPoolType, POOLS.get(name, name), "memory pool")
        size = int(size_mib * MIB)  # as trtexec does: a part of a byte is dropped
        if pool.name.startswith("DLA_") and (size < LEAST_DLA_POOL or size & (size - 1)):
            raise InputError(
                f"memory pool {name} is {size_mib:g} MiB, expected a power of two of at least 4 "
                "KiB, such as 0.5 (a DLA takes no other size); correct it"
            )
        config.set_memory_pool_limit(pool, size)


def _set_switches(trt: Any, config: Any, options: BuildOptions) -> None:
    """Tactic sources and preview features, ``+NAME`` or ``-NAME`` as trtexec spells them."""
    if options.tactic_sources:
        mask = config.get_tactic_sources()
        for switch in options.tactic_sources:
            bit = 1 << int(enum_member(trt.TacticSource, switch[1:], "tactic source"))
            mask = mask | bit if switch[0] == "+" else mask & ~bit
        config.set_tactic_sources(mask)
    if hasattr(trt.PreviewFeature, "PROFILE_SHARING_0806"):
        # Several contexts on one profile (clones, CUDA graphs); later releases always do it.
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
    for switch in options.preview_features:
        feature = enum_member(trt.PreviewFeature, switch[1:], "preview feature")
        config.set_preview_feature(feature, switch[0] == "+")


def _set_devices(trt: Any, builder: Any, config: Any, options: BuildOptions) -> None:
    if options.dla_core is not None:
        if options.dla_core >= builder.num_DLA_cores:
            raise UnsupportedError(
                f"DLA core {options.dla_core} is not there, expected one below "
                f"{builder.num_DLA_cores} (the number this device and release have); drop "
                "--useDLACore or build on a Jetson whose TensorRT still drives its DLA"
            )
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
    if not options.compute_capabilities:
        return
    if not hasattr(trt, "ComputeCapability"):
        raise UnsupportedError(
            f"{title(trt)} builds for the GPU of this machine, found compute capabilities "
            f"{', '.join(options.compute_capabilities)}; drop them or use --target tensorrt-rtx"
        )
    config.num_compute_capabilities = len(options.compute_capabilities)
    for index, capability in enumerate(options.compute_capabilities):
        name = "SM" + capability.replace(".", "")
        member = enum_member(trt.ComputeCapability, name, "compute capability")
        config.set_compute_capability(member, index)


def _add_profiles(
    builder: Any, config: Any, options: BuildOptions, inputs: Sequence[TensorSpec]
) -> None:
    dynamic = [spec for spec in inputs if None in spec.shape]
    for profile in options.profiles:
        _check_profile(profile, inputs, dynamic)
        if options.dla_core is not None and not profile.min == profile.opt == profile.max:
            raise InputError(
                f"profile {profile.to_json()} is a range with DLA core {options.dla_core}, "
                "expected one shape (a DLA has no other; the GPU would run it all); give equal "
                "--minShapes, --optShapes and --maxShapes"
            )
        made = builder.create_optimization_profile()
        for name in profile.min:
            made.set_shape(name, profile.min[name], profile.opt[name], profile.max[name])
        if config.add_optimization_profile(made) < 0:
            raise InputError(
                f"profile {profile.to_json()} is refused by TensorRT, expected shapes that fit "
                "the model's inputs; correct them"
            )
    if dynamic and not options.profiles:
        raise ModelError(
            f"input {dynamic[0].name!r} has the dynamic shape {dynamic[0].shape} and there is no "
            "profile, expected a range of shapes; give --minShapes, --optShapes and --maxShapes"
        )


def _set_calibration_profile(
    builder: Any, config: Any, options: BuildOptions, inputs: Sequence[TensorSpec]
) -> None:
    """A profile of one shape: without it TensorRT calibrates at the optimum of the first."""
    shapes = dict(options.calibration_shapes)
    _check_profile(Profile(min=shapes, opt=shapes, max=shapes), inputs, ())
    made = builder.create_optimization_profile()
    for name, shape in shapes.items():
        made.set_shape(name, shape, shape, shape)
    config.set_calibration_profile(made)


def _check_profile(
    profile: Profile, inputs: Sequence[TensorSpec], dynamic: Sequence[TensorSpec]
) -> None:
    known = {spec.name: spec for spec in inputs}
    missing = [spec.name for spec in dynamic if spec.name not in profile.min]
    for name in profile.min:
        if name not in known:
            raise InputError(
                f"profile names input {name!r}, expected one of {sorted(known)}; correct it"
            )
        for shape in (profile.min[name], profile.opt[name], profile.max[name]):
            fits = len(shape) == len(known[name].shape) and all(
                want in (None, size) for size, want in zip(shape, known[name].shape, strict=True)
            )
            if not fits:
                raise InputError(
                    f"profile of input {name!r} has shape {shape}, expected one that fits "
                    f"{known[name].shape}; correct it"
                )
    if missing:
        raise InputError(
            f"profile lacks the dynamic input {missing[0]!r}, expected shapes for all of "
            f"{[spec.name for spec in dynamic]}; add it"
        )
