"""Sizes that profiles leave no choice of, written into a graph that needs them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

import engines
import quantization
from graphs.edit import copy_model
from graphs.view import GraphView
from pipeline.screen import Screen
from quantization.lint.unbuilt import changing_rank

__all__ = ["fix_sizes"]


def fix_sizes(
    prepared: onnx.ModelProto, profiles: Sequence[engines.Profile], screen: Screen
) -> onnx.ModelProto:
    """The graph with sizes of its inputs fixed, where its tensors else change their number of axes.

    A Squeeze without axes gives one sample another rank than two; for ``--minShapes`` that are
    ``--maxShapes`` it has one. Other graphs keep their free axes: a builder has the profiles.

    Args:
        prepared: the graph.
        profiles: that are asked for.
        screen: where it is said what is fixed.
    """
    if not profiles or not any(changing_rank(GraphView(prepared))):
        return prepared
    fixed, said = copy_model(prepared), []
    for value in fixed.graph.input:
        shapes = {shape.get(value.name) for p in profiles for shape in (p.min, p.max)}
        shape = shapes.pop()
        if shape is None or shapes:
            continue
        for dim, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            dim.dim_value = size
        said.append(f"{value.name} {'x'.join(map(str, shape))}")
    if not said:
        return prepared
    screen.add(f"fixed to the only shape asked for: {', '.join(said)}")
    return quantization.prepare(fixed)
