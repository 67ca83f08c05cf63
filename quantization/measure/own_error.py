"""What INT8 does to each layer by itself: its own input's and weight's rounding, nothing before it.

One scale serves all channels of an activation. Where some are a thousand times larger than others
(two inputs of different units, joined; a skip beside a block's output), the small ones are erased,
however the range is chosen. It shows here, whatever the reason: in the float network each layer is
computed once more as INT8 computes it, from the same inputs, and

    SQNR = 10 log10(sum y² / sum (y - y')²) dB

over the samples, with y of the float layer and y' of the INT8 one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from artefacts.decibels import sqnr_db
from artefacts.litter import scratch_folder
from graphs.edit import GraphEditor
from graphs.external_data import save_external
from graphs.tensor_data import tensor_bytes, without_data
from graphs.view import GraphView, Node
from quantization.measure.execution import is_large, load_onnxruntime

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
    floats, view = GraphView(exact), GraphView(int8)
    quantized = {node.name: node for node in view.nodes}
    light, large = without_data(int8, _LARGE_BYTES)
    elsewhere = {tensor.name: tensor for tensor in large}
    editor = GraphEditor(light)
    sums: dict[str, _Sums] = {}
    outputs: list[str] = []
    for node in floats.nodes:
        if node.name in layers and node.name in quantized:
            sums[node.name] = _compare(editor, floats, node, quantized[node.name], elsewhere)
            outputs += sums[node.name]
    del editor.graph.output[:]
    editor.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, []) for name in outputs
    )
    if sums:
        save_external(editor.finish(), path, elsewhere=elsewhere)
    return sums


def _compare(
    editor: GraphEditor,
    floats: GraphView,
    node: Node,
    quantized: Node,
    elsewhere: dict[str, TensorProto],
) -> _Sums:
    """Let the float copy make what the INT8 layer made, and sum both powers in float64."""
    names, place, made = editor.names, quantized.position + 1, quantized.outputs[0]
    coded, noise = names.tensor(f"{made}_int8"), names.tensor(f"{made}_noise")
    editor.node(quantized).output[0] = coded
    again = NodeProto()
    again.CopyFrom(node.proto)
    names.rename(again, f"{node.name}_float")
    for index, name in enumerate(node.inputs):
        held = floats.initializers.get(name)
        if held is not None and tensor_bytes(held) >= _LARGE_BYTES:
            again.input[index] = editor.placeholder(f"{name}_float", held)
            elsewhere[again.input[index]] = held
            continue
        value = floats.constant(name) if name else None
        if value is not None:
            again.input[index] = editor.constant(f"{name}_float", value)
    subtract = names.node("Sub", [made, coded], [noise], wanted=noise)
    editor.insert(place, again)
    editor.insert(place, subtract)
    return _power(editor, place, made), _power(editor, place, noise)


def _power(editor: GraphEditor, place: int, tensor: str) -> str:
    """Name of a scalar: the sum of a tensor's squares."""
    names = editor.names
    wide, power = names.tensor(f"{tensor}_f64"), names.tensor(f"{tensor}_power")
    cast = names.node("Cast", [tensor], [wide], wanted=wide, to=onnx.TensorProto.DOUBLE)
    total = names.node("ReduceSumSquare", [wide], [power], wanted=power, keepdims=0)
    editor.insert(place, cast)
    editor.insert(place, total)
    return power
