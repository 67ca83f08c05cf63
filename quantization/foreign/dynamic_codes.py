"""Where codes of a dynamically quantized model go beside its layers: look-up tables and biases."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import ModelProto, NodeProto, TensorProto

from graphs.operators import REARRANGING_OPS
from graphs.qdq import DEQUANTIZE
from graphs.walk import constants, nodes, output_names, producers, readers

__all__ = ["integer_biases", "look_ups"]

_CODES = (TensorProto.INT8, TensorProto.UINT8)
_SUMS = ("ConvInteger", "MatMulInteger")
_ROUNDING = ("Floor", "Round")


def look_ups(model: ModelProto) -> dict[str, tuple[str, ...]]:
    """Output of each Gather of codes that are only dequantized → names of the scale and zero point.

    Moved before they are, or not; by one scale for all of them.
    """
    known, read_by = constants(model.graph), readers(model)
    outputs = output_names(model.graph)
    found = {}
    for node in nodes(model):
        table = known.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or table.data_type not in _CODES:
            continue
        ends = [(end.op_type, *end.input[1:]) for end in _ends(node.output[0], read_by)]
        scale = known.get(ends[0][1]) if ends and len(ends[0]) > 1 else None
        single = len(set(ends)) == 1 and ends[0][0] == DEQUANTIZE
        if single and scale is not None and not scale.dims and node.output[0] not in outputs:
            found[node.output[0]] = ends[0][1:]
    return found


def integer_biases(model: ModelProto) -> set[str]:
    """Tensors that hold a bias rounded to steps of a product of codes, or are on the way to that.

    onnxruntime divides it by the product of the scales, rounds it, and adds it to the integer sum.
    """
    makers, read_by = producers(model), readers(model)
    sums = {name for node in nodes(model) if node.op_type in _SUMS for name in node.output}
    found: set[str] = set()
    for node in nodes(model):
        if node.op_type != "Add" or sums.isdisjoint(node.input):
            continue
        for name in set(node.input) - sums:
            path = list(_towards_rounding(name, makers))
            if path and all(len(read_by.get(each.output[0], ())) == 1 for each in path):
                found |= {each.output[0] for each in path}
    return found


def _towards_rounding(name: str, makers: dict[str, NodeProto]) -> Iterator[NodeProto]:
    """The nodes above a bias that move, cast and round it."""
    while (node := makers.get(name)) is not None:
        rounds = node.op_type in _ROUNDING or node.op_type == "Cast"
        if not rounds and node.op_type not in REARRANGING_OPS:
            return
        yield node
        name = node.input[0]


def _ends(name: str, read_by: dict[str, list[NodeProto]]) -> Iterator[NodeProto]:
    """What reads a tensor, however it is moved before."""
    for node in read_by.get(name, ()):
        if node.op_type in REARRANGING_OPS and node.input[0] == name:
            yield from _ends(node.output[0], read_by)
        else:
            yield node
