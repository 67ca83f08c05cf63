"""Quantization arithmetic: scales, zero points, rounding, and the step between real and integer.

Everything follows from one line, ``x ≈ scale * (q - zero_point)``. Setting ``q = qmax`` for
``x = xmax`` and ``q = qmin`` for ``x = xmin`` gives

    scale      = (xmax - xmin) / (qmax - qmin)
    zero_point = qmax - xmax / scale           (rounded to an integer)

and, for a symmetric range ``xmin = -xmax`` on ``qmin = -qmax``, ``scale = amax / qmax`` with zero
point 0. ONNX: https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "ROUNDING",
    "Rounding",
    "affine_parameters",
    "channel_amax",
    "dequantize",
    "integer_limits",
    "quantize",
    "symmetric_scale",
]

Rounding = Literal["half_even", "half_up", "half_away"]
Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]


def _half_up(values: Floats, out: Floats) -> Floats:
    np.add(values, 0.5, out=out)
    return np.floor(out, out=out)


def _half_away(values: Floats, out: Floats) -> Floats:
    up = np.floor(np.abs(values) + 0.5)
    return np.copysign(up, values, out=out)


ROUNDING: dict[Rounding, Callable[[Floats, Floats], Floats]] = {
    "half_even": np.rint,  # ONNX QuantizeLinear; TensorRT activations, and weights with Q/DQ
    "half_up": _half_up,  # TensorRT weights under implicit quantization: ties toward +infinity
    "half_away": _half_away,  # DLA, everywhere
}
"""What a tie does (TensorRT 8.5 developer guide 7.5); all other values round to nearest."""


def integer_limits(bits: int, *, signed: bool = True, symmetric: bool = True) -> tuple[int, int]:
    """Smallest and largest integer of a ``bits``-bit code.

    Symmetric signed codes leave the most negative value out, so that ``-x`` always has a code:
    8 bits give (-127, 127), 3 bits (-3, 3).

    Raises:
        ValueError: fewer than 2 or more than 16 bits.
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"bits is {bits}, expected 2 to 16; INT8 engines use 8")
    if not signed:
        return 0, 2**bits - 1
    top = 2 ** (bits - 1) - 1
    return (-top if symmetric else -top - 1), top


def symmetric_scale(amax: ArrayLike, *, bits: int = 8) -> NDArray[np.float32]:
    """Scale of a symmetric code: ``amax / (2**(bits-1) - 1)``, amax / 127 for INT8.

    An amax of 0 (a dead tensor or channel) gives scale 1.0: it must be positive, and all its
    values are 0 whatever it is. A scale too small for float32 becomes the smallest normal one, and
    one whose largest code overflows float32 the largest that does not.

    Args:
        amax: largest magnitude; a number, or one per channel, e.g. (C_out,).
        bits: width of the code.

    Raises:
        ValueError: an amax is negative, NaN or infinite.
    """
    bound = np.asarray(amax, dtype=np.float64)
    if not (np.isfinite(bound) & (bound >= 0)).all():
        raise ValueError(f"amax is {amax!r}, expected finite values >= 0; check the ranges")
    top = integer_limits(bits)[1]
    scale = np.where(bound > 0, bound / top, 1.0)
    limits = np.finfo(np.float32)
    largest = np.nextafter(limits.max / np.float32(top), np.float32(0))
    return np.clip(scale, limits.tiny, largest).astype(np.float32)


def activation_scale(amax: ArrayLike, *, unsigned: bool = False) -> NDArray[np.float32]:
    """Scale of an INT8 activation: amax / 127, or amax / 255 where its codes are unsigned."""
    bound = np.asarray(amax, dtype=np.float64)
    return symmetric_scale(bound * integer_limits(8)[1] / 255 if unsigned else bound)


def affine_parameters(
    xmin: float, xmax: float, *, bits: int = 8, signed: bool = True
) -> tuple[float, int]:
    """Scale and zero point that map [xmin, xmax] onto the whole ``bits``-bit code.

    The range is widened to hold 0, so that 0 has an exact code (padding, ReLU). A zero point on a
    tie is rounded so that ``xmax`` keeps its code. [-2, 2] on 8 bits: scale 4/255 = 0.0157, zero
    point -1.

    Raises:
        ValueError: the range is empty or not finite.
    """
    low, high = min(float(xmin), 0.0), max(float(xmax), 0.0)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"range is [{xmin}, {xmax}], expected finite bounds with xmin < xmax")
    qmin, qmax = integer_limits(bits, signed=signed, symmetric=False)
    scale = (high - low) / (qmax - qmin)
    zero_point = qmax - int(np.rint(high / scale))
    return scale, int(np.clip(zero_point, qmin, qmax))


def channel_amax(weight: ArrayLike, axis: int) -> Floats:
    """Largest magnitude of each slice along ``axis``: (64, 3, 7, 7), axis 0 → (64,)."""
    values = np.asarray(weight)
    others = tuple(each for each in range(values.ndim) if each != axis % values.ndim)
    largest, smallest = values.max(axis=others, initial=0), values.min(axis=others, initial=0)
    return np.asarray(np.maximum(largest, -smallest))


def quantize(
    x: ArrayLike,
    scale: ArrayLike,
    zero_point: ArrayLike = 0,
    *,
    axis: int | None = None,
    qmin: int = -127,
    qmax: int = 127,
    rounding: Rounding = "half_even",
) -> Integers:
    """``clip(round(x / scale) + zero_point, qmin, qmax)`` in the smallest integer type that fits.

    The quotient is taken in float32, as ONNX and TensorRT take it.

    Args:
        x: real values.
        scale: per tensor (a number), or per channel (one per slice of ``axis``).
        zero_point: code of 0.0, of the scale's shape or a number.
        axis: the channel axis; None for per tensor.
        qmin: smallest code; -127 for weights, -128 where a runtime saturates there.
        qmax: largest code.
        rounding: what a tie does.

    Raises:
        ValueError: the scale does not fit ``x``.
    """
    values = np.asarray(x, dtype=np.float32)
    steps = _spread(np.asarray(scale, dtype=np.float32), values, axis)
    offset = _spread(np.asarray(zero_point), values, axis)
    quotients = np.asarray(values / steps)  # of a large weight there is one copy, not four
    codes = ROUNDING[rounding](quotients, quotients)
    if offset.any():  # in float64, where a weight of 0 would be as large again
        codes = np.asarray(codes + offset)
    return np.asarray(np.clip(codes, qmin, qmax, out=codes), dtype=_code_type(qmin, qmax))


def dequantize(
    q: ArrayLike, scale: ArrayLike, zero_point: ArrayLike = 0, *, axis: int | None = None
) -> NDArray[np.float32]:
    """``scale * (q - zero_point)`` in float32; arguments as for :func:`quantize`.

    Raises:
        ValueError: the scale does not fit ``q``.
    """
    codes = np.asarray(q)
    steps = _spread(np.asarray(scale, dtype=np.float32), codes, axis)
    offset = _spread(np.asarray(zero_point), codes, axis)
    return np.asarray((codes.astype(np.int32) - offset) * steps, dtype=np.float32)


def _code_type(qmin: int, qmax: int) -> np.dtype[np.integer[Any]]:
    """Smallest integer type that holds every code."""
    types = (np.int8, np.uint8, np.int16, np.uint16, np.int32)
    fits = (t for t in types if np.iinfo(t).min <= qmin and qmax <= np.iinfo(t).max)
    return np.dtype(next(fits))


def _spread(parameter: NDArray[Any], values: NDArray[Any], axis: int | None) -> NDArray[Any]:
    """Shape a per-tensor or per-channel parameter so that it broadcasts over values."""
    if parameter.size == 1:
        return parameter.reshape(())
    if axis is None or not -values.ndim <= axis < values.ndim:
        raise ValueError(f"scale has shape {parameter.shape}, expected one value as axis is {axis}")
    axis %= values.ndim
    if parameter.shape != (values.shape[axis],):
        raise ValueError(
            f"scale has shape {parameter.shape}, expected {values.shape[axis]} values along axis "
            f"{axis}, one per channel"
        )
    return parameter.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
