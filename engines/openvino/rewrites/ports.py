"""What stands at an output of a network: who reads it, and whether it is a constant."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

__all__ = ["LAYERS", "behind", "constant_at", "is_float", "readers"]

LAYERS = ("Convolution", "GroupConvolution", "MatMul")
"""What has a weight, and a constant bias as an Add behind it."""


MOVES = ("Reshape", "Squeeze", "Transpose", "Unsqueeze")  # these end what a kernel takes in


def behind(op: Any, kinds: Container[str]) -> Any:
    """The operator of one of ``kinds`` whose kernel may compute ``op``, too; None if there is none.

    A kernel takes in what stands behind it, one operator after the other, as long as each reads
    constants beside.
    """
    while op.get_type_name() not in MOVES:
        if op.get_type_name() in kinds:
            return op
        variable = [
            port.get_node()
            for port in op.input_values()
            if constant_at(port) is None and port.get_node().get_type_name() != "Convert"
        ]
        if len(variable) != 1:
            return None
        op = variable[0]
    return None


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
