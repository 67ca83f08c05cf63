"""What INT8 does to each layer by itself: its own input's and weight's rounding, nothing before it.

One scale serves all channels of an activation. Where some are a thousand times larger than others
(two inputs of different units, joined; a skip beside a block's output), the small ones are erased,
however the range is chosen. It shows here, whatever the reason: in the float network each layer is
computed once more as INT8 computes it, from the same inputs, and

    SQNR = 10 log10(sum y² / sum (y - y')²) dB

over the samples, with y of the float layer and y' of the INT8 one. Where channels are standardised
behind the layer, both are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from artefacts.decibels import sqnr_db
from artefacts.litter import scratch_folder
from graphs.edit import GraphEditor
from graphs.external_data import save_external
from graphs.qdq import DEQUANTIZE, copies
from graphs.tensor_data import tensor_bytes, without_data
from graphs.view import GraphView, Node
from quantization.measure.execution import is_large, load_onnxruntime
from quantization.measure.standardised import standardisation_behind

__all__ = ["own_sqnr_db"]

Feeds = Mapping[str, NDArray[Any]]
_Sums = tuple[str, str]  # tensors of the signal's power and of the noise's
_LARGE_BYTES = 1 << 20


def own_sqnr_db(
    exact: ModelProto,
    int8: ModelProto,
    layers: Iterable[str],
    samples: Iterable[Feeds],
) -> dict[str, float]:
    """SQNR of layers by themselves; those whose output was always 0 are left out.

    Args:
        exact: the float model that ``int8`` was made from.
        int8: the Q/DQ model; names of nodes and activations are those of ``exact``.
        layers: names of nodes of both.
        samples: feeds for ``int8``, one batch each.

    Raises:
        ModelError: the model cannot be run.
    """
    with scratch_folder("own_error") as folder:
        path = folder / "probe.onnx"
        sums = _write_probe(exact, int8, frozenset(layers), path)
        del int8  # its weights are in the file
        if not sums:
            return {}
        # Optimised, a large network would hold its INT8 weights a second time, dequantized.
        run = load_onnxruntime(path, optimize=not is_large(path), integers=False)
    totals = np.zeros((len(sums), 2))
    for feeds in samples:
        found = run(feeds)
        totals += [[float(found[name]) for name in pair] for pair in sums.values()]
    return {
        layer: sqnr_db(signal, noise)
        for layer, (signal, noise) in zip(sums, totals, strict=True)
        if signal > 0
    }


def _write_probe(
    exact: ModelProto, int8: ModelProto, layers: frozenset[str], path: Path
) -> dict[str, _Sums]:
    """The INT8 graph with a float copy of each layer that all others read, and the sums of both.

    Large weights go from the two models to the file, one after another.
    """
    light, large = without_data(int8, _LARGE_BYTES)
    elsewhere = {tensor.name: tensor for tensor in large}
    probe = _Probe(GraphEditor(light), GraphView(exact), GraphView(int8), elsewhere)
    quantized = {node.name: node for node in probe.view.nodes}
    sums = {
        node.name: probe.compare(node, quantized[node.name])
        for node in probe.floats.nodes
        if node.name in layers and node.name in quantized
    }
    del probe.editor.graph.output[:]
    probe.editor.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, [])
        for pair in sums.values()
        for name in pair
    )
    if sums:
        save_external(probe.editor.finish(), path, elsewhere=elsewhere)
    return sums


class _Probe:
    """An INT8 graph that gets float copies of its layers.

    Args:
        editor: of the INT8 graph without its large weights.
        floats: the float network.
        view: the INT8 graph.
        elsewhere: large weights by name; those of the copies are added.
    """

    def __init__(
        self,
        editor: GraphEditor,
        floats: GraphView,
        view: GraphView,
        elsewhere: dict[str, TensorProto],
    ) -> None:
        self.editor = editor
        self.floats = floats
        self.view = view
        self._elsewhere = elsewhere
        self._known: dict[str, str] = {}

    def compare(self, node: Node, quantized: Node) -> _Sums:
        """Let the float copy make what the INT8 layer made, and sum both powers in float64."""
        names, place, made = self.editor.names, quantized.position + 1, quantized.outputs[0]
        coded, noise = names.tensor(f"{made}_int8"), names.tensor(f"{made}_noise")
        self.editor.node(quantized).output[0] = coded
        inputs = {name: self._unrounded(name) for name in node.inputs} | self._constants(node)
        self.editor.insert(place, self._copy(node, inputs))
        exact, read = made, made
        for behind in standardisation_behind(self.floats, node):
            constants, result = self._constants(behind), behind.outputs[0]
            exact, coded = (
                self._put(place, behind, constants | {read: tensor}, result)
                for tensor in (exact, coded)
            )
            read = result
        self.editor.insert(place, names.node("Sub", [exact, coded], [noise], wanted=noise))
        return self._power(place, exact), self._power(place, noise)

    def _constants(self, node: Node) -> dict[str, str]:
        """Constants of a node of the float network, and their names in the INT8 graph."""
        names: dict[str, str] = {}
        for name in filter(None, node.inputs):
            held = self.floats.initializers.get(name)
            if held is not None and tensor_bytes(held) >= _LARGE_BYTES:
                names[name] = self.editor.placeholder(f"{name}_float", held)
                self._elsewhere[names[name]] = held
            elif (value := self.floats.constant(name)) is not None:
                names[name] = self.editor.constant(f"{name}_float", value)
        return names

    def _unrounded(self, tensor: str) -> str:
        """The same values as the float network has them, where they were rounded further up."""
        if tensor not in self._known:
            self._known[tensor] = self._above(tensor)
        return self._known[tensor]

    def _above(self, tensor: str) -> str:
        node = self.view.producer(tensor)
        if node is None or self.view.is_constant(tensor):
            return tensor
        if node.op_type == DEQUANTIZE:
            coder = self.view.producer(node.inputs[0])
            return tensor if coder is None else coder.inputs[0]
        found = {name: self._unrounded(name) for name in node.inputs if name and copies(node)}
        if all(before == after for before, after in found.items()):
            return tensor
        return self._put(node.position + 1, node, found, tensor)

    def _put(self, place: int, node: Node, inputs: Mapping[str, str], wanted: str) -> str:
        """Insert a copy that reads others and makes tensors of its own; that of ``wanted``."""
        copy = self._copy(node, inputs)
        results = {name: self.editor.names.tensor(f"{name}_alone") for name in copy.output if name}
        copy.output[:] = [results.get(name, "") for name in copy.output]
        self.editor.insert(place, copy)
        return results[wanted]

    def _copy(self, node: Node, inputs: Mapping[str, str]) -> NodeProto:
        copy = NodeProto()
        copy.CopyFrom(node.proto)
        self.editor.names.rename(copy, f"{node.name}_float")
        copy.input[:] = [inputs.get(name, name) for name in copy.input]
        return copy

    def _power(self, place: int, tensor: str) -> str:
        """Name of a scalar: the sum of a tensor's squares."""
        names = self.editor.names
        wide, power = names.tensor(f"{tensor}_f64"), names.tensor(f"{tensor}_power")
        cast = names.node("Cast", [tensor], [wide], wanted=wide, to=TensorProto.DOUBLE)
        total = names.node("ReduceSumSquare", [wide], [power], wanted=power, keepdims=0)
        self.editor.insert(place, cast)
        self.editor.insert(place, total)
        return power
