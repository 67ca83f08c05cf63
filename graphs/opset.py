"""Opset: raised to 13 where older, kept where newer.

13 is the first opset whose QuantizeLinear takes an axis, so the first that holds INT8 with
per-channel weights, and TensorRT 8.6 reads everything up to 17: raising further would only lose
readers.
"""

from __future__ import annotations

import onnx
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    checker,
    helper,
    shape_inference,
    version_converter,
)

from artefacts.errors import ModelError
from graphs.operators import RESIZE_OPS
from graphs.tensor_data import without_data
from graphs.walk import is_default_domain, subgraphs, walk

__all__ = ["MINIMUM_OPSET", "ONNX_ERRORS", "opset_of", "raise_opset", "reason"]

MINIMUM_OPSET = 13
# What the C++ functions of onnx raise for graphs that make no sense; none derives from another.
ONNX_ERRORS = (
    checker.ValidationError,
    shape_inference.InferenceError,
    version_converter.ConvertError,
    IndexError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
_LARGE_BYTES = 4096  # no shape, axis or scale that a conversion must read is this large


def opset_of(model: ModelProto) -> int:
    """Version of the default operator set; 0 where the model names none."""
    return max((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), default=0)


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
    light, large = hide_data(model)
    try:
        converted = version_converter.convert_version(light, minimum)
    except ONNX_ERRORS as err:
        raise ModelError(
            f"model of opset {found} cannot be raised to {minimum} ({reason(err)}), expected opset "
            f"{minimum} or newer; export it again with opset_version={minimum}"
        ) from err
    if found < 11 <= minimum:
        _keep_resize_meaning(light, converted)
    return show_data(converted, large, model)


def reason(err: Exception) -> str:
    """What an error of onnx says, on one line."""
    return " ".join(str(err).split())[:300] or type(err).__name__


def hide_data(model: ModelProto) -> tuple[ModelProto, list[onnx.TensorProto]]:
    """A copy with large initializers as graph inputs, and those initializers.

    The C++ functions of onnx serialize what they are given: 2 GB is too much for them, and
    weights are no use to them.
    """
    light, large = without_data(model, _LARGE_BYTES)
    hidden = {tensor.name for tensor in large}
    kept = [tensor for tensor in light.graph.initializer if tensor.name not in hidden]
    del light.graph.initializer[:]
    light.graph.initializer.extend(kept)
    for tensor in large:
        light.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    light.ir_version = max(light.ir_version, 4)  # before 4 each initializer must be an input
    return light, large


def show_data(light: ModelProto, large: list[onnx.TensorProto], original: ModelProto) -> ModelProto:
    """Undo ``hide_data``: weights back in, inputs and outputs as ``original`` declares them."""
    light.graph.initializer.extend(large)
    for field in ("input", "output"):
        values = getattr(light.graph, field)
        del values[:]
        values.extend(getattr(original.graph, field))
    light.ir_version = max(original.ir_version, helper.find_min_ir_version_for(_known(light), True))
    return light


def _known(model: ModelProto) -> list[onnx.OperatorSetIdProto]:
    return [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")]


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
