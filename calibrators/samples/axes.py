"""Which axis of each input counts samples: the one rule that all of the project goes by.

An axis is a batch where the outputs carry it and no sample's result depends on its neighbours.
:mod:`calibrators.samples.independence` finds that out by running the model; what it found travels
in the metadata of the prepared model and in the engine's passport. Without it, names and shapes
decide.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx

from artefacts.documents import parse_json
from artefacts.errors import DataError, ModelError
from artefacts.texts import shown
from calibrators.samples.samples import AS_DECLARED, InputSpec, declared_specs

__all__ = [
    "NOTE",
    "Axes",
    "SampleAxes",
    "check_axes",
    "declared_axes",
    "evaluation_batch",
    "fixed_batch",
    "has_batch_axis",
    "input_specs",
    "noted",
    "resolved",
    "say_axes",
    "with_axes",
]

NOTE = "sample_axes"
"""Key of the metadata of a model, and of an engine's passport."""

Axes = Mapping[str, int | None]


@dataclass(frozen=True, kw_only=True)
class SampleAxes:
    """What was found, or said by the user.

    Attributes:
        axes: input name → the axis along which samples lie; None where each sample brings the whole
            input.
        apart: whether every output has one row a sample along its axis 0.
        at_most_one: whether the model takes one sample, though its inputs leave the number free.
        why: how it is known, for people: "found by running".
    """

    axes: Axes
    apart: bool = True
    at_most_one: bool = False
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For the passport of an engine."""
        return {"axes": dict(self.axes), "apart": self.apart}

    def of(self, inputs: Sequence[InputSpec]) -> tuple[InputSpec, ...]:
        """The inputs with what was found.

        Raises:
            ModelError: it is not of these inputs.
        """
        for spec in inputs:
            axis = self.axes.get(spec.name)
            if axis is not None and not 0 <= axis < len(spec.shape):
                raise ModelError(
                    f"sample axis of input {spec} is {shown(axis)}, expected one below "
                    f"{len(spec.shape)}; build from the original model"
                )
        found = with_axes(inputs, self.axes)
        return tuple(replace(spec, apart=self.apart) for spec in found)

    def note(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of the model that carries it, its inputs fixed where it takes one sample only."""
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        kept = {entry.key: entry.value for entry in copy.metadata_props}
        kept[NOTE] = json.dumps(self.to_dict(), sort_keys=True)
        onnx.helper.set_model_props(copy, kept)
        for value in copy.graph.input if self.at_most_one else ():
            axis = self.axes.get(value.name)
            if axis is not None:
                value.type.tensor_type.shape.dim[axis].dim_value = 1
        return copy

    @classmethod
    def from_dict(cls, note: Any) -> SampleAxes:
        """Of a passport.

        Raises:
            ModelError: it is no such note.
        """
        axes = note.get("axes") if isinstance(note, Mapping) else None
        if not isinstance(axes, Mapping) or not all(
            axis is None or (isinstance(axis, int) and axis >= 0) for axis in axes.values()
        ):
            raise ModelError(
                f"note {NOTE} is {shown(note)}, expected the axes of the inputs; it is damaged: "
                "build from the original model"
            )
        return cls(axes=dict(axes), apart=bool(note.get("apart", True)))


def input_specs(model: onnx.ModelProto) -> tuple[InputSpec, ...]:
    """The inputs that a caller must feed, in graph order, with the axes that were found.

    Raises:
        ModelError: an input is not a tensor, has no shape or an unknown element type.
    """
    return noted(declared_specs(model), {e.key: e.value for e in model.metadata_props})


def noted(inputs: Sequence[InputSpec], metadata: Mapping[str, str]) -> tuple[InputSpec, ...]:
    """The inputs with the axes that a model's metadata tells, if it tells any.

    Raises:
        ModelError: what it tells is damaged.
    """
    if NOTE not in metadata:
        return tuple(inputs)
    try:
        note = parse_json(metadata[NOTE].encode())
    except ValueError as err:
        raise ModelError(
            f"metadata {NOTE} of the model is {shown(metadata[NOTE])}, expected JSON; delete that "
            "entry"
        ) from err
    return SampleAxes.from_dict(note).of(inputs)


def with_axes(inputs: Sequence[InputSpec], axes: Axes) -> tuple[InputSpec, ...]:
    """The inputs with these axes; None where ``axes`` says nothing."""
    return tuple(replace(spec, axis=axes.get(spec.name)) for spec in inputs)


def resolved(inputs: Sequence[InputSpec]) -> tuple[InputSpec, ...]:
    """The inputs with an axis or None each: as it was found, else as names and shapes say."""
    if all(spec.axis != AS_DECLARED for spec in inputs):
        return tuple(inputs)
    return with_axes(inputs, declared_axes(inputs))


def declared_axes(inputs: Sequence[InputSpec]) -> dict[str, int | None]:
    """What names and shapes say, each input of every sample whole where they say nothing.

    Example: ids [batch, seq] and mask [batch, seq] share axis 0; x [N, 4] and a state [2, N, 8]
    share N; points [P, 3] and boxes [B, 4] share nothing. Scalars are every sample's.
    """
    ranked = [spec for spec in inputs if any(dim != 1 for dim in spec.shape)]
    # All of them 1: a batch of one, where there is no other.
    ranked = ranked or [spec for spec in inputs if spec.shape]
    first = {spec.shape[0] for spec in ranked}
    named, numbers = first - {None}, [dim for dim in first if isinstance(dim, int)]
    alike = len(named) <= 1 and not (numbers and None in first)
    layers = len(ranked) < len(inputs) and any(number > 1 for number in numbers)
    axes: dict[str, int | None] = dict.fromkeys(spec.name for spec in inputs)
    if ranked and alike and not layers:
        return axes | {spec.name: 0 for spec in ranked}
    for name in (spec.shape[0] for spec in ranked):
        if isinstance(name, str) and all(name in spec.shape for spec in ranked):
            return axes | {spec.name: spec.shape.index(name) for spec in ranked}
    return axes


def has_batch_axis(inputs: Sequence[InputSpec]) -> bool:
    """Whether samples can be stacked along an axis of every input."""
    return bool(inputs) and all(spec.axis is not None for spec in resolved(inputs))


def fixed_batch(inputs: Sequence[InputSpec]) -> int | None:
    """The number of samples that the model insists on; None where it takes any, or none stack."""
    specs = resolved(inputs)
    sizes = {spec.shape[spec.axis] for spec in specs if spec.axis is not None}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) and has_batch_axis(specs) else None


def evaluation_batch(inputs: Sequence[InputSpec], wanted: int) -> int:
    """Samples to run at once where each must be judged by its own row of the outputs."""
    specs = resolved(inputs)
    return wanted if all(spec.axis == 0 and spec.apart for spec in specs) else 1


def say_axes(inputs: Sequence[InputSpec]) -> str:
    """For the screen: "batch axis 0 of 2 inputs"."""
    specs = resolved(inputs)
    axes = {spec.name: spec.axis for spec in specs if spec.axis is not None}
    if not axes:
        return "no batch axis: each is one sample, whole"
    if len(axes) == len(specs) and len(set(axes.values())) == 1:
        count = "the input" if len(specs) == 1 else f"{len(specs)} inputs"
        return f"batch axis {next(iter(axes.values()))} of {count}"
    return "batch axis " + ", ".join(f"{axis} of {name}" for name, axis in axes.items())


def check_axes(axes: Mapping[str, int], inputs: Sequence[InputSpec]) -> None:
    """Refuse axes that the model does not have.

    Raises:
        DataError: a name that is no input, or an axis beyond its rank.
    """
    known = {spec.name: spec for spec in inputs}
    for name, axis in axes.items():
        if name not in known:
            raise DataError(
                f"batch axis of {name} is given, expected one of the inputs {', '.join(known)}; "
                "correct --batch-axis"
            )
        if axis >= len(known[name].shape):
            raise DataError(
                f"batch axis {axis} of input {known[name]} is given, expected one below "
                f"{len(known[name].shape)}; correct --batch-axis"
            )
