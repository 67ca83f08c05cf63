"""FP32 ONNX + ranges → INT8 ONNX: arithmetic, preparation, placement, linter, search.

In: an ONNX model and ``*.ranges.json``. Out: ``*.prepared.onnx``, ``*.int8.onnx``, reports.
May import: itself, artefacts, graphs, calibrators.ranges, calibrators.cache; numpy, onnx.
"""

from __future__ import annotations

from quantization.fp16 import to_float16
from quantization.importer import Imported, import_quantized, quantized_format
from quantization.insert import insert_qdq, spread_ranges, unify_ranges
from quantization.lint import Finding, lint
from quantization.load import load_model, save_model
from quantization.placement import Placement, Profile, place
from quantization.prepare import prepare
from quantization.simulate import TensorError, simulate
from quantization.strip import Stripped, strip

__all__ = [
    "Finding",
    "Imported",
    "Placement",
    "Profile",
    "Stripped",
    "TensorError",
    "import_quantized",
    "insert_qdq",
    "lint",
    "load_model",
    "place",
    "prepare",
    "quantized_format",
    "save_model",
    "simulate",
    "spread_ranges",
    "strip",
    "to_float16",
    "unify_ranges",
]
