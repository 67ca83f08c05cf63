"""A copy of a model that gives out chosen activations, written to a folder for a runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from graphs.edit import replace_nodes
from graphs.walk import nodes

__all__ = ["write_exposed"]

_EXTERNAL_BYTES = 1024  # initializers from this size on go to a file beside the model
_PAGE_BYTES = 4096  # where a file can be mapped into memory


def write_exposed(model: onnx.ModelProto, outputs: Sequence[str], folder: Path) -> Path:
    """Write the model with only ``outputs``, its weights in a file beside it.

    Weights go straight from the model to the file: no second copy in memory, no 2 GB limit.
    """
    copy = onnx.ModelProto(ir_version=model.ir_version)
    copy.opset_import.extend(model.opset_import)
    copy.functions.extend(model.functions)
    graph = copy.graph
    graph.name = model.graph.name or "observed"
    replace_nodes(graph, nodes(model))
    graph.input.extend(model.graph.input)
    graph.sparse_initializer.extend(model.graph.sparse_initializer)
    # Without tensors to fetch, the model's own outputs keep the graph valid.
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    if not outputs:
        graph.output.extend(model.graph.output)
    with (folder / "weights").open("wb") as file:
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) < _EXTERNAL_BYTES:
                graph.initializer.add().CopyFrom(tensor)
            else:
                file.write(b"\0" * (-file.tell() % _PAGE_BYTES))
                graph.initializer.append(_external(tensor, file.tell()))
                file.write(tensor.raw_data)
    path = folder / "model.onnx"
    path.write_bytes(copy.SerializeToString())
    return path


def _external(tensor: onnx.TensorProto, offset: int) -> onnx.TensorProto:
    where = {"location": "weights", "offset": offset, "length": len(tensor.raw_data)}
    return onnx.TensorProto(
        name=tensor.name,
        data_type=tensor.data_type,
        dims=tensor.dims,
        data_location=onnx.TensorProto.EXTERNAL,
        external_data=[
            onnx.StringStringEntryProto(key=key, value=str(value)) for key, value in where.items()
        ],
    )
