"""Largest magnitudes of the channels of activations, over samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from graphs.view import GraphView
from quantization.measure.execution import Arrays, load_onnxruntime

__all__ = ["channel_amax", "levelling_scales"]

Floats = NDArray[np.float64]

_PART_BYTES = 256 << 20  # of the tensors that one run gives out
_VALUE_BYTES = 4


def channel_amax(
    view: GraphView, axes: Mapping[str, int], samples: Sequence[Arrays]
) -> dict[str, Floats]:
    """Largest magnitude of each channel of each tensor over the samples.

    Args:
        view: of the float network.
        axes: activation or input, at least of two axes → that of its channels; -1 is the last.
        samples: feeds of the inputs, one sample each.

    Raises:
        ModelError: the network cannot be run.
    """
    told = {name: array.shape for name, array in samples[0].items()}
    found: dict[str, Floats] = {}
    for part in _parts(GraphView(view.model, told), [t for t in axes if t not in view.inputs]):
        run = load_onnxruntime(view.model, outputs=part)
        for sample in samples:
            _raise_to(found, run(sample), axes)
    for sample in samples:
        _raise_to(found, {name: sample[name] for name in axes if name in view.inputs}, axes)
    return found


def _raise_to(found: dict[str, Floats], values: Arrays, axes: Mapping[str, int]) -> None:
    for name, array in values.items():
        kept = axes[name] % array.ndim
        others = tuple(axis for axis in range(array.ndim) if axis != kept)
        largest = np.asarray(np.abs(array).max(axis=others, initial=0.0), dtype=np.float64)
        found[name] = np.maximum(found[name], largest) if name in found else largest


def _parts(view: GraphView, tensors: Sequence[str]) -> Iterator[list[str]]:
    """Tensors that fit in memory together; one that is larger comes alone."""
    part: list[str] = []
    held = 0
    for name in tensors:
        size = math.prod(view.nominal_shape(name)) * _VALUE_BYTES
        if part and held + size > _PART_BYTES:
            yield part
            part, held = [], 0
        part.append(name)
        held += size
    if part:
        yield part


def levelling_scales(amax: Floats, smallest: float) -> Floats:
    """Scales that bring channels to one magnitude: what each is of the largest, (C,).

    A dead channel takes the geometric mean of the others. Its values ask for nothing, but those
    who read it have weights for it: left alone where the others are scaled down, they would be the
    largest of their rows. A perceptron of 1,024 channels went from 2.3 to 4.1 dB instead of 16.5.

    Args:
        amax: largest magnitude of each channel, (C,); 0 for dead ones.
        smallest: of a scale.
    """
    alive = amax > 0
    if not alive.any():
        return np.ones(amax.size)
    shares = np.maximum(amax / amax.max(), smallest)
    return np.asarray(np.where(alive, shares, np.exp(np.log(shares[alive]).mean())))
