"""Opset: raised to 13 where older, kept where newer.

13 is the first opset whose QuantizeLinear takes an axis, so the first that holds INT8 with
per-channel weights, and TensorRT 8.6 reads everything up to 17: raising further would only lose
readers.
"""

from __future__ import annotations

import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper, version_converter

from artefacts.errors import ModelError
from graphs.edit import copy_model, replace_nodes
from graphs.names import Names
from graphs.nominal import fix_free_axes
from graphs.operators import RESIZE_OPS
from graphs.opset import ONNX_ERRORS, hide_data, opset_of, reason, show_data
from graphs.view import GraphView, Shape
from graphs.walk import attributes, is_default_domain, nodes, subgraphs, walk

__all__ = ["MINIMUM_OPSET", "raise_opset"]

MINIMUM_OPSET = 13
_INFERRED = 6  # the first opset whose arithmetic ONNX infers shapes of
_NUMPY = 7  # the first whose operators broadcast as NumPy does
_ONE_SEQUENCE = 9  # the first whose Scan has no batch of its own


def raise_opset(model: ModelProto, minimum: int = MINIMUM_OPSET) -> ModelProto:
    """A model of opset ``minimum`` or newer; the given one where it is that already.

    Raises:
        ModelError: a node has no exact counterpart in the newer opset.
    """
    found = opset_of(model)
    if not found:
        raise ModelError(
            "model names no opset, expected an entry in opset_import; export the model again"
        )
    if found >= minimum:
        return model
    scans = [node for node in walk(model) if node.op_type == "Scan" and is_default_domain(node)]
    if scans and found < _ONE_SEQUENCE:
        raise ModelError(
            f"Scan {scans[0].name or scans[0].output[0]} of opset {found} has a batch of its own, "
            f"which opset {minimum} has not, expected opset {_ONE_SEQUENCE} or newer; export it "
            f"again with opset_version={minimum}"
        )
    light, large = hide_data(model)
    try:
        converted = _converted(light, minimum)
    except ONNX_ERRORS as err:
        raise ModelError(
            f"model of opset {found} cannot be raised to {minimum} ({reason(err)}), expected opset "
            f"{minimum} or newer; export it again with opset_version={minimum}"
        ) from err
    if found < 11 <= minimum:
        _keep_resize_meaning(light, converted)
    return show_data(converted, large, model)


def _converted(light: ModelProto, minimum: int) -> ModelProto:
    """The model as onnx converts it; sizes of free axes are those of ``light`` again, elsewhere.

    Before opset 7 the converter compares sizes to tell whether they broadcast, and refuses those
    that are free; it is given numbers in their place, and where axes go.
    """
    if opset_of(light) >= _NUMPY:
        return version_converter.convert_version(light, minimum)
    told = copy_model(light)
    if opset_of(told) < _INFERRED:
        told = version_converter.convert_version(told, _INFERRED)
    fix_free_axes(told, [value.name for value in told.graph.input], 1)
    _align_channels(told)
    converted = version_converter.convert_version(told, minimum)
    del converted.graph.value_info[:]
    return converted


def _align_channels(model: ModelProto) -> None:
    """Write axes of the second operand, which ``axis`` says until opset 6, into its shape.

    Until then a slope of PRelu for each channel is a list, too. onnx 1.23 writes one axis too many.
    """
    view, names = GraphView(model), Names(model.graph)
    kept: list[NodeProto] = []
    for node in nodes(model):
        given = attributes(node)
        start = given.get("axis") if given.get("broadcast", 0) else None
        if node.op_type == "PRelu" and view.shape(node.input[1]) != (1,):
            start = 1
        if start is not None:
            axes = _axes_behind(node, int(start), *map(view.shape, node.input[:2]))
            stay = [a for a in node.attribute if a.name not in ("axis", "broadcast")]
            del node.attribute[:]
            node.attribute.extend(stay)
            if axes:
                wide = names.tensor(f"{node.input[1]}_aligned")
                kept.append(helper.make_node("Unsqueeze", [node.input[1]], [wide], axes=axes))
                node.input[1] = wide
        kept.append(node)
    replace_nodes(model.graph, kept)


def _axes_behind(node: NodeProto, start: int, left: Shape | None, right: Shape | None) -> list[int]:
    """Axes that the second operand lacks behind its own, which begin at ``start``."""
    if left is None or right is None:
        raise ValueError(f"node {node.name} broadcasts a tensor whose number of axes is not known")
    start += len(left) if start < 0 else 0
    return list(range(len(right), len(left) - start))


def _keep_resize_meaning(old: ModelProto, new: ModelProto) -> None:
    """Say in new terms what Resize-10 and Upsample meant.

    Until opset 10 a coordinate was ``x_out / scale``; Resize-11 defaults to half-pixel centres, and
    onnx's converter leaves it at that. Nearest took the floor, and the ceiling when it shrank
    (onnxruntime: upsamplebase.h). The converter keeps the order of nodes, but gives what was an
    Upsample a new output name, which a graph output or another tool would miss: it gets the old.
    """
    renewed = [node for node in walk(new.graph) if node.op_type == "Resize"]
    resized = [
        node for node in walk(old.graph) if node.op_type in RESIZE_OPS and is_default_domain(node)
    ]
    values = {tensor.name: tensor for tensor in old.graph.initializer}
    for node, resize in zip(resized, renewed, strict=True):
        _rename(new.graph, resize.output[0], node.output[0])
        wanted = {"coordinate_transformation_mode": "asymmetric"}
        mode = {a.name: helper.get_attribute_value(a) for a in node.attribute}.get("mode", b"")
        if mode in (b"nearest", b""):
            wanted["nearest_mode"] = "ceil" if _shrinks(node, values) else "floor"
        kept = [attribute for attribute in resize.attribute if attribute.name not in wanted]
        del resize.attribute[:]
        resize.attribute.extend(kept)
        resize.attribute.extend(helper.make_attribute(*item) for item in wanted.items())


def _rename(graph: GraphProto, found: str, wanted: str) -> None:
    """Give one tensor another name, wherever a node reads or writes it."""
    for node in walk(graph):
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == found:
                    names[index] = wanted
        for body in subgraphs(node):
            for value in body.output:
                value.name = wanted if value.name == found else value.name


def _shrinks(node: NodeProto, values: dict[str, onnx.TensorProto]) -> bool:
    scales = values.get(node.input[1]) if len(node.input) > 1 else None
    return scales is not None and bool((onnx.numpy_helper.to_array(scales) < 1).any())
