"""FP32 ONNX + ranges → INT8 ONNX: arithmetic, preparation, placement, linter, search.

In: an ONNX model and ``*.ranges.json``. Out: ``*.prepared.onnx``, ``*.int8.onnx``, reports.
May import: itself, artefacts, calibrators.ranges, calibrators.cache; numpy, onnx, graph tools.
"""

from __future__ import annotations

from quantization.fp16 import to_float16
from quantization.importer import import_quantized, quantized_format
from quantization.insert import insert_qdq, spread_ranges, unify_ranges
from quantization.load import load_model, save_model
from quantization.placement import Placement, Profile, place
from quantization.prepare import prepare

__all__ = [
    "Placement",
    "Profile",
    "import_quantized",
    "insert_qdq",
    "load_model",
    "place",
    "prepare",
    "quantized_format",
    "save_model",
    "spread_ranges",
    "to_float16",
    "unify_ranges",
]
