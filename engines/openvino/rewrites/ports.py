"""What stands at an output of a network: who reads it, and whether it is a constant."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import Any

__all__ = [
    "LAYERS",
    "behind",
    "constant_at",
    "has_weight",
    "is_float",
    "put_behind",
    "rank_of",
    "readers",
]

LAYERS = ("Convolution", "GroupConvolution", "MatMul")
"""What has a weight, and a constant bias as an Add behind it."""


DEQUANTIZES = ("Convert", "Multiply", "Reshape", "Subtract", "Transpose")
MOVES = ("Reshape", "Squeeze", "Unsqueeze")
ENDS = ("Transpose", *MOVES)
"""What ends what a kernel takes in; shapes that are given back are taken out beforehand."""


def behind(op: Any, kinds: Container[str]) -> Any:
    """The operator of one of ``kinds`` whose kernel may compute ``op``, too; None if there is none.

    A kernel takes in what stands behind it, one operator after the other, as long as each reads
    constants beside.
    """
    op = _before_moves(op)
    while op.get_type_name() not in ENDS:
        if op.get_type_name() in kinds:
            return op
        variable = [
            port.get_node()
            for port in op.input_values()
            if constant_at(port) is None and port.get_node().get_type_name() != "Convert"
        ]
        if len(variable) != 1:
            return None
        op = _before_moves(variable[0])
    return None


def _before_moves(op: Any) -> Any:
    """What stands before Reshapes that end in the shape they began with; else ``op`` itself."""
    shape, before = op.output(0).get_partial_shape(), op
    while before.get_type_name() in MOVES:
        before = before.input_value(0).get_node()
        if before.output(0).get_partial_shape() == shape:
            return before
    return op


def is_float(operators: Iterable[Any]) -> bool:
    """Whether nothing of a network is INT8, its Q/DQ pairs fused."""
    return all(op.get_type_name() != "FakeQuantize" for op in operators)


def readers(port: Any) -> list[Any]:
    """The operators that read values of an output, not just its size."""
    found = [entry.get_node() for entry in port.get_target_inputs()]
    return [op for op in found if op.get_type_name() != "ShapeOf"]


def rank_of(port: Any) -> int:
    """Number of axes of an output; 0 where nobody knows."""
    rank = port.get_partial_shape().rank
    return int(rank.get_length()) if rank.is_static else 0


def constant_at(port: Any) -> Any:
    """The constant that an output is, or the Reshape of, as ONNX's biases are; None for others."""
    op = port.get_node()
    while op.get_type_name() == "Reshape":
        op = op.input_value(0).get_node()
    return op if op.get_type_name() == "Constant" else None


def has_weight(product: Any) -> bool:
    """Whether what a MatMul reads second is a constant, or codes that are made numbers."""
    op = product.input_value(1).get_node()
    while op.get_type_name() in DEQUANTIZES:
        op = op.input_value(0).get_node()
    return bool(op.get_type_name() == "Constant")


def put_behind(output: Any, make: Callable[[Any], Any]) -> None:
    """Let all that reads ``output`` read the output that ``make`` makes of it, under its names."""
    entries, tensor = output.get_target_inputs(), output.get_tensor()
    made = make(output)
    for entry in entries:
        entry.replace_source_output(made)
    made.get_tensor().set_names(tensor.get_names())  # by which outputs are asked for
    tensor.set_names(set())
