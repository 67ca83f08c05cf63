"""Constants that a Concat joins with activations, in front of INT8.

OpenVINO 2026.4.1 moves a FakeQuantize up across a Concat. On a branch that is a constant it is
computed when the network is compiled, the branch is float from then on, and so are the Concat and
the layer behind it, e.g. the convolutions of a network that is told where it looks (CoordConv: 68 %
of the multiply-accumulates of a detector of bats' calls). With a zero added that is known only
when the network runs, the branch is rounded beside the others and all of it is INT8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engines.openvino.rewrites.unsigned_codes import MOVES_VALUES

__all__ = ["keep_joined_constants"]


def keep_joined_constants(openvino: Any, network: Any) -> int:
    """Add such a zero to each constant that is joined, in ``network`` itself.

    Args:
        openvino: the module.
        network: an ``openvino.Model`` that belongs to the caller, its Q/DQ pairs fused.

    Returns:
        The number of constants.
    """
    ops, found = openvino.opset13, network.get_ordered_ops()
    varying = _varying(found)
    ports = [
        _rounded_port(port)
        for op in found
        if op.get_type_name() == "Concat" and op.get_name() in varying
        for port in op.inputs()
        if port.get_source_output().get_node().get_name() not in varying
    ]
    ports = [port for port in ports if port is not None]
    if ports:
        zero = _zero(ops, network.inputs[0])
        for port in ports:
            port.replace_source_output(ops.add(port.get_source_output(), zero).output(0))
        network.validate_nodes_and_infer_types()
    return len(ports)


def _varying(found: Sequence[Any]) -> set[str]:
    """Names of what is not known before a network runs; sizes that are fixed are."""
    names: set[str] = set()
    for op in found:
        sources = op.input_values()
        if op.get_type_name() == "ShapeOf":
            varies = sources[0].get_partial_shape().is_dynamic
        else:
            varies = op.get_type_name() == "Parameter" or any(
                source.get_node().get_name() in names for source in sources
            )
        if varies:
            names.add(op.get_name())
    return names


def _rounded_port(joined: Any) -> Any:
    """Where what is joined is still float: before its FakeQuantize, or that of the Concat."""
    maker = joined.get_source_output().get_node()
    while maker.get_type_name() in MOVES_VALUES:
        maker = maker.input_value(0).get_node()
    if maker.get_type_name() == "FakeQuantize":
        return maker.input(0)
    return joined if _is_rounded(joined.get_node().output(0)) else None


def _is_rounded(output: Any) -> bool:
    """Whether a FakeQuantize reads it, or what only moves its values."""
    pending, seen = [output], set()
    while pending:
        for op in (entry.get_node() for entry in pending.pop().get_target_inputs()):
            if op.get_type_name() == "FakeQuantize":
                return True
            if op.get_type_name() in (*MOVES_VALUES, "MaxPool") and op.get_name() not in seen:
                seen.add(op.get_name())
                pending += op.outputs()
    return False


def _zero(ops: Any, source: Any) -> Any:
    """One element that is 0 whatever the input holds: nobody computes it beforehand."""
    start, end, step = (ops.constant(np.array([value], np.int64)) for value in (0, 1, 1))
    flat = ops.reshape(source, ops.constant(np.array([-1], np.int64)), False)
    first = ops.convert(ops.slice(flat, start, end, step), "f32")
    return ops.clamp(first, 0.0, 0.0).output(0)
