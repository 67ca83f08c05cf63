"""How much memory a walk takes, before there is one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TypeProto, helper

from graphs.nominal import nominal_types, shape_of
from graphs.view import GraphView, Node
from quantization.improve.walk.float_and_int8 import Decision, FloatAndInt8, LayerVisit, Values
from quantization.improve.walk.sample_arrays import SampleArrays
from quantization.measure.execution import Arrays, Load

__all__ = ["live_bytes"]

Array = NDArray[Any]


class _Sized(FloatAndInt8):
    """A walk that computes nothing: arrays of the sizes that inference finds, without memory."""

    def __init__(self, view: GraphView, sample: Arrays, types: Mapping[str, TypeProto]) -> None:
        super().__init__(view=view, load=_not_run, samples=[sample], correct=False)
        self._types = types

    def _both(
        self, node: Node, exact: Values, actual: Values, decision: Decision, spent: Collection[str]
    ) -> tuple[Values, Values]:
        types = {name: self._types[name] for name in node.outputs if name}
        made = {n: SampleArrays.shared([_of_type(each)]) for n, each in types.items()}
        return made, made


def live_bytes(view: GraphView, load: Load, sample: Arrays) -> int:
    """The most bytes of activations that are alive at once when one sample is walked.

    By the sizes that the sample's lead to, which takes no run; where one depends on values, the
    sample is walked.
    """
    told = {name: array.shape for name, array in sample.items()}
    types = nominal_types(view.model, view.inputs, told)
    outputs = [name for node in view.computed for name in node.outputs if name]
    if all(name in types and _is_known(types[name]) for name in outputs):
        both: FloatAndInt8 = _Sized(view, sample, types)
    else:
        both = FloatAndInt8(view=view, load=load, samples=[sample], correct=False)
    peak = 0

    def measure(visit: LayerVisit) -> Decision:
        nonlocal peak
        peak = max(peak, sum(arrays.size_bytes for arrays in both.exact.values()))
        return {}, {}

    both.walk(measure)
    return peak


def _is_known(info: TypeProto) -> bool:
    shape = shape_of(info)
    return info.tensor_type.elem_type > 0 and shape is not None and None not in shape


def _of_type(info: TypeProto) -> Array:
    dtype = helper.tensor_dtype_to_np_dtype(info.tensor_type.elem_type)
    sizes = [size or 0 for size in shape_of(info) or ()]
    return np.broadcast_to(np.zeros((), dtype), sizes)


def _not_run(model: object) -> Any:
    raise AssertionError("a walk over sizes runs nothing")
