"""PyTorch modules that stand in a network being trained: fake quantizers and BatchNorm.

The classes are made at first use, so that this module imports without torch and torchao.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from artefacts.libraries import require
from quantization.qat.bounded import bounded_rounding

if TYPE_CHECKING:
    import torch

__all__ = ["EXTRA", "activation_quantizer", "batch_norm", "weight_quantizer"]

EXTRA = "qat"
LEVELS = 127
# What a new batch counts for in the moving range: torch.ao's averaging_constant.
_STEP = 0.01


@cache
def activation_quantizer() -> type[Any]:
    """The class of fake quantizers for activations: one moving range per tensor.

    ``q = clip(round(x / scale), -128, 127)`` with ``scale = amax / 127``, as ONNX QuantizeLinear
    and TensorRT compute it; the gradient of what is clipped is zero, else it passes.
    """
    require("torchao.quantization.pt2e", extra=EXTRA)
    import torch
    from torchao.quantization.pt2e import FakeQuantizeBase

    to_codes = _rounding()

    class ActivationFakeQuantizer(FakeQuantizeBase):  # type: ignore[misc] # no types
        """A range that starts calibrated and then moves as the batches' largest |x| move.

        With m the moving average of the batches' largest |x|, ``amax`` is scaled by what m is
        scaled by; without a calibrated start that makes ``amax = m``. So a range that entropy or
        a percentile clipped below the maximum stays clipped while the network trains.

        Attributes:
            amax: the range; 0 before anything was observed.
            batch_amax: m; 0 before the first batch.
            observing: whether training batches move the range.
            calls: how often one forward pass comes through here (tensors that share a scale).
        """

        amax: torch.Tensor
        batch_amax: torch.Tensor

        def __init__(self, **spec: Any) -> None:
            super().__init__()
            self.dtype, self.qscheme = torch.int8, torch.per_tensor_symmetric
            self.quant_min, self.quant_max, self.ch_axis = -LEVELS - 1, LEVELS, -1
            self.is_dynamic = False
            self.observing, self.observed, self.calls = True, False, 1
            self.register_buffer("amax", torch.zeros(()))
            self.register_buffer("batch_amax", torch.zeros(()))
            self._pending: torch.Tensor | None = None
            self._pending_calls = 0

        def start(self, amax: float) -> None:
            """Start from a calibrated range."""
            self.amax.fill_(amax)
            self.observed = True

        def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
            """Scale and zero point, as torchao asks for them."""
            return _scale(self.amax), torch.zeros_like(self.amax, dtype=torch.int32)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Round ``x`` to its codes; before any range is known, hand it on."""
            if self.training and self.observing:
                self._observe(x.detach())
            if not self.observed:
                return x
            return to_codes(x, _scale(self.amax), self.quant_min, self.quant_max)

        def _observe(self, x: torch.Tensor) -> None:
            """One scale for several tensors follows the largest of them in this pass."""
            largest = x.abs().amax().float()
            if self._pending is not None:
                largest = torch.maximum(largest, self._pending)
            self._pending_calls += 1
            if self._pending_calls < self.calls:
                self._pending = largest
                return
            self._pending, self._pending_calls = None, 0
            # A step that overflowed under mixed precision says nothing about the range.
            largest = torch.where(largest.isfinite(), largest, self.batch_amax)
            known = self.batch_amax > 0
            moved = torch.where(known, torch.lerp(self.batch_amax, largest, _STEP), largest)
            growth = torch.where(known, moved / self.batch_amax, torch.ones_like(moved))
            self.amax.copy_(torch.where(self.amax > 0, self.amax * growth, moved))
            self.batch_amax.copy_(moved)
            self.observed = True

        def get_extra_state(self) -> torch.Tensor:
            """The switches, as a tensor so that ``torch.load(weights_only=True)`` takes it."""
            return torch.tensor([self.observing, self.observed])

        def set_extra_state(self, state: torch.Tensor) -> None:
            """Put the switches back."""
            self.observing, self.observed = (bool(switch) for switch in state)

    return ActivationFakeQuantizer


@cache
def weight_quantizer() -> type[Any]:
    """The class of fake quantizers for weights: the range is that of the weight as it is.

    ``q = clip(round(w / scale), -127, 127)`` with ``scale = amax / 127`` per output channel; with
    ``pairs``, the codes and scales that ``quantization.write.bounded_weights`` finds.
    """
    require("torchao.quantization.pt2e", extra=EXTRA)
    import torch
    from torchao.quantization.pt2e import FakeQuantizeBase

    to_codes, bounded = _rounding(), bounded_rounding()

    class WeightFakeQuantizer(FakeQuantizeBase):  # type: ignore[misc] # no types
        """Scales are computed anew in every pass, so they are no state.

        Attributes:
            axis: the output channels; None for one scale.
            pairs: the input channels, of which no pair of neighbours may saturate; None where
                they may.
        """

        def __init__(self, axis: int | None, pairs: int | None = None, **spec: Any) -> None:
            super().__init__()
            self.axis, self.pairs = axis, pairs
            self.dtype = torch.int8
            self.qscheme = (
                torch.per_tensor_symmetric if axis is None else torch.per_channel_symmetric
            )
            self.quant_min, self.quant_max = -LEVELS, LEVELS
            self.ch_axis = -1 if axis is None else axis
            self.is_dynamic = False
            self.register_buffer("scale", torch.ones(()), persistent=False)

        def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
            """Scale and zero point of the last pass, as torchao asks for them."""
            return self.scale, torch.zeros_like(self.scale, dtype=torch.int32)

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            """Round ``weight`` to its codes."""
            if self.pairs is not None:
                rounded, self.scale = bounded(weight.detach(), self.axis, self.pairs)
                # Adds zeros: the gradient of a code is that of its weight, clipped or not.
                return (rounded + (weight - weight.detach())).to(weight.dtype)
            magnitude = weight.detach().float().abs()
            if self.axis is None:
                self.scale = scale = _scale(magnitude.amax())
            else:
                others = [axis for axis in range(weight.ndim) if axis != self.axis]
                kept = magnitude.amax(dim=others, keepdim=True) if others else magnitude
                scale = _scale(kept)
                self.scale = scale.flatten()
            return to_codes(weight, scale, self.quant_min, self.quant_max)

    return WeightFakeQuantizer


@cache
def _rounding() -> Callable[[torch.Tensor, torch.Tensor, int, int], torch.Tensor]:
    """The function ``x, scale, low, high → clip(round(x / scale), low, high) · scale``.

    torch's own fake quantization multiplies by 1 / scale, so it rounds some values next to a tie
    otherwise than ONNX's QuantizeLinear, which divides; and it cannot be compiled without
    gradients.
    """
    require("torch", extra=EXTRA)
    import torch

    class Rounding(torch.autograd.Function):
        """The gradient passes where nothing is clipped (straight-through estimator)."""

        @staticmethod
        def forward(
            context: Any, x: torch.Tensor, scale: torch.Tensor, low: int, high: int
        ) -> torch.Tensor:
            codes = (x.float() / scale).round_()
            context.save_for_backward((codes >= low) & (codes <= high))
            return codes.clamp_(low, high).mul_(scale).to(x.dtype)

        @staticmethod
        def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
            (inside,) = context.saved_tensors
            return gradient * inside, None, None, None

    apply: Callable[[torch.Tensor, torch.Tensor, int, int], torch.Tensor] = Rounding.apply
    return apply


@cache
def batch_norm() -> type[torch.nn.Module]:
    """The class of BatchNorm layers of a captured graph.

    A graph captured by ``torch.export`` has BatchNorm fixed to training or evaluation; torchao's
    switch between them puts back momentum 0.1 and epsilon 1e-5 whatever the layer had. As a
    module, ``train()`` and ``eval()`` switch it and its numbers stay.
    """
    require("torch", extra=EXTRA)
    import torch

    class BatchNorm(torch.nn.Module):
        """``frozen`` layers use and keep their running statistics, as in evaluation."""

        def __init__(self, momentum: float, epsilon: float) -> None:
            super().__init__()
            self.momentum, self.epsilon, self.frozen = momentum, epsilon, False

        def forward(
            self,
            x: torch.Tensor,
            weight: torch.Tensor | None,
            bias: torch.Tensor | None,
            mean: torch.Tensor,
            variance: torch.Tensor,
        ) -> torch.Tensor:
            """Normalise ``x`` (N, C, ...); ``mean`` and ``variance`` move while training."""
            training = self.training and not self.frozen
            return torch.nn.functional.batch_norm(
                x, mean, variance, weight, bias, training, self.momentum, self.epsilon
            )

        def get_extra_state(self) -> torch.Tensor:
            """Whether it is frozen."""
            return torch.tensor([self.frozen])

        def set_extra_state(self, state: torch.Tensor) -> None:
            """Put that back."""
            self.frozen = bool(state)

    return BatchNorm


def _scale(amax: torch.Tensor) -> torch.Tensor:
    """Amax / 127; 1 where a tensor or channel is dead, as quantization.arithmetic has it."""
    scale = (amax / LEVELS).clamp_min(1.1754944e-38)
    return scale.where(amax > 0, scale.new_ones(()))
