"""Which channels are equalised, and how far: by the error that the readers make of them.

Two passes over the float network. The first takes the largest magnitude of each channel. In the
second, the readers of every quantized tensor are judged (judge) with each of four sets of scales.
Tensors whose channels scale together (a residual stage) are judged by the sum of their errors;
those that need a Mul of their own get it only where INT8 fails without: more than 1/200 of the
power lost, and four times less after. What products read along its last axis behind constants is
judged alone (smooth). What else is free goes half way in a second network, for whoever can say
which of the two comes closer to float as a whole: CIFAR's ResNet-20 gained 0.6 dB by it over four
choices of samples, MobileNetV2 0.3, three others 0.0 to 0.3, and ResNet-8 lost 0.2.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from calibrators.ranges.ranges import Ranges
from graphs.channel_groups import ChannelGroups
from graphs.identity import graph_hash
from graphs.view import GraphView
from quantization.improve.channels.amax import channel_amax, levelling_scales
from quantization.improve.channels.equalize import (
    equalizing_factors,
    group_scales,
    inserting_factors,
    scalable,
)
from quantization.improve.channels.judge import HALF, NAMES, NONE, Judge
from quantization.improve.channels.rescale import rescale
from quantization.improve.channels.smooth import (
    absorbers,
    last_axis_readers,
    smooth_sets,
    smoothing_factors,
)
from quantization.improve.walk.float_and_int8 import FloatAndInt8
from quantization.measure.execution import Arrays, is_large
from quantization.placement import Placement

__all__ = ["equalized"]

logger = logging.getLogger(__name__)
Floats = NDArray[np.float64]

_FREE_GAIN = 0.9  # of the error; less is within what sampling changes
_SMOOTH_GAIN = 0.5  # gains of a third change a transformer's outputs by chance, 0.7 dB either way
_COSTLY_GAIN, _COSTLY_ERROR = 0.25, 5e-3
_SMALLEST_OWN = 1 / 4096  # of a Mul of its own, whose 1 / s float16 still holds
_MOST_SAMPLES = 32  # enough for largest magnitudes and a thousand columns


def equalized(
    model: onnx.ModelProto,
    placement: Placement,
    ranges: Ranges,
    samples: Sequence[Arrays],
    *,
    seed: int,
) -> tuple[tuple[onnx.ModelProto, Ranges], ...]:
    """The model with equalised channels, and ranges that fit.

    The first as readers judge. The second goes half way wherever that costs nothing; there is none
    of a large model, which would be held once more, or where it is the first.

    Args:
        model: a prepared model; it is not changed.
        placement: of it, and of the result: names are kept.
        ranges: of its tensors.
        samples: feeds, one sample each.
        seed: of the positions at which errors are taken.
    """
    view, samples = GraphView(model), samples[:_MOST_SAMPLES]
    tried = _tried(view, placement, samples)
    judge = Judge(view, placement, tried.choices, tried.amax, seed)
    FloatAndInt8(view=view, samples=samples, correct=False).walk(judge.look)
    chosen = _by_readers(tried, judge)
    found = [_applied(view, ranges, tried, judge, chosen)]
    half = {name: best if name in tried.costly else HALF for name, best in chosen.items()}
    if half != chosen and not is_large(model):
        found.append(_applied(view, ranges, tried, judge, half))
    return tuple(found)


def _by_readers(tried: _Tried, judge: Judge) -> dict[str, int]:
    """The set of scales of each tensor: those of a group together, the others alone."""
    chosen: dict[str, int] = {}
    for members in tried.components:
        best = judge.best(members, _FREE_GAIN)
        chosen.update(dict.fromkeys(members, best))
        logger.debug("equalised %s: %s", NAMES[best], ", ".join(members))
    for name, gain in (*tried.behind.items(), *tried.costly.items()):
        best, lost = judge.best([name], gain), judge.error(name, NONE)
        fails = name in tried.behind or lost > _COSTLY_ERROR
        chosen[name] = best if fails else NONE
        logger.debug("equalised alone %s, %.3g of the power lost: %s", NAMES[best], lost, name)
    return chosen


def _applied(
    view: GraphView,
    ranges: Ranges,
    tried: _Tried,
    judge: Judge,
    chosen: Mapping[str, int],
) -> tuple[onnx.ModelProto, Ranges]:
    """The model with these sets of scales, and the ranges that suit them."""
    scales = np.ones(tried.groups.count)
    for members in tried.components:
        variables = np.unique(np.concatenate([tried.groups.variables(n) for n in members]))
        scales[variables] = tried.sets[chosen[members[0]], variables]
    taken = {name: tried.choices[name][best] for name, best in chosen.items() if best != NONE}
    smoothed = {name: scale for name, scale in taken.items() if name in tried.behind}
    inserted = {name: scale for name, scale in taken.items() if name in tried.costly}
    changed = {
        name: judge.range_of(name, chosen[name])
        for name, scale in taken.items()
        if (scale != 1).any()
    }
    factors = [
        *equalizing_factors(tried.groups, scales),
        *smoothing_factors(view, smoothed, tried.quantized),
        *inserting_factors(view, inserted),
    ]
    result = rescale(view, factors, inserted)
    return result, replace(ranges.replace(changed), graph_hash=graph_hash(result))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tried:
    """Scales that are tried.

    Attributes:
        groups: channels that scale together.
        sets: of all their variables, (4, V).
        quantized: tensors with a range.
        amax: tensor → largest magnitude of each channel, (C,).
        choices: tensor → scales to try, (4, C).
        behind: those that the constants before them scale, with the gain that is asked for.
        costly: those that take a Mul of their own, likewise.
    """

    groups: ChannelGroups
    sets: Floats
    quantized: frozenset[str]
    amax: Mapping[str, Floats]
    choices: Mapping[str, Floats]
    behind: Mapping[str, float]
    costly: Mapping[str, float]

    @cached_property
    def components(self) -> list[list[str]]:
        """Tensors whose channels scale together."""
        return self.groups.components(sorted(name for name in self.amax if name in self.groups))


def _tried(view: GraphView, placement: Placement, samples: Sequence[Arrays]) -> _Tried:
    groups = ChannelGroups(view)
    quantized = frozenset({e.observed for e in placement.activations} - set(placement.fixed))
    shared = {name for group in placement.shared for name in group}
    pinned = [q for q in quantized if q not in groups or not groups.variables(q).any()]
    behind = _behind_constants(view, quantized, sorted({*pinned} - shared))
    grouped = sorted(q for q in quantized if q in groups and q not in behind)
    axes = {**dict.fromkeys(grouped, 1), **dict.fromkeys(behind, -1)}
    amax = channel_amax(view, axes, samples)
    full, mean = group_scales(groups, {name: amax[name] for name in grouped})
    sets = np.stack([np.ones(groups.count), np.sqrt(full), full, mean])
    choices = {name: sets[:, groups.variables(name)] for name in grouped}
    for name in behind:
        choices[name] = smooth_sets(amax[name], last_axis_readers(view, name))
    own = {*pinned} & {*grouped} - shared
    costly = sorted(name for name in own if scalable(view, name))
    choices.update((name, _own_scales(amax[name])) for name in costly)
    return _Tried(
        groups=groups,
        sets=sets,
        quantized=quantized,
        amax=amax,
        choices=choices,
        behind=behind,
        costly=dict.fromkeys(costly, _COSTLY_GAIN),
    )


def _behind_constants(
    view: GraphView, quantized: frozenset[str], names: Sequence[str]
) -> dict[str, float]:
    """Tensors that the constants before them can scale, and the gain for which they do."""
    found = {}
    for name in names:
        constants = absorbers(view, name, quantized) if last_axis_readers(view, name) else ()
        if constants:
            widens = any(each.widens(view) for each in constants)
            found[name] = _COSTLY_GAIN if widens else _SMOOTH_GAIN
    return found


def _own_scales(amax: Floats) -> Floats:
    """The sets for a tensor that a Mul of its own scales."""
    full = levelling_scales(amax, _SMALLEST_OWN)
    return np.stack([np.ones(amax.size), np.sqrt(full), full, full])
