"""Weights as INT8 codes and scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import ModelError
from graphs.view import GraphView
from quantization.arithmetic import channel_amax, quantize, symmetric_scale
from quantization.placement import QuantizedWeight
from quantization.write.bounded_weights import partners_of, quantize_bounded

__all__ = ["QuantizedTensor", "check_shape", "quantize_weight"]


@dataclass(frozen=True, kw_only=True)
class QuantizedTensor:
    """A weight already quantized, e.g. with learned rounding.

    Attributes:
        codes: int8 in [-127, 127], of the weight's shape.
        scale: float32; a number, or one per slice of the placement's axis.
    """

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.codes.dtype != np.int8 or (self.codes.size and self.codes.min() < -127):
            raise ModelError(
                f"a quantized weight is {self.codes.dtype} from {self.codes.min(initial=0)}, "
                f"expected int8 in [-127, 127]; clip it before"
            )
        if not (np.isfinite(self.scale) & (np.asarray(self.scale) > 0)).all():
            raise ModelError(
                "a quantized weight has a scale that is not finite and positive; give dead "
                "channels scale 1"
            )


def quantize_weight(view: GraphView, weight: QuantizedWeight) -> QuantizedTensor:
    """Codes and scale of a constant by its largest magnitude, per slice of the axis."""
    values = _constant_value(view, weight)
    if weight.bounded:
        codes, scale = quantize_bounded(values, weight.axis, partners_of(view, weight))
        return QuantizedTensor(codes=codes, scale=scale)
    if weight.axis is None:
        amax = max(values.max(initial=0.0), -values.min(initial=0.0))
    else:
        amax = channel_amax(values, weight.axis)
    scale = symmetric_scale(amax)
    codes = quantize(values, scale, axis=weight.axis).astype(np.int8)
    return QuantizedTensor(codes=codes, scale=scale)


def _constant_value(view: GraphView, weight: QuantizedWeight) -> NDArray[Any]:
    values = view.constant(weight.tensor)
    if values is None or not np.isfinite(values).all():
        found = "no constant of this model" if values is None else "not finite (NaN or infinity)"
        raise ModelError(
            f"weight {weight.tensor} of {weight.node} is {found}, expected finite numbers; export "
            f"the model again"
        )
    return values


def check_shape(view: GraphView, weight: QuantizedWeight, found: QuantizedTensor) -> None:
    """Check codes and scale against the constant and its placed axis.

    Raises:
        ModelError: a shape differs.
    """
    shape = view.shape(weight.tensor)
    scales = () if weight.axis is None or shape is None else (shape[weight.axis],)
    if found.codes.shape != shape or found.scale.shape != scales:
        raise ModelError(
            f"quantized weight {weight.tensor} has shape {found.codes.shape} and scale shape "
            f"{found.scale.shape}, expected {shape} and {scales}; quantize it for this model"
        )
