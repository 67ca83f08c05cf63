"""Weights of a network in training, rounded as export will round them for CPUs without VNNI."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from artefacts.libraries import require
from graphs.pairs import pair_partners
from quantization.write.bounded_weights import quantize_bounded

if TYPE_CHECKING:
    import torch

__all__ = ["bounded_rounding"]

_NAME = "int8_engine::bounded_weight"


@cache
def bounded_rounding() -> Callable[
    [torch.Tensor, int | None, int], tuple[torch.Tensor, torch.Tensor]
]:
    """The function ``weight, axis, pairs → codes · scale, scale``, without a gradient.

    It is one operator to torch, so that ``torch.compile`` calls it as it is. What it computes is
    ``quantization.write.bounded_weights.quantize_bounded``, which writes the graph, too. A weight
    with NaN or infinity gives NaN: a network that diverged shows it in its loss.

    Raises:
        MissingLibraryError: torch is not installed.
    """
    require("torch", extra="qat")
    import torch

    def bounded_weight(
        weight: torch.Tensor, axis: int | None, pairs: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        values = weight.detach().float().cpu().numpy()
        if np.isfinite(values).all():
            codes, found = quantize_bounded(values, axis, pair_partners(values.shape, pairs, axis))
        else:
            codes, found = np.zeros(values.shape, np.int8), _nan(values, axis)
        scale = torch.from_numpy(np.array(found)).to(weight.device)
        steps = scale
        if axis is not None:
            steps = scale.reshape([-1 if place == axis else 1 for place in range(weight.ndim)])
        return torch.from_numpy(codes).to(weight.device).float() * steps, scale

    def shapes(
        weight: torch.Tensor, axis: int | None, pairs: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        size = () if axis is None else (weight.shape[axis],)
        return (torch.empty_like(weight, dtype=torch.float32), weight.new_empty(size).float())

    schema = "(Tensor weight, int? axis, int pairs) -> (Tensor, Tensor)"
    operator = torch.library.custom_op(_NAME, bounded_weight, mutates_args=(), schema=schema)
    operator.register_fake(shapes)
    return operator


def _nan(values: Any, axis: int | None) -> Any:
    return np.full(() if axis is None else values.shape[axis], np.nan, np.float32)
