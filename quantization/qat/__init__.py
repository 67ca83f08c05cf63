"""Quantization-aware training in PyTorch, with TensorRT's placement, ending in a Q/DQ ONNX model.

In: a float torch model, ranges. Out: a model that trains as its engine computes, and its ONNX.
May import: itself, prepare, placement, write, calibrators.ranges, graphs, artefacts; torch.
"""

from quantization.qat.training import (
    export_float,
    export_onnx,
    freeze_batchnorm,
    freeze_ranges,
    prepare,
)

__all__ = ["export_float", "export_onnx", "freeze_batchnorm", "freeze_ranges", "prepare"]
