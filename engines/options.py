"""How an engine is to be built: one frozen record, checked before any work starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from artefacts.errors import InputError
from engines.environment import has_gpu, has_module
from engines.tensors import Profile

__all__ = ["BuildOptions", "Precision", "Target", "resolve_target"]

Target = Literal["auto", "cpu", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "fp16", "int8"]
HARDWARE = ("ampere+", "same-compute-capability")


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What ``build`` needs to know beyond the model. ``None`` leaves a thing to the library.

    Attributes:
        target: the runtime that the engine is for; ``auto`` is settled by ``resolve_target``.
        precision: of the layers that are quantized or cast; what really runs is in the manifest.
            None is what the model says: int8 with Q/DQ pairs or a calibration, fp16 with float16
            tensors, else fp32.
        profiles: ranges of shapes; TensorRT needs one where an input is dynamic.
        workspace_mib: scratch memory of the builder, in MiB.
        memory_pools_mib: other pools by trtexec's or TensorRT's name, ``{"dlaSRAM": 0.5}``.
        timing_cache: read if it is there, and written back (TensorRT).
        optimization_level: 0 (quick build) to 5 (long search).
        tf32: whether FP32 layers may use TF32 tensor cores. On by default, as in TensorRT and
            trtexec: it is the faster FP32 baseline, so INT8 is not flattered. Always set, never
            left to the library, and in the manifest; None for a runtime without.
        compute_capabilities: e.g. ``("8.6", "8.9")``, TensorRT-RTX only.
        float_part: type of the layers that are not INT8 where the builder chooses types (TensorRT
            8, and implicit quantization); elsewhere the graph says it. By default fp16.
        dla_core: index of the deep learning accelerator of a Jetson.
        allow_gpu_fallback: let the GPU run the layers that the DLA cannot.
        hardware_compatibility: ``ampere+`` or ``same-compute-capability``.
        version_compatible: the plan also runs on newer TensorRT releases.
        tactic_sources: ``("+CUBLAS", "-CUDNN")``, as trtexec spells it.
        preview_features: the same for ``PreviewFeature``.
        threads: of the CPU; the engine remembers it, ``load`` may override it.
        calibrator: a TensorRT calibrator, for implicit quantization (TensorRT up to 10.16).
        calibration_shapes: of the batches that ``calibrator`` feeds, where inputs are dynamic;
            TensorRT calibrates with exactly these.
        calibration_cache: TensorRT's cache file, instead of a calibrator.
        require_int8: smallest share of multiply-accumulates that must run in INT8, 0 to 1.
    """

    target: Target = "auto"
    precision: Precision | None = None
    profiles: tuple[Profile, ...] = ()
    workspace_mib: int | None = None
    memory_pools_mib: Mapping[str, float] = field(default_factory=dict)
    timing_cache: Path | None = None
    optimization_level: int | None = None
    tf32: bool | None = True
    compute_capabilities: tuple[str, ...] = ()
    float_part: Literal["fp32", "fp16"] | None = None
    dla_core: int | None = None
    allow_gpu_fallback: bool = False
    hardware_compatibility: str | None = None
    version_compatible: bool = False
    tactic_sources: tuple[str, ...] = ()
    preview_features: tuple[str, ...] = ()
    threads: int | None = None
    calibrator: Any = None
    calibration_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    calibration_cache: Path | None = None
    require_int8: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no library could make sense of, naming the field."""
        _check_member("target", self.target, get_args(Target))
        if self.precision is not None:
            _check_member("precision", self.precision, get_args(Precision))
        if self.hardware_compatibility is not None:
            _check_member("hardware_compatibility", self.hardware_compatibility, HARDWARE)
        _check_between("workspace_mib", self.workspace_mib, 1, 1 << 30)
        _check_between("optimization_level", self.optimization_level, 0, 5)
        _check_between("dla_core", self.dla_core, 0, 15)
        _check_between("threads", self.threads, 1, 4096)
        _check_between("require_int8", self.require_int8, 0, 1)
        for name, size in self.memory_pools_mib.items():
            _check_between(f"memory_pools_mib[{name}]", size, 0, 1 << 30)
        for name in ("tactic_sources", "preview_features"):
            for switch in getattr(self, name):
                if switch[:1] not in ("+", "-") or not switch[1:]:
                    raise InputError(
                        f"{name} has {switch!r}, expected + or - and a name, e.g. +CUBLAS; add it"
                    )
        for capability in self.compute_capabilities:
            major, _, minor = capability.partition(".")
            if not (major.isdigit() and minor.isdigit()):
                raise InputError(
                    f"compute capability {capability!r} is not a number pair, expected e.g. 8.6; "
                    "correct it"
                )
        if self.calibrator is not None and self.calibration_cache is not None:
            raise InputError(
                "both a calibrator and a calibration cache are given, expected one source of "
                "ranges; drop one of them"
            )
        if self.implicit and self.precision not in (None, "int8"):
            raise InputError(
                f"precision is {self.precision} with a calibrator or calibration cache, expected "
                "int8; drop the calibration or choose int8"
            )

    @property
    def implicit(self) -> bool:
        """Whether TensorRT itself is to quantize, from a calibrator or a cache."""
        return self.calibrator is not None or self.calibration_cache is not None

    @property
    def half(self) -> bool:
        """Whether a builder that chooses types may take float16; a DLA knows INT8 and it only."""
        if self.precision == "int8":
            return self.float_part != "fp32" or self.dla_core is not None
        return self.precision == "fp16" or self.dla_core is not None

    def to_json(self) -> dict[str, Any]:
        """For the manifest: everything that changes the engine; paths and objects by what they are.

        Profiles are left out: the manifest has them by themselves.
        """
        return {
            "workspace_mib": self.workspace_mib,
            "memory_pools_mib": dict(self.memory_pools_mib),
            "optimization_level": self.optimization_level,
            "tf32": self.tf32,
            "compute_capabilities": list(self.compute_capabilities),
            "float_part": self.float_part,
            "dla_core": self.dla_core,
            "allow_gpu_fallback": self.allow_gpu_fallback,
            "hardware_compatibility": self.hardware_compatibility,
            "version_compatible": self.version_compatible,
            "tactic_sources": list(self.tactic_sources),
            "preview_features": list(self.preview_features),
            "threads": self.threads,
            "quantization": "implicit" if self.implicit else "explicit",
        }


def resolve_target(target: str) -> str:
    """``auto`` becomes ``tensorrt`` where the library and a GPU are there, else ``cpu``.

    Raises:
        InputError: no such target.
    """
    _check_member("target", target, get_args(Target))
    if target != "auto":
        return target
    return "tensorrt" if has_module("tensorrt") and has_gpu() else "cpu"


def _check_member(name: str, found: object, expected: tuple[str, ...]) -> None:
    if found not in expected:
        raise InputError(f"{name} is {found!r}, expected one of {', '.join(expected)}; choose one")


def _check_between(name: str, found: float | None, low: float, high: float) -> None:
    if found is not None and not low <= found <= high:
        raise InputError(f"{name} is {found}, expected {low} to {high}; correct it")
