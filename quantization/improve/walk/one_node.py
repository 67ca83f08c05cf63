"""One node as a model of its own, on all samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from graphs.view import GraphView, Node
from graphs.walk import reads
from quantization.improve.walk.grid import Grid
from quantization.improve.walk.sample_arrays import Memory, SampleArrays
from quantization.measure.execution import Arrays, Load, Run

__all__ = ["OneNode"]

Array = NDArray[Any]


class OneNode:
    """A node that runs on samples, one after another; it is loaded for the first.

    Args:
        view: the graph.
        load: runs a model.
        node: the node.
        grids: input index → what its Q/DQ pair does.
        constants: constant name → values to use instead.
        memory: for what it makes; None for as much as there is.
    """

    def __init__(
        self,
        view: GraphView,
        load: Load,
        node: Node,
        *,
        grids: Mapping[int, Grid] | None = None,
        constants: Mapping[str, Array] | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._view, self._load, self._node, self._memory = view, load, node, memory
        self._constants = constants or {}
        self._proto = onnx.NodeProto()
        self._proto.CopyFrom(node.proto)
        self._quantized: dict[str, tuple[str, Grid]] = {}
        for index, grid in (grids or {}).items():
            name = f"{node.inputs[index]}.quantized.{index}"
            self._quantized[name] = (node.inputs[index], grid)
            self._proto.input[index] = name
        self._reads = dict.fromkeys(reads(self._proto))
        self._run: Run | None = None

    def __call__(
        self, values: Mapping[str, Sequence[Array]], *, spent: Collection[SampleArrays] = ()
    ) -> dict[str, SampleArrays]:
        """Output name → one array a sample.

        Args:
            values: its variable inputs (and what its bodies capture), one array a sample.
            spent: those that nothing else reads: each sample's goes once the node has read it.
        """
        results = {name: SampleArrays(memory=self._memory) for name in self._node.outputs if name}
        for number in range(len(next(iter(values.values()), (None,)))):
            feeds = {name: arrays[number] for name, arrays in values.items()}
            feeds |= {name: grid(feeds[of]) for name, (of, grid) in self._quantized.items()}
            feeds = {name: feeds[name] for name in feeds if name in self._reads}
            if self._run is None:
                self._run = self._load(self._model(feeds, values))
            for arrays in spent:
                arrays.give_up(number)
            for name, value in self._run(feeds).items():
                results[name].append(value)
        return results

    def _model(self, feeds: Arrays, values: Mapping[str, Sequence[Array]]) -> onnx.ModelProto:
        """Of this node alone, its constants inside."""
        inputs = [
            helper.make_tensor_value_info(
                name,
                helper.np_dtype_to_tensor_dtype(array.dtype),
                _known_shape(values[self._quantized.get(name, (name,))[0]]),
            )
            for name, array in feeds.items()
        ]
        outputs = [_typed(self._view, name) for name in self._proto.output if name]
        graph = helper.make_graph([self._proto], "node", inputs, outputs)
        opsets, version = self._view.model.opset_import, self._view.model.ir_version
        model = helper.make_model(graph, opset_imports=opsets, ir_version=version)
        for name in self._reads:  # last, because graph and model are copied while they are made
            value = self._constants.get(name, self._view.constant(name))
            if value is not None:
                stored = numpy_helper.from_array(np.asarray(value, order="C"), name)
                model.graph.initializer.add().CopyFrom(stored)
        return model


def _known_shape(arrays: Sequence[Array]) -> list[int | None]:
    """Free for floats; sizes and axes keep the lengths that all samples have."""
    if arrays[0].dtype.kind == "f":
        return [None] * arrays[0].ndim
    lengths = [set(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True)]
    return [sizes.pop() if len(sizes) == 1 else None for sizes in lengths]


def _typed(view: GraphView, name: str) -> onnx.ValueInfoProto:
    if not view.element_type(name):  # of an operator that ONNX does not know: the runtime finds out
        return onnx.ValueInfoProto(name=name)
    return helper.make_tensor_value_info(name, view.element_type(name), None)
