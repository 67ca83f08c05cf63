"""The weighted layers of an ONNX graph: which were promised INT8, and how much work each is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import uses_external_data

from artefacts.errors import ModelError
from graphs.macs import work
from graphs.operators import (
    CONTROL_OPS,
    INT8_KEEPING_OPS,
    MAC_OPS,
    PAIR_OPS,
    SCORE_OPS,
    WEIGHTED_OPS,
)
from graphs.qdq import DEQUANTIZE
from graphs.shapes import check
from graphs.tensor_data import weight_bytes
from graphs.view import GraphView, Node
from graphs.walk import nodes

__all__ = [
    "Layer",
    "external_files",
    "graph_names",
    "has_float16",
    "has_qdq",
    "is_dequantized",
    "is_tried",
    "read_onnx",
    "small_enough",
    "weighted_layers",
]

_LARGEST_TRIED_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A node whose work counts: ``promised`` when both operands come from DequantizeLinear.

    ``fused_with`` names the Add of a bias, or the Softmax of an attention: a runtime that fuses
    product and bias, or Q·Kᵀ, Softmax and ·V, into one kernel may keep only that name; and codes of
    weights, which a runtime that makes the layer anew multiplies by.
    """

    name: str
    op_type: str
    names: frozenset[str]
    promised: bool
    macs: int
    fused_with: frozenset[str] = frozenset()


def read_onnx(path: str | Path) -> onnx.ModelProto:
    """Read and check a model, external data included.

    Raises:
        ModelError: no such file, not ONNX, truncated, invalid, or data outside its folder.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"model {path} does not exist, expected an ONNX file; check the path")
    try:
        try:
            onnx.checker.check_model(str(path))
        except onnx.checker.ValidationError:
            model = onnx.load(path)
            if all(value.type.tensor_type.HasField("shape") for value in model.graph.output):
                raise
            check(model)  # a scripted export leaves the shape of an output open, as runtimes do
        return onnx.load(path)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError, TypeError) as err:
        # DecodeError and the checker say it over several lines; the first carries the reason.
        reason = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        raise ModelError(
            f"model {path} cannot be read ({reason}), expected a valid ONNX file; copy it "
            "again where it is damaged, else correct what is named"
        ) from err


def is_tried(model: onnx.ModelProto) -> bool:
    """Whether a library is asked early if it reads a model: of a large one that would cost much."""
    return weight_bytes(model) <= _LARGEST_TRIED_BYTES


def small_enough(model: onnx.ModelProto) -> bytes | None:
    """What a library is given to try whether it reads a model; None where it is not asked."""
    return model.SerializeToString() if is_tried(model) else None


def weighted_layers(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> list[Layer]:
    """Every layer whose multiply-accumulates count, in graph order.

    Only those with a weight for each output channel can be promised INT8; recurrent layers, Einsum
    and what bodies of control flow multiply have no INT8 kernel anywhere.

    Args:
        model: the graph that is built.
        shapes: of dynamic inputs, e.g. the optimum of a profile; other free axes count as in
            ``GraphView.nominal_shape``, by which placement says its share.
    """
    view = GraphView(model, shapes)
    return [
        Layer(
            name=node.name,
            op_type=node.op_type,
            names=frozenset(_names(node)),
            promised=node.op_type in WEIGHTED_OPS
            and all(is_dequantized(view, name) for name in node.inputs[:2]),
            macs=work(view, node),
            fused_with=frozenset(
                (_bias_names(view, node) or _softmax_names(view, node)) | _code_names(view, node)
            ),
        )
        for node in view.nodes
        if node.op_type in MAC_OPS or (node.op_type in CONTROL_OPS and work(view, node))
    ]


def graph_names(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Names of inputs and outputs; older models list their weights among the inputs."""
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in weights]
    return inputs, [value.name for value in model.graph.output]


def has_qdq(model: onnx.ModelProto) -> bool:
    """Whether the graph says itself what is INT8."""
    return any(node.op_type in PAIR_OPS for node in nodes(model))


def has_float16(model: onnx.ModelProto) -> bool:
    """Whether weights or casts make parts of the graph run in half precision."""
    half = onnx.TensorProto.FLOAT16
    return any(weight.data_type == half for weight in model.graph.initializer) or any(
        attribute.name == "to" and attribute.i == half
        for node in nodes(model)
        if node.op_type == "Cast"
        for attribute in node.attribute
    )


def external_files(path: Path) -> list[Path]:
    """The files beside a model that hold its large tensors, in order of name."""
    model = onnx.load(path, load_external_data=False)
    tensors = (t for t in model.graph.initializer if uses_external_data(t))
    names = {e.value for t in tensors for e in t.external_data if e.key == "location"}
    return [path.parent / name for name in sorted(names)]


def is_dequantized(view: GraphView, tensor: str) -> bool:
    """Whether every way back over value-moving nodes ends at a DequantizeLinear."""
    pending, seen = [tensor], {tensor}
    while pending:
        node = view.producer(pending.pop())
        if node is None:
            return False
        if node.op_type == "Concat" or node.op_type in INT8_KEEPING_OPS:
            sources = node.inputs if node.op_type == "Concat" else node.inputs[:1]
            pending += [source for source in sources if source not in seen]
            seen.update(sources)
        elif node.op_type != DEQUANTIZE:
            return False
    return True


def _bias_names(view: GraphView, node: Node) -> set[str]:
    """Names of the Add behind a product whose other operand is a weight: its bias."""
    after = [use.node for use in view.uses(node.outputs[0])]
    if node.op_type != "MatMul" or len(after) != 1 or after[0].op_type != "Add":
        return set()
    return _names(after[0]) if view.initializers.keys() & set(after[0].inputs) else set()


def _softmax_names(view: GraphView, node: Node) -> set[str]:
    """Names of the Softmax between the two products of an attention, seen from either."""
    if node.op_type != "MatMul":
        return set()
    before = view.producer(node.inputs[0])
    while before is not None and before.op_type in INT8_KEEPING_OPS | PAIR_OPS:
        before = view.producer(before.inputs[0])
    found = [before] if before is not None and before.op_type == "Softmax" else []
    pending = list(node.outputs)
    while pending and not found:
        for after in (use.node for use in view.uses(pending.pop())):
            if after.op_type == "Softmax":
                found.append(after)
            elif after.op_type in SCORE_OPS | INT8_KEEPING_OPS:
                pending += after.outputs
    return {name for softmax in found for name in _names(softmax)}


def _code_names(view: GraphView, node: Node) -> set[str]:
    """Name of the constant whose codes a layer multiplies by."""
    maker = view.producer(node.inputs[1]) if len(node.inputs) > 1 else None
    if maker is None or maker.op_type != DEQUANTIZE:
        return set()
    return {maker.inputs[0]} & view.initializers.keys()


def _names(node: Node) -> set[str]:
    return set(filter(None, (node.proto.name, *node.outputs)))
