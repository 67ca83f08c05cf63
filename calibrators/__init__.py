"""Samples → statistics → ranges, and TensorRT's own calibrators and cache.

In: a prepared ONNX model and samples. Out: ``*.stats.npz``, ``*.ranges.json``, ``*.calib.cache``.
May import: itself, artefacts; numpy, onnx; onnxruntime in one file, tensorrt in one file.
"""

from __future__ import annotations

from calibrators.preprocessing.image_limits import UPLOADS, ImageLimits
from calibrators.preprocessing.images import decode_image, open_image
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.ranges.auto import choose_method, choose_per_tensor, hold_out
from calibrators.ranges.diagnostics import convergence, describe
from calibrators.ranges.methods import METHODS, compute_ranges
from calibrators.ranges.ranges import Range, Ranges
from calibrators.samples.axes import (
    SampleAxes,
    evaluation_batch,
    fixed_batch,
    has_batch_axis,
    resolved,
    say_axes,
)
from calibrators.samples.checks import check_unnormalised, refuse_overlap
from calibrators.samples.data import (
    Batch,
    InputSpec,
    Sample,
    Samples,
    batches,
    input_specs,
    open_samples,
    preprocess_named,
    random_samples,
    require_labels,
    shape_limits,
)
from calibrators.statistics.collector import Checkpoint
from calibrators.statistics.observe import observe
from calibrators.statistics.statistics import Statistics, TensorStatistics

__all__ = [
    "METHODS",
    "UPLOADS",
    "Batch",
    "Checkpoint",
    "ImageLimits",
    "InputSpec",
    "Preprocess",
    "Range",
    "Ranges",
    "Sample",
    "SampleAxes",
    "Samples",
    "Statistics",
    "TensorStatistics",
    "batches",
    "check_unnormalised",
    "choose_method",
    "choose_per_tensor",
    "compute_ranges",
    "convergence",
    "decode_image",
    "describe",
    "evaluation_batch",
    "fixed_batch",
    "has_batch_axis",
    "hold_out",
    "input_specs",
    "observe",
    "open_image",
    "open_samples",
    "preprocess_named",
    "random_samples",
    "refuse_overlap",
    "require_labels",
    "resolved",
    "say_axes",
    "shape_limits",
]
