"""The opset of a model, and what the C++ functions of onnx are given of one."""

from __future__ import annotations

import onnx
from onnx import ModelProto, checker, helper, shape_inference, version_converter

from graphs.tensor_data import without_data

__all__ = ["ONNX_ERRORS", "default_opsets", "hide_data", "opset_of", "reason", "show_data"]

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
    return max((entry.version for entry in default_opsets(model)), default=0)


def default_opsets(model: ModelProto) -> list[onnx.OperatorSetIdProto]:
    """The model's own entries of the default operator set, under either of its names."""
    return [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")]


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
    light.ir_version = max(
        original.ir_version, helper.find_min_ir_version_for(default_opsets(light), True)
    )
    return light
