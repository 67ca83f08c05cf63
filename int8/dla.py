"""The deep learning accelerators of a Jetson, as TensorRT counts them."""

from __future__ import annotations

from engines import has_module
from engines.tensorrt.library import tensorrt, tensorrt_log

__all__ = ["dla_cores"]


def dla_cores() -> str | None:
    """How many; None where TensorRT is not there to ask."""
    if not has_module("tensorrt"):
        return None
    trt = tensorrt("tensorrt")
    return str(trt.Builder(tensorrt_log(trt)).num_DLA_cores)
