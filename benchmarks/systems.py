"""A system under test: a callable with a name, and what the report says about its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from artefacts.errors import DataError
from artefacts.files import sha256_file
from benchmarks.report.document import AGAINST_GRAPH, LIKENESS, KernelReport, LayerReport
from calibrators.samples.axes import has_batch_axis, resolved
from calibrators.samples.data import InputSpec

__all__ = [
    "Arrays",
    "System",
    "against_graph",
    "check_same_inputs",
    "file_facts",
    "found_at_build",
    "likeness",
    "query_of",
    "unique_names",
]

Arrays = Mapping[str, npt.NDArray[np.generic]]
Call = Callable[[dict[str, npt.NDArray[np.generic]]], Arrays]
Times = Callable[[dict[str, npt.NDArray[np.generic]]], Mapping[str, float]]
Kernels = Callable[[dict[str, npt.NDArray[np.generic]]], Sequence[KernelReport]]


@dataclass(frozen=True, kw_only=True)
class System:
    """What the command measures.

    Attributes:
        name: unique in the report.
        path: of the engine or model.
        call: from input arrays to output arrays.
        inputs: name, dtype and shape of each input, as the engine tells them.
        exact: what accuracy is measured with; None for ``call``.
        target: who runs it, e.g. ``cpu``.
        precision: as the manifest says, else ``unknown``.
        settings: for the report, e.g. ``{"TF32": "allowed"}``.
        passport: what the engine's manifest says of model, data and preprocessing.
        layers: weighted layers, as the manifest says.
        clone: gives another callable on the same weights, for another thread; None for none.
        device_times: one query's ``h2d_ms compute_ms d2h_ms``; None without device events.
        layer_times: the kernels of one query with their times; None without a profiler.
        graphs: finds the float and the Q/DQ ONNX file behind the engine; None for none.
    """

    name: str
    path: Path
    call: Call
    inputs: tuple[InputSpec, ...]
    target: str
    precision: str
    settings: dict[str, str] = field(default_factory=dict)
    passport: Mapping[str, Any] = field(default_factory=dict)
    layers: tuple[LayerReport, ...] = ()
    clone: Callable[[], Call] | None = None
    device_times: Times | None = None
    layer_times: Kernels | None = None
    graphs: Callable[[], tuple[Path, Path] | None] | None = None
    exact: Call | None = None

    @property
    def free_batch(self) -> bool:
        """Whether the number of images per query may be chosen."""
        return has_batch_axis(self.inputs) and all(
            spec.axis == 0 and not isinstance(spec.shape[0], int) for spec in resolved(self.inputs)
        )


def against_graph(measured: Mapping[str, Any]) -> dict[str, str]:
    """The setting that says how an engine was found to differ from its graph when it was built.

    Args:
        measured: of its manifest.
    """
    check = measured.get("runtime", {})
    if not check.get("outputs"):
        why = check.get("unmeasured") or "its manifest says nothing"
        return {AGAINST_GRAPH: f"not measured: {why}"}
    worst = check["outputs"][0]
    if check["explained_by_rounding"]:
        return {AGAINST_GRAPH: f"{worst['sqnr_db']:.1f} dB, which rounding explains"}
    why = check["cause"] or "cause unknown"
    return {AGAINST_GRAPH: f"{worst['sqnr_db']:.1f} dB, more than rounding explains: {why}"}


def likeness(measured: Mapping[str, Any]) -> dict[str, str]:
    """The setting with the SQNR of an INT8 engine and its graph, as the build measured them.

    Args:
        measured: of its manifest.
    """
    found = measured.get("accuracy", {})
    levels = [found.get(name, {}).get("sqnr_db") for name in ("INT8 engine", "INT8 ONNX")]
    if None in levels:
        return {}
    return {LIKENESS: f"engine {levels[0]:.1f} dB, graph {levels[1]:.1f} dB"}


def found_at_build(measured: Mapping[str, Any]) -> dict[str, str]:
    """What the manifest says of engine and graph, against FP32 and against each other."""
    return likeness(measured) | against_graph(measured)


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Short names: the stem; the folder in front of it where two stems are equal.

    Args:
        paths: files in the order of the command line.
    """
    names = [path.name.removesuffix(".engine").removesuffix(".onnx") for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.parent.name}/{name}" for path, name in zip(paths, names, strict=True)]
    return [
        name if names.index(name) == index else f"{name} ({names[: index + 1].count(name)})"
        for index, name in enumerate(names)
    ]


def check_same_inputs(systems: Sequence[System]) -> None:
    """Refuse systems that cannot be fed with the same arrays.

    Raises:
        DataError: names or element types of the inputs differ.
    """
    first = {spec.name: spec.dtype for spec in systems[0].inputs}
    for system in systems[1:]:
        found = {spec.name: spec.dtype for spec in system.inputs}
        if found != first:
            raise DataError(
                f"{system.name} has the inputs {_listed(found)}, expected {_listed(first)} as "
                f"{systems[0].name}; compare engines of the same model"
            )


def _listed(inputs: Mapping[str, np.dtype[Any]]) -> str:
    return ", ".join(f"{name} {dtype}" for name, dtype in sorted(inputs.items()))


def query_of(
    call: Call, batches: Sequence[dict[str, npt.NDArray[np.generic]]]
) -> Callable[[], Arrays]:
    """A query for the harness: each call feeds the next of ``batches``, over and over.

    Real samples, several of them: values can change power and, with caches, speed.
    """
    feed = cycle(batches)
    return lambda: call(next(feed))


def file_facts(path: Path) -> dict[str, Any]:
    """Path, hash and size of a system's file."""
    return {"path": str(path), "sha256": sha256_file(path), "size_bytes": path.stat().st_size}
