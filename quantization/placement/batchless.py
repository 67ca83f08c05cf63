"""Sizes that a free batch hides and does not change."""

from __future__ import annotations

from onnx import ModelProto

from artefacts.errors import ModelError
from graphs.opset import hide_data
from graphs.shapes import infer_shapes, values
from graphs.view import Shape
from graphs.walk import is_default_domain, nodes
from quantization.prepare.fold import constant_bytes, fold_constants

__all__ = ["batchless_shapes"]

_TWO_BATCHES = (2, 3)
_MOST_ROUNDS = 32  # of folding; each follows sizes through one more computation of them
_ROOM_BYTES = 1 << 16  # sizes are a few numbers each


def batchless_shapes(model: ModelProto) -> dict[str, Shape]:
    """Shapes that hold for every batch; None for sizes that do not, or are unknown.

    Exporters compute sizes from that of the batch, and inference ends there: a class token that is
    expanded to the batch, joined with 196 patches, has ? positions. So sizes are computed for two
    batches, and what is the same for both is known.

    Args:
        model: a checked model; nothing is found where its shapes contradict a batch.
    """
    try:
        first, second = (_shapes_of_batch(model, size) for size in _TWO_BATCHES)
    except ModelError:
        return {}
    return {
        name: tuple(a if a == b else None for a, b in zip(shape, second[name], strict=True))
        for name, shape in first.items()
        if len(second.get(name, ())) == len(shape)
    }


def _shapes_of_batch(model: ModelProto, size: int) -> dict[str, Shape]:
    """Shape of each tensor where the free first axes of all inputs have one size."""
    light, _ = hide_data(model)
    inputs = [value.type.tensor_type.shape.dim for value in light.graph.input]
    batches = [dims[0] for dims in inputs if dims and not dims[0].HasField("dim_value")]
    names = {dim.dim_param for dim in batches} - {""}
    same = [dim for dims in inputs for dim in dims if dim.dim_param in names]
    for dim in (*batches, *same):
        dim.dim_value = size
    for value in light.graph.output:
        value.type.tensor_type.ClearField("shape")
    _forget(light)
    for _ in range(_MOST_ROUNDS):
        infer_shapes(light)
        if not fold_constants(light, constant_bytes(light) + _ROOM_BYTES):
            break
    return {
        name: tuple(d.dim_value if d.HasField("dim_value") else None for d in value.shape.dim)
        for name, entry in values(light).items()
        if (value := entry.type.tensor_type).HasField("shape")
    }


def _forget(model: ModelProto) -> None:
    """Drop the sizes of what operators unknown to ONNX make: they may be of another batch."""
    custom = {n for node in nodes(model) if not is_default_domain(node) for n in node.output}
    for value in model.graph.value_info:
        if value.name in custom:
            value.type.tensor_type.ClearField("shape")
