"""Float16, bfloat16 and float64 graphs compute in float32 from here on.

Scales are float32, so are the models that calibration observes, and INT8 layers placed by float32
rules; onnxruntime has no float64 convolution at all. float16 → float32 is exact. Inputs and outputs
keep their types, behind casts; the floating-point part becomes float16 again after placement where
the target wants it (``fp16``).
"""

from __future__ import annotations

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    numpy_helper,
)

from graphs.edit import insert_nodes, rename_tensor, rewire
from graphs.names import Names
from graphs.walk import is_default_domain, nodes, producers, subgraphs

__all__ = ["widen_floats"]

_FLOAT = int(TensorProto.FLOAT)
_OTHER = frozenset(map(int, (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)))
_LARGEST = float(np.finfo(np.float32).max)


def widen_floats(model: ModelProto) -> bool:
    """Make every floating-point tensor inside the graph float32, in place.

    A float64 constant beyond float32 becomes the largest float32: it stands for infinity.

    Returns:
        Whether anything changed.
    """
    graph = model.graph
    made, names = producers(graph), Names(graph)
    changed = _widen_inside(graph, keep={value.name for value in graph.output})
    for value in graph.input:
        if value.type.tensor_type.elem_type in _OTHER and _widen_input(graph, value, names):
            changed = True
    for value in graph.output:
        if value.type.tensor_type.elem_type in _OTHER and not _is_cast(made.get(value.name)):
            _narrow_output(graph, value, names)
            changed = True
    if changed:
        del graph.value_info[:]
    return changed


def _widen_inside(graph: GraphProto, keep: set[str]) -> bool:
    """Constants and the types that attributes name; not casts that make an output in ``keep``."""
    changed = False
    for tensor in graph.initializer:
        changed |= _widen_tensor(tensor)
    for node in nodes(graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                changed |= _widen_tensor(attribute.t)
            named = attribute.name in ("to", "dtype") and is_default_domain(node)
            if named and attribute.i in _OTHER and not keep.intersection(node.output):
                attribute.i = _FLOAT
                changed = True
        for inner in subgraphs(node):
            changed |= _widen_inside(inner, keep=set())
            for value in (*inner.input, *inner.output, *inner.value_info):
                if value.type.tensor_type.elem_type in _OTHER:
                    value.type.tensor_type.elem_type = _FLOAT
    return changed


def _widen_tensor(tensor: TensorProto) -> bool:
    if tensor.data_type not in _OTHER:
        return False
    values = np.clip(numpy_helper.to_array(tensor).astype(np.float64), -_LARGEST, _LARGEST)
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    return True


def _widen_input(graph: GraphProto, value: ValueInfoProto, names: Names) -> bool:
    """Cast an input to float32 for its readers, unless each casts it already."""
    readers = [node for node in nodes(graph) if value.name in node.input]
    if all(_is_cast(node) for node in readers):
        return False
    wide = names.tensor(f"{value.name}_float32")
    rewire(graph, {value.name: wide})
    cast = names.node("Cast", [value.name], [wide], wanted=wide, to=_FLOAT)
    insert_nodes(graph, {0: [cast]})
    return True


def _narrow_output(graph: GraphProto, value: ValueInfoProto, names: Names) -> None:
    """Make an output by a cast from float32."""
    wide = names.tensor(f"{value.name}_float32")
    declared = ValueInfoProto()
    declared.CopyFrom(value)
    rename_tensor(graph, value.name, wide)
    value.CopyFrom(declared)
    kind = declared.type.tensor_type.elem_type
    cast = names.node("Cast", [wide], [value.name], wanted=f"{value.name}_cast", to=kind)
    insert_nodes(graph, {len(nodes(graph)): [cast]})


def _is_cast(node: NodeProto | None) -> bool:
    return node is not None and node.op_type == "Cast" and is_default_domain(node)
