"""The values that INT8 can hold of one activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantization.arithmetic import activation_scale

__all__ = ["Grid"]

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The values that INT8 can hold: ``centre + scale * q``, q = -128 ... 127.

    Attributes:
        amax: the range on each side of the centre; scale = amax / 127.
        centre: 0 but for tensors that the graph moves (quantization.improve.centring).
        unsigned: q = 0 ... 255 and scale = amax / 255, for tensors that are never negative.
    """

    amax: float
    centre: float = 0.0
    unsigned: bool = False

    def __call__(self, x: Array) -> Array:
        """Q and DQ of an activation as ONNX and TensorRT compute it."""
        scale, centre = activation_scale(self.amax, unsigned=self.unsigned), np.float32(self.centre)
        codes = np.asarray(x, np.float32) - centre
        codes /= scale
        np.rint(codes, out=codes)
        np.clip(codes, *((0, 255) if self.unsigned else (-128, 127)), out=codes)
        codes *= scale
        codes += centre
        return codes.astype(x.dtype, copy=False)
