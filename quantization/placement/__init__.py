"""Placement: which tensors become INT8, one small function per rule.

In: a prepared model. Out: a ``Placement`` that says which edges and weights get Q/DQ, which
tensors take one scale, and which layers stay in floating point and why.
May import: itself, graphs, artefacts; of prepare what folds constants; onnx, numpy.
"""

from quantization.placement.profiles import PROFILES, place
from quantization.placement.result import (
    ATTENTIONS,
    Attention,
    Floating,
    Placement,
    Profile,
    QuantizedInput,
    QuantizedWeight,
)

__all__ = [
    "ATTENTIONS",
    "PROFILES",
    "Attention",
    "Floating",
    "Placement",
    "Profile",
    "QuantizedInput",
    "QuantizedWeight",
    "place",
]
