"""DLA: every tensor has a range, and some must be equal."""

from __future__ import annotations

from quantization.placement.draft import Draft
from quantization.placement.masked import discards_masks, is_masked
from quantization.placement.walk import is_pass_through, values_of

__all__ = ["elementwise_inputs", "equal_ranges", "every_tensor"]

_ELEMENTWISE = frozenset({"Add", "Div", "Max", "Mean", "Min", "Mul", "Pow", "Sub", "Sum"})
_POOLING = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})


def every_tensor(draft: Draft) -> None:
    """Every float tensor gets a range of its own, network outputs too.

    Weighted layers read their weights as INT8, every other node its activations. Not what is
    masked with -inf or -1e9, nor the mask: no scale is one for both.

    Why: a layer with one tensor without a scale falls back to FP16, to the GPU, or fails.
    Source: [dla], [modelopt]
    """
    for node in draft.view.nodes:
        weighted = node.name in draft.layers
        for index, name in enumerate(node.inputs):
            variable = bool(name) and not draft.view.is_constant(name)
            read = index < 2 if weighted else variable
            if read and not (variable and is_masked(draft.view, name)):
                draft.quantize(node, index)
    outputs = (name for name in draft.view.outputs if draft.is_float(name))
    draft.extra.update(name for name in outputs if not is_masked(draft.view, name))


def elementwise_inputs(draft: Draft) -> None:
    """The inputs of an elementwise layer take one scale, the largest.

    Why: DLA adds and multiplies integers of one scale.
    Source: [dla]
    """
    for node in draft.view.nodes:
        if node.op_type in _ELEMENTWISE:
            names = [name for name in node.inputs if name and not draft.view.is_constant(name)]
            if not any(is_masked(draft.view, name) for name in names):
                draft.share(names)


def equal_ranges(draft: Draft) -> None:
    """Input and output of a pooling or an op that moves values take one scale; Concat's too.

    Why: DLA does not requantize there.
    Source: [dla]
    """
    for node in draft.view.nodes:
        joins = node.op_type == "Concat"
        if discards_masks(draft.view, node):
            continue
        if joins or node.op_type in _POOLING or is_pass_through(draft.view, node):
            read = node.inputs if joins else node.inputs[:1]
            written = [name for name in node.outputs if name and values_of(node, name)]
            draft.share([*(n for n in read if not draft.view.is_constant(n)), *written])
