"""The engine that a build replaces: said, and refused where it is another model's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

import engines
from artefacts.errors import EngineError, InputError
from calibrators.samples.samples import declared_specs
from engines.manifest import Manifest
from pipeline.paths import Paths

__all__ = ["refuse_another", "what_is_replaced"]


def what_is_replaced(paths: Paths) -> list[str]:
    """A line on the engine that lies there; none where there is no engine, or no manifest of it."""
    there = _there(paths.engine)
    if there is None:
        return []
    source = Path(str(there.onnx.get("name"))).name
    return [f"replaces {paths.engine}: {there.precision} of {source}, {there.created}"]


def refuse_another(paths: Paths, model: onnx.ModelProto) -> None:
    """Refuse to replace an engine whose inputs or outputs are others, unless that is wanted.

    The same network with other weights, precision or batch is no other model.

    Raises:
        InputError: the engine that lies there is another model's.
    """
    there = _there(paths.engine)
    if there is None or paths.force:
        return
    inputs = {spec.name: tuple(spec.shape) for spec in declared_specs(model)}
    found = {spec.name: spec.shape for spec in there.inputs}
    outputs, made = {o.name for o in model.graph.output}, {spec.name for spec in there.outputs}
    alike = inputs.keys() == found.keys() and outputs == made
    if alike and all(_fit(found[name], shape) for name, shape in inputs.items()):
        return
    raise InputError(
        f"--engine {paths.engine} is the engine of another model, with inputs {_said(found)} and "
        f"outputs {', '.join(sorted(made))}, expected {_said(inputs)} and "
        f"{', '.join(sorted(outputs))} of {paths.onnx}; give another name, or --force to replace it"
    )


def _there(engine: Path) -> Manifest | None:
    try:
        return engines.read_manifest(engine) if engine.is_file() else None
    except EngineError:  # damaged, or of no build of ours: nothing that could be told of it
        return None


def _fit(one: tuple[int | str | None, ...], other: tuple[int | str | None, ...]) -> bool:
    """Whether two shapes have the same axes behind the batch; free ones fit all."""
    sizes = zip(one[1:], other[1:], strict=False)
    return len(one) == len(other) and not any(
        a != b for a, b in sizes if isinstance(a, int) and isinstance(b, int) and min(a, b) > 0
    )


def _said(shapes: Mapping[str, tuple[int | str | None, ...]]) -> str:
    return ", ".join(
        f"{name} [{', '.join(str(size) for size in shape)}]" for name, shape in shapes.items()
    )
