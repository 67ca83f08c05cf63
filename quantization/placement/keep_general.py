"""Layers that cannot be INT8 at all, and those the user said no to."""

from __future__ import annotations

from graphs.macs import work
from graphs.operators import ALWAYS_FLOAT_OPS, CONTROL_OPS, CONVOLUTION_OPS
from graphs.view import Node
from quantization.placement.draft import Draft

__all__ = [
    "computed_weights",
    "constant_layer",
    "excluded",
    "lacking_kernel",
    "masked_values",
    "not_float32",
    "other_products",
    "unchanging_data",
]


def excluded(draft: Draft, node: Node) -> str | None:
    """Layers named by ``--exclude`` stay in floating point.

    Why: the user knows, or a sensitivity search found, that they lose too much accuracy.
    Source: ours
    """
    return "excluded by the user" if node.name in draft.excluded else None


def constant_layer(draft: Draft, node: Node) -> str | None:
    """A layer without a variable input is left to constant folding.

    Why: it costs nothing at run time.
    Source: ours
    """
    constant = all(draft.view.is_constant(name) for name in node.inputs if name)
    return "all its inputs are constant" if constant else None


def unchanging_data(draft: Draft, node: Node) -> str | None:
    """A layer whose data no sample changes stays in floating point.

    Its data is made of constants and sizes: the zeros that an unrolled LSTM begins with.

    Why: a range of one value says nothing, and OpenVINO 2026.4 computes it wrong (a CAPTCHA
    reader's engine was 12.1 dB from its graph).
    Source: measured
    """
    data = [name for name in node.inputs[:2] if name and not draft.view.is_constant(name)]
    if data and draft.unchanging.issuperset(data):
        return f"its input {data[0]} is the same for every sample"
    return None


def masked_values(draft: Draft, node: Node) -> str | None:
    """A layer that reads values beyond 1e30 stays in floating point.

    They are a mask, float32's lowest; known as soon as ranges are.

    Why: such a range overflows where it is computed with: OpenVINO 2026.4 makes NaN of it.
    Longformer spreads its mask over pairs of tokens by a product.
    Source: measured
    """
    for name in node.inputs[:2]:
        if name and (amax := draft.overflows(name)) is not None:
            return f"{name} reaches {amax:.3g}: a mask, no numbers"
    return None


def not_float32(draft: Draft, node: Node) -> str | None:
    """A layer of another type than float32 keeps it.

    Why: scales are float32, and QuantizeLinear wants the type of its input before opset 19.
    Source: [onnx]
    """
    odd = [name for name in node.inputs[:2] if not draft.is_float(name)]
    return f"input {odd[0]} is not float32" if odd else None


def computed_weights(draft: Draft, node: Node) -> str | None:
    """A Conv or ConvTranspose whose weights are computed stays in floating point.

    Why: a scale per output channel needs constant weights.
    Source: [explicit], [modelopt]
    """
    if node.op_type not in CONVOLUTION_OPS or draft.view.is_constant(node.inputs[1]):
        return None
    return f"its weight {node.inputs[1]} is computed, not constant"


def lacking_kernel(draft: Draft, node: Node) -> str | None:
    """Layers that the runtime has no INT8 kernel for stay in floating point.

    TensorRT-RTX 1.7.1 has none for ConvTranspose, with and without groups.

    Why: it compiles them in float with Q/DQ around them or not, with the same kernels before and
    behind (SM 8.6, 8.9 and 12.0).
    Source: measured
    """
    return f"no INT8 kernel for {node.op_type}" if node.op_type in draft.lacking else None


def other_products(draft: Draft) -> None:
    """LSTM, GRU, RNN, Einsum, Attention, DeformConv, custom operators and bodies are left alone.

    Why: no runtime here has an explicit INT8 kernel for them; their neighbours are quantized.
    Source: [explicit]
    """
    for node in draft.view.nodes:
        if node.op_type in ALWAYS_FLOAT_OPS:
            draft.leave(node, "other_products", f"no INT8 kernel for {node.op_type}")
        elif "." in node.op_type:
            draft.leave(node, "other_products", f"{node.op_type} is an operator unknown here")
        elif node.op_type in CONTROL_OPS and work(draft.view, node):
            draft.leave(node, "other_products", f"no INT8 in the body of {node.op_type}")
