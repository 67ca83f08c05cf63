"""Empty constants are made by ConstantOfShape: OpenVINO reads a stored one as a scalar.

What grows in a Loop starts empty, e.g. (0, 4), and what a detector gives where it finds nothing is:
torchvision's are full of them. Lists of none stay: they stand for what is not given.
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

from graphs.edit import insert_nodes
from graphs.names import Names
from graphs.walk import subgraphs, walk

__all__ = ["write_empties"]


def write_empties(graph: GraphProto) -> None:
    """Make constants without elements and of two axes or more where they are read, in bodies too.

    Args:
        graph: of a whole model, changed in place.
    """
    names = Names(graph)
    for body in [body for node in walk(graph) for body in subgraphs(node)]:
        _write(body, names)
    _write(graph, names)


def _write(graph: GraphProto, names: Names) -> None:
    empty, kept = list[TensorProto](), list[TensorProto]()
    for tensor in graph.initializer:
        (empty if len(tensor.dims) > 1 and 0 in tensor.dims else kept).append(tensor)
    if not empty:
        return
    made = [_made(tensor, names) for tensor in empty]
    shapes = [shape for shape, _ in made]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *shapes])
    insert_nodes(graph, {0: [node for _, node in made]})


def _made(tensor: TensorProto, names: Names) -> tuple[TensorProto, NodeProto]:
    shape = np.array(tensor.dims, np.int64)
    held = numpy_helper.from_array(shape, names.tensor(f"{tensor.name}_shape"))
    value = numpy_helper.from_array(np.zeros(1, numpy_helper.to_array(tensor).dtype))
    node = names.node(
        "ConstantOfShape", [held.name], [tensor.name], wanted=f"{tensor.name}_empty", value=value
    )
    return held, node
