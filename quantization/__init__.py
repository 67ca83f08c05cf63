"""FP32 ONNX + ranges → INT8 ONNX: arithmetic, preparation, placement, linter, search.

In: an ONNX model and ``*.ranges.json``. Out: ``*.prepared.onnx``, ``*.int8.onnx``, reports.
May import: itself, artefacts, graphs, calibrators.ranges, calibrators.tensorrt.cache; numpy, onnx.
"""

from __future__ import annotations

from graphs.files import load_model, save_model
from quantization.foreign.dynamic import from_dynamic, has_coded_weights_only, is_dynamic
from quantization.foreign.importer import Imported, import_quantized, quantized_format
from quantization.foreign.strip import Stripped, strip
from quantization.improve.improve import improve
from quantization.improve.improved import Improved
from quantization.improve.methods import Methods
from quantization.improve.trials import Trial
from quantization.lint.lint import Finding, lint
from quantization.measure.simulate import TensorError, simulate
from quantization.placement import Placement, Profile, place
from quantization.prepare.prepare import prepare
from quantization.write.fp16 import to_float16
from quantization.write.insert import insert_qdq, spread_ranges, unify_ranges

__all__ = [
    "Finding",
    "Imported",
    "Improved",
    "Methods",
    "Placement",
    "Profile",
    "Stripped",
    "TensorError",
    "Trial",
    "from_dynamic",
    "has_coded_weights_only",
    "import_quantized",
    "improve",
    "insert_qdq",
    "is_dynamic",
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
