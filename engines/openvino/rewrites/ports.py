"""What stands at an output of a network: who reads it, and whether it is a constant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["LAYERS", "constant_at", "is_float", "readers"]

LAYERS = ("Convolution", "GroupConvolution", "MatMul")
"""What has a weight, and a constant bias as an Add behind it."""


def is_float(operators: Iterable[Any]) -> bool:
    """Whether nothing of a network is INT8, its Q/DQ pairs fused."""
    return all(op.get_type_name() != "FakeQuantize" for op in operators)


def readers(port: Any) -> list[Any]:
    """The operators that read values of an output, not just its size."""
    found = [entry.get_node() for entry in port.get_target_inputs()]
    return [op for op in found if op.get_type_name() != "ShapeOf"]


def constant_at(port: Any) -> Any:
    """The constant that an output is, or the Reshape of, as ONNX's biases are; None for others."""
    op = port.get_node()
    while op.get_type_name() == "Reshape":
        op = op.input_value(0).get_node()
    return op if op.get_type_name() == "Constant" else None
