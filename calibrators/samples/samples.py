"""What a sample is: named arrays with a batch axis of one, a name for messages, a label."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from artefacts.errors import DataError, ModelError
from calibrators.preprocessing.preprocess import Preprocess

__all__ = ["AS_DECLARED", "InputSpec", "Sample", "Samples", "declared_specs", "image_shape"]

AS_DECLARED = -1
"""Axis of an input whose samples were not looked for by running the model."""


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name: the graph input's name.
        dtype: element type, e.g. ``dtype('float32')``.
        shape: e.g. ``("N", 3, 224, 224)``; a string or None is a dynamic dimension.
        axis: along which samples lie; None where each sample brings the whole input.
        apart: whether every output of the model has one row a sample along its axis 0.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]
    axis: int | None = AS_DECLARED
    apart: bool = True

    def __str__(self) -> str:
        dims = ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{self.name} {self.dtype} [{dims}]"


def declared_specs(model: onnx.ModelProto) -> tuple[InputSpec, ...]:
    """The inputs that a caller must feed, in graph order, as the graph declares them.

    Raises:
        ModelError: an input is not a tensor, has no shape or an unknown element type.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    return tuple(_input_spec(entry) for entry in model.graph.input if entry.name not in constants)


_KINDS = {"O": "strings", "c": "complex numbers"}


def _input_spec(entry: onnx.ValueInfoProto) -> InputSpec:
    tensor = entry.type.tensor_type
    if not entry.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise ModelError(
            f"input {entry.name} of the model is not a tensor with a known rank, expected one; "
            "export the model again with tensor inputs"
        )
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except (KeyError, TypeError) as err:
        raise ModelError(
            f"input {entry.name} of the model has element type {tensor.elem_type}, expected one "
            "of ONNX's numeric types; export the model again"
        ) from err
    if dtype.kind not in "biufV":  # V: bfloat16 and its kind
        raise ModelError(
            f"input {entry.name} of the model holds {_KINDS.get(dtype.kind, dtype.name)}, expected "
            "numbers; compute them in front of the model and cut what reads them out of it"
        )
    shape = tuple(_dimension(dim) for dim in tensor.shape.dim)
    return InputSpec(name=entry.name, dtype=dtype, shape=shape)


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value") and dim.dim_value > 0:
        return int(dim.dim_value)
    # tf2onnx names each unknown dimension unk__<n>, no two alike, PaddlePaddle all of them ?: such
    # names say nothing.
    if dim.dim_param and dim.dim_param != "?" and not dim.dim_param.startswith("unk__"):
        return str(dim.dim_param)
    return None


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One sample, as the model is fed with it.

    Attributes:
        inputs: input name → array with a batch axis of one, e.g. (1, 3, 224, 224); the whole input
            where it has no batch axis.
        name: file name or index, for messages.
        label: class index, an array where a label is more than that, or None.
        size: (height, width) of the upright image before preprocessing; None for other data.
    """

    inputs: Mapping[str, NDArray[Any]]
    name: str
    label: int | NDArray[Any] | None = None
    size: tuple[int, int] | None = None

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of names, dtypes, shapes and bytes as fed to the model."""
        digest = hashlib.sha256()
        for name in sorted(self.inputs):
            array = np.ascontiguousarray(self.inputs[name])
            digest.update(repr((name, array.dtype.str, self.inputs[name].shape)).encode())
            digest.update(array.data if array.size else b"")
        return digest.hexdigest()


class Samples(Protocol):
    """A source of samples: iterating it twice gives the same samples in the same order.

    Attributes:
        path: where they come from, for messages and artefacts.
        preprocess: the spec that was applied, or None.
        unlabelled: why samples carry no labels; empty where they do.
        classes: class names by label, empty where unknown.
        unused: how much else lies in the folder, ``2 files and 1 folder``; empty for nothing.
    """

    @property
    def path(self) -> str: ...  # noqa: D102 - see the class
    @property
    def preprocess(self) -> Preprocess | None: ...  # noqa: D102 - see the class
    @property
    def unlabelled(self) -> str: ...  # noqa: D102 - see the class
    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102 - see the class
    @property
    def unused(self) -> str: ...  # noqa: D102 - see the class

    def __iter__(self) -> Iterator[Sample]: ...

    def __len__(self) -> int:
        """Number of samples; TypeError where only iterating tells."""
        ...

    def __getitem__(self, rows: slice) -> Samples:
        """The samples of a slice (``[start:stop:step]``, not negative), others never decoded."""
        ...


def check_slice(rows: slice) -> slice:
    """``rows`` with all parts filled in but ``stop``.

    Raises:
        DataError: a part is negative, or the step is zero.
    """
    start, step = rows.start or 0, 1 if rows.step is None else rows.step
    if start < 0 or step < 1 or (rows.stop is not None and rows.stop < 0):
        raise DataError(
            f"slice [{rows.start}:{rows.stop}:{rows.step}] of samples, expected start and stop "
            "of at least 0 and a step of at least 1; correct the shard"
        )
    return slice(start, rows.stop, step)


def image_shape(inputs: Sequence[InputSpec]) -> tuple[int | str | None, ...] | None:
    """Shape of the only input with four axes; None where none or several have them."""
    shapes = [spec.shape for spec in inputs if len(spec.shape) == 4]
    return shapes[0] if len(shapes) == 1 else None
