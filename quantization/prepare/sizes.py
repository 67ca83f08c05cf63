"""Shape arithmetic: what a graph computes from ``Shape`` alone becomes a constant where it is one.

Exporters that keep the batch dynamic compute the target of a Reshape from the shape of another
tensor. Sizes are followed by value where fixed and by name where dynamic: [N, 64] is a target that
needs no computation, because Reshape copies an axis (0) and infers one (-1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphs.edit import set_attribute
from graphs.shapes import values
from graphs.walk import constants, is_default_domain, nodes
from quantization.prepare.resizes import constant_scales

__all__ = ["fold_sizes"]

Sizes = tuple[int | str, ...]
LONGEST = 64  # elements of a tensor that can be a shape


def fold_sizes(model: ModelProto) -> bool:
    """Make the targets of Reshape, and what depends on fixed sizes only, constant.

    Shapes must have been inferred. Returns whether anything changed.
    """
    sweep = _Sweep(model)
    changed = False
    for node in nodes(model):
        if not is_default_domain(node):
            continue
        if node.op_type == "Reshape":
            changed |= sweep.fix_target(node)
        elif node.op_type == "Resize":
            changed |= sweep.fix_scales(node)
        elif node.op_type in _RULES:
            sweep.follow(node)
        changed |= sweep.fix_inputs(node)
    return changed


class _Sweep:
    """Sizes found so far, in topological order."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.known = constants(model.graph)
        self.values = values(model)
        self.sizes: dict[str, Sizes] = {}

    def dims(self, name: str) -> Sizes | None:
        """Shape of a tensor with the names of its dynamic axes, e.g. ("N", 3, 32, 32)."""
        if name in self.known:
            return tuple(self.known[name].dims)
        value = self.values.get(name)
        if value is None or not value.type.tensor_type.HasField("shape"):
            return None
        dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        anonymous = any(not d.WhichOneof("value") for d in value.type.tensor_type.shape.dim)
        return None if anonymous else tuple(dims)

    def rank(self, name: str) -> int:
        """Number of axes of a computed tensor, -1 where unknown."""
        value = self.values.get(name)
        if value is None or not value.type.tensor_type.HasField("shape"):
            return -1
        return len(value.type.tensor_type.shape.dim)

    def of(self, name: str) -> Sizes | None:
        """Elements of a tensor of sizes."""
        tensor = self.known.get(name)
        if tensor is None:
            return self.sizes.get(name)
        if tensor.data_type not in (TensorProto.INT64, TensorProto.INT32):
            return None
        if len(tensor.dims) > 1 or math.prod(tensor.dims) > LONGEST:
            return None
        return tuple(int(element) for element in numpy_helper.to_array(tensor).reshape(-1))

    def follow(self, node: NodeProto) -> None:
        """Note the sizes a node makes, where its inputs are sizes."""
        found = _RULES[node.op_type](self, node)
        if found is not None and len(found) <= LONGEST and self.rank(node.output[0]) in (0, 1):
            self.sizes[node.output[0]] = found

    def fix_target(self, node: NodeProto) -> bool:
        """Write the target of a Reshape as a constant, whose 0 copies an axis.

        torch.export lets 0 be a size in all of them: where none of the target is, that is the same.
        """
        target, source = self.sizes.get(node.input[1]), self.dims(node.input[0])
        zero_is_size = [a for a in node.attribute if a.name == "allowzero" and a.i]
        if target is None or (zero_is_size and 0 in target):
            return False
        fixed = [
            0 if isinstance(size, str) and source and source[i : i + 1] == (size,) else size
            for i, size in enumerate(target)
        ]
        names = [size for size in fixed if isinstance(size, str)]
        if len(names) > 1 or (names and -1 in fixed):
            return False
        changed = self._constant(node, 1, [-1 if isinstance(size, str) else size for size in fixed])
        if changed:
            for attribute in zero_is_size:
                node.attribute.remove(attribute)
        return changed

    def fix_scales(self, node: NodeProto) -> bool:
        """Resize by constant scales where the sizes are computed, or of named axes."""
        named = any(a.name == "axes" for a in node.attribute)
        target = self.of(node.input[3]) if len(node.input) > 3 else None
        source = self.dims(node.input[0])
        if target is None or source is None or (node.input[3] in self.known and not named):
            return False
        scales = constant_scales(node, source, target)
        if scales is None:
            return False
        self._add(node, 2, f"{node.output[0]}//scales", np.array(scales, np.float32))
        del node.input[3:]
        set_attribute(node, "axes", None)
        return True

    def fix_inputs(self, node: NodeProto) -> bool:
        """Replace inputs that are fixed sizes by constants."""
        changed = False
        for index, name in enumerate(node.input):
            found = self.sizes.get(name)
            if found is not None and all(isinstance(size, int) for size in found):
                changed |= self._constant(node, index, [size for size in found if size != ""])
        return changed

    def _constant(self, node: NodeProto, index: int, sizes: list[int | str]) -> bool:
        rank = self.rank(node.input[index])
        if rank not in (0, 1) or (rank == 0 and len(sizes) != 1):
            return False
        elem_type = self.values[node.input[index]].type.tensor_type.elem_type
        dtype = helper.tensor_dtype_to_np_dtype(elem_type)
        array = np.array(sizes, dtype).reshape(-1 if rank else ())
        name = f"{node.input[index]}//sizes:" + ",".join(str(size) for size in sizes)
        self._add(node, index, name, array)
        return True

    def _add(self, node: NodeProto, index: int, name: str, array: NDArray[Any]) -> None:
        """Let a node read a new constant, or the one that has its name."""
        if name not in self.known:
            self.known[name] = self.graph.initializer.add()
            self.known[name].CopyFrom(numpy_helper.from_array(array, name))
        node.input[index] = name


def _axis(node: NodeProto) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "axis"), 0)


def _same(sweep: _Sweep, node: NodeProto) -> Sizes | None:
    return sweep.of(node.input[0])


def _shape(sweep: _Sweep, node: NodeProto) -> Sizes | None:
    dims = sweep.dims(node.input[0])
    span = {a.name: a.i for a in node.attribute}
    return None if dims is None else dims[span.get("start", 0) : span.get("end", len(dims))]


def _gather(sweep: _Sweep, node: NodeProto) -> Sizes | None:
    data, indices = sweep.of(node.input[0]), sweep.of(node.input[1])
    if data is None or indices is None or _axis(node):
        return None
    found = [data[i] for i in indices if isinstance(i, int) and -len(data) <= i < len(data)]
    return tuple(found) if len(found) == len(indices) else None


def _slice(sweep: _Sweep, node: NodeProto) -> Sizes | None:
    """Steps of one, along the only axis."""
    data, start, end = (sweep.of(name) for name in node.input[:3])
    if data is None or len(node.input) > 4 or not start or not end:
        return None
    if not isinstance(start[0], int) or not isinstance(end[0], int):
        return None
    return data[start[0] : end[0]]


def _concat(sweep: _Sweep, node: NodeProto) -> Sizes | None:
    parts = [sweep.of(name) for name in node.input]
    if any(part is None for part in parts):
        return None
    return tuple(size for part in parts if part for size in part)


def _product(sweep: _Sweep, node: NodeProto) -> Sizes | None:
    sizes = sweep.of(node.input[0]) if len(node.input) == 1 else None
    numbers = [size for size in sizes or () if isinstance(size, int)]
    return (math.prod(numbers),) if sizes and len(numbers) == len(sizes) else None


_RULES: dict[str, Callable[[_Sweep, NodeProto], Sizes | None]] = {
    "Cast": _same,
    "Concat": _concat,
    "Gather": _gather,
    "Identity": _same,
    "ReduceProd": _product,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _same,
    "Unsqueeze": _same,
}
