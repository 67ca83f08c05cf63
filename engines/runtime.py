"""What is known of one runtime: each engine folder has a record of it, and nothing else knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from engines.built import BuiltEngine, Feeds, Report
from engines.engine import Runner
from engines.manifest import Manifest
from engines.options import BuildOptions

if TYPE_CHECKING:  # a service has no onnx
    import onnx

__all__ = ["Call", "Runtime"]

Call = Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]
"""A model that runs: input arrays in, outputs by name."""


def _fits(model: onnx.ModelProto) -> None:
    """A parser that takes every opset that ``onnx`` knows."""


def _takes_all(model: onnx.ModelProto, options: BuildOptions) -> None:
    """A library that says only while it builds what it lacks."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """One target of the builder.

    Attributes:
        library: the module that must be installed.
        placement: whose rules place Q/DQ pairs for its kernels.
        lacks_int8: operators that those rules would quantize and it has no INT8 kernel for.
        options: fields of ``BuildOptions`` that change what it builds, beside those that all have
            (precision, profiles, the least share of INT8).
        needs_profiles: whether dynamic shapes must be bounded when it builds.
        tf32: whether FP32 layers may run in TF32.
        build: compiles a file; given the model as it was read, options, who hears of the progress,
            and inputs to hold the engine against itself.
        load: runs bytes whose hash was checked; given the file's path, its manifest, the bytes,
            index of the device and CPU threads.
        check: refuses an engine, by path and manifest, that this machine's library or device of an
            index does not fit.
        ready: refuses a machine that lacks the library, or a device that building needs.
        check_model: refuses a model that its parser is too old for, or reads as another.
        check_operators: refuses a prepared model with operators that it does not have, given the
            options that it will be built with; where only building tells, it says nothing.
        linted: whether the rules of ``quantization.lint`` are those of its parser.
        takes_types: whether it computes in the types that the graph has, where it quantizes by
            Q/DQ; else it chooses them, or has one.
        one_float_type: whether it brings all of a graph to one floating-point type, and refuses
            layers that read two.
        compiled: a model compiled for this machine and never written; None where that needs a
            device that may not be here.
        resolve_isa: ``auto`` and the names of its INT8 arithmetics to the one to quantize for;
            None where all of its devices have one.
        triton: what serves its engines in Triton: ``python`` code, or its own backend's platform;
            None for nothing.
    """

    library: str
    placement: Literal["cpu", "tensorrt"]
    options: frozenset[str]
    build: Callable[[Path, onnx.ModelProto, BuildOptions, Report, Feeds], BuiltEngine]
    load: Callable[[Path, Manifest, bytes, int, int | None], Runner]
    check: Callable[[Path, Manifest, int], None]
    takes_types: Callable[[], bool]
    ready: Callable[[], None]
    lacks_int8: frozenset[str] = frozenset()
    needs_profiles: bool = True
    tf32: bool = True
    linted: bool = False
    one_float_type: bool = False
    check_model: Callable[[onnx.ModelProto], None] = field(default=_fits)
    check_operators: Callable[[onnx.ModelProto, BuildOptions], None] = field(default=_takes_all)
    compiled: Callable[[onnx.ModelProto, BuildOptions], Call] | None = None
    resolve_isa: Callable[[str], str] | None = None
    triton: Literal["python", "tensorrt_plan"] | None = None
