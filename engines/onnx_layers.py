"""The weighted layers of an ONNX graph: which were promised INT8, and how much work each is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import uses_external_data

from artefacts.errors import ModelError
from graphs.shapes import check

__all__ = [
    "WEIGHTED",
    "Layer",
    "external_files",
    "graph_names",
    "has_float16",
    "has_qdq",
    "is_dequantized",
    "read_onnx",
    "weighted_layers",
]

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Between a DequantizeLinear and its consumer these leave INT8 as it is (they move or pick values).
COMMUTING = (
    *("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "MaxPool"),
    *("Slice", "Gather", "Split", "Pad", "DepthToSpace", "SpaceToDepth", "Resize", "Upsample"),
)
PAIR = ("QuantizeLinear", "DequantizeLinear")
SCALING = ("Mul", "Div", "Add", "Sub", "Where", "Cast")  # between Q·Kᵀ and Softmax
NO_SHAPE: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A weighted node: ``promised`` when both operands come from DequantizeLinear.

    ``fused_with`` names the Add of a bias, or the Softmax of an attention: a runtime that fuses
    product and bias, or Q·Kᵀ, Softmax and ·V, into one kernel may keep only that name.
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


def weighted_layers(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> list[Layer]:
    """Every Conv, ConvTranspose, Gemm and MatMul, in graph order.

    Args:
        model: the graph that is built.
        shapes: of dynamic inputs, e.g. the optimum of a profile; other dynamic sizes count as 1.
    """
    sizes = _tensor_shapes(model, shapes or {})
    weights = {weight.name for weight in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return [
        Layer(
            name=node.name or node.output[0],
            op_type=node.op_type,
            names=frozenset(filter(None, (node.name, *node.output))),
            promised=all(is_dequantized(name, producers) for name in node.input[:2]),
            macs=_macs(node, sizes),
            fused_with=frozenset(
                _bias_names(node, readers, weights) or _softmax_names(node, producers, readers)
            ),
        )
        for node in model.graph.node
        if node.op_type in WEIGHTED
    ]


def graph_names(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Names of inputs and outputs; older models list their weights among the inputs."""
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in weights]
    return inputs, [value.name for value in model.graph.output]


def has_qdq(model: onnx.ModelProto) -> bool:
    """Whether the graph says itself what is INT8."""
    return any(n.op_type in ("QuantizeLinear", "DequantizeLinear") for n in model.graph.node)


def has_float16(model: onnx.ModelProto) -> bool:
    """Whether weights or casts make parts of the graph run in half precision."""
    half = onnx.TensorProto.FLOAT16
    return any(weight.data_type == half for weight in model.graph.initializer) or any(
        attribute.name == "to" and attribute.i == half
        for node in model.graph.node
        if node.op_type == "Cast"
        for attribute in node.attribute
    )


def external_files(path: Path) -> list[Path]:
    """The files beside a model that hold its large tensors, in order of name."""
    model = onnx.load(path, load_external_data=False)
    tensors = (t for t in model.graph.initializer if uses_external_data(t))
    names = {e.value for t in tensors for e in t.external_data if e.key == "location"}
    return [path.parent / name for name in sorted(names)]


def is_dequantized(name: str, producers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether every way back over value-moving nodes ends at a DequantizeLinear."""
    pending, seen = [name], {name}
    while pending:
        node = producers.get(pending.pop())
        if node is None:
            return False
        if node.op_type == "Concat" or node.op_type in COMMUTING:
            sources = node.input if node.op_type == "Concat" else node.input[:1]
            pending += [source for source in sources if source not in seen]
            seen.update(sources)
        elif node.op_type != "DequantizeLinear":
            return False
    return True


def _bias_names(
    node: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]], weights: set[str]
) -> set[str]:
    """Names of the Add behind a product whose other operand is a weight: its bias."""
    after = readers.get(node.output[0], [])
    if node.op_type != "MatMul" or len(after) != 1 or after[0].op_type != "Add":
        return set()
    if not weights & set(after[0].input):
        return set()
    return {name for name in (after[0].name, *after[0].output) if name}


def _softmax_names(
    node: onnx.NodeProto,
    producers: Mapping[str, onnx.NodeProto],
    readers: Mapping[str, list[onnx.NodeProto]],
) -> set[str]:
    """Names of the Softmax between the two products of an attention, seen from either."""
    if node.op_type != "MatMul":
        return set()
    before = producers.get(node.input[0])
    while before is not None and before.op_type in (*COMMUTING, *PAIR):
        before = producers.get(before.input[0])
    found = [before] if before is not None and before.op_type == "Softmax" else []
    pending = list(node.output)
    while pending and not found:
        for after in readers.get(pending.pop(), []):
            if after.op_type == "Softmax":
                found.append(after)
            elif after.op_type in (*SCALING, *COMMUTING):
                pending += after.output
    return {name for softmax in found for name in (softmax.name, *softmax.output) if name}


def _tensor_shapes(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor with the inputs pinned; what inference cannot find is left out."""
    pinned = onnx.ModelProto()
    pinned.CopyFrom(model)
    del pinned.graph.value_info[:]
    for value in pinned.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.dim_value:
                dim.dim_value = shapes[value.name][axis] if value.name in shapes else 1
    for value in pinned.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(pinned, data_prop=True).graph
    found = {weight.name: tuple(weight.dims) for weight in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.dim_value for dim in dims):
            found[value.name] = tuple(dim.dim_value for dim in dims)
    return found


def _macs(node: onnx.NodeProto, sizes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-accumulates of one weighted node.

    Conv: every output element sums ``C_in/groups * prod(kernel)`` products, which is the weight
    (C_out, C_in/groups, *kernel) without its first axis. ConvTranspose: every *input* element is
    spread over ``C_out/groups * prod(kernel)``. Gemm and MatMul: output elements times K.
    """
    left = sizes.get(node.input[0], NO_SHAPE)
    right = sizes.get(node.input[1], NO_SHAPE)
    output = sizes.get(node.output[0], NO_SHAPE)
    if not (left and right and output):
        return 0
    if node.op_type == "Conv":
        return prod(output) * prod(right[1:])
    if node.op_type == "ConvTranspose":
        return prod(left) * prod(right[1:])
    return prod(output) * left[0 if _transposed(node) else -1]


def _transposed(node: onnx.NodeProto) -> bool:
    return any(a.name == "transA" and a.i for a in node.attribute)
