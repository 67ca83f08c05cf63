"""A weighted layer as the matrix product it is: Y = W X per group, columns of X sampled.

Rounding and clipping of weights, and the choice of an activation range, ask how much of a change
of W or X is seen in Y. All of them need the same two views, for Conv of any rank, Gemm and MatMul:
the weight as (groups, C_out / groups, K) and inputs as (positions, groups, K).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphs.view import GraphView, Node

__all__ = [
    "LayerMatrix",
    "SampledColumns",
    "layer_matrix",
    "reading_layers",
    "sample_columns",
]

Array = NDArray[Any]
_Sizes = tuple[int, ...]

# Positions are cut down where one has more values than this: wide layers have many channels to
# average over, and their columns would fill the memory.
_EASY_VALUES = 2048
_FEWEST_POSITIONS = 256
_ENOUGH_WEIGHTS = 1 << 18


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerMatrix:
    """One weighted layer with a constant weight.

    Attributes:
        node: the layer.
        tensor: name of its weight.
        weight: the stored constant, e.g. (C_out, C_in / groups, kh, kw).
        groups: number of groups; 1 but for grouped convolutions.
        transposed: the weight is stored (K, C_out), as MatMul and Gemm with transB=0 do.
    """

    node: Node
    tensor: str
    weight: Array
    groups: int
    transposed: bool

    @property
    def is_conv(self) -> bool:
        """Whether inputs must be cut into patches."""
        return self.node.op_type == "Conv"

    @property
    def inputs(self) -> int:
        """K: how many inputs each output sums."""
        return int(self.stored.shape[-1])

    @property
    def stored(self) -> Array:
        """The weight as (groups, C_out / groups, K) in its own type; nothing is copied."""
        if self.transposed:
            return self.weight.T[None]
        return self.weight.reshape(self.groups, self.weight.shape[0] // self.groups, -1)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """:attr:`stored` in float64."""
        return np.asarray(self.stored, dtype=np.float64)

    @property
    def judging(self) -> NDArray[np.float64]:
        """:attr:`matrix`; of a very large layer as many output channels as it takes to judge by."""
        step = -(-self.weight.size // _ENOUGH_WEIGHTS)
        return np.asarray(self.stored[:, ::step], dtype=np.float64)

    @property
    def channels(self) -> NDArray[np.int64]:
        """The input channel that each column of the matrix reads: (groups, K)."""
        size = self.weight.shape[0] if self.transposed else self.weight.shape[1]
        taps = int(np.prod(self.weight.shape[2:])) if self.is_conv else 1
        within = np.repeat(np.arange(size), taps)
        return np.asarray(within[None] + size * np.arange(self.groups)[:, None], dtype=np.int64)

    def restore(self, matrix: Array) -> Array:
        """The inverse of :attr:`matrix`, of any type: codes or weights in the stored shape."""
        return np.asarray(matrix[0].T if self.transposed else matrix.reshape(self.weight.shape))

    def positions(self, x: Array) -> int:
        """How many columns an input has: output pixels of a batch, or rows of a matrix."""
        if not self.is_conv:
            return int(np.prod(x.shape[:-1]))
        return int(x.shape[0] * np.prod(_outputs(x, *self._geometry(x))))

    def columns(self, x: Array, chosen: NDArray[np.int64]) -> Array:
        """Columns of the input matrix: (len(chosen), groups, K).

        Args:
            x: what the layer reads, e.g. (N, C_in, H, W).
            chosen: which positions, counted row by row over (N, output H, output W).
        """
        if not self.is_conv:
            return np.asarray(x.reshape(-1, x.shape[-1])[chosen][:, None, :])
        spans, strides, pads = geometry = self._geometry(x)
        if len(x) == 1 and {*spans, *strides} == {1} and not np.any(pads):
            patches = x.reshape(x.shape[1], -1)[:, chosen].T
        else:
            patches = self._patches(x, chosen, *geometry)
        return np.asarray(patches.reshape(len(chosen), self.groups, -1))

    def _geometry(self, x: Array) -> tuple[_Sizes, _Sizes, list[tuple[int, int]]]:
        """What a kernel spans, its strides, and the padding, of each spatial axis."""
        kernel = self.weight.shape[2:]
        strides = self.node.integers("strides", (1,) * len(kernel))
        dilations = self.node.integers("dilations", (1,) * len(kernel))
        spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
        return spans, strides, _pads(self.node, x.shape[2:], spans, strides)

    def _patches(
        self,
        x: Array,
        chosen: NDArray[np.int64],
        spans: _Sizes,
        strides: _Sizes,
        pads: list[tuple[int, int]],
    ) -> Array:
        """What lies in some windows, (len(chosen), C_in, *kernel); only that is read."""
        sample, *corners = np.unravel_index(
            chosen, (x.shape[0], *_outputs(x, spans, strides, pads))
        )
        rank = len(spans)
        alone = (-1, *(1,) * rank)
        where, inside = list[Array](), np.ones((1,) * (rank + 1), bool)
        for axis, taps in enumerate(self.weight.shape[2:]):
            step = (spans[axis] - 1) // max(taps - 1, 1)
            steps = np.expand_dims(step * np.arange(taps), [n for n in range(rank) if n != axis])
            at = (corners[axis] * strides[axis] - pads[axis][0]).reshape(alone) + steps
            last = x.shape[axis + 2] - 1
            if any(pads[axis]):
                inside = inside & (at >= 0) & (at <= last)
            where.append(np.clip(at, 0, last))
        index: Any = (sample.reshape(alone), slice(None), *where)
        found = np.moveaxis(x[index], -1, 1)
        return found if inside.all() else np.where(inside[:, None], found, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class SampledColumns:
    """Columns of some samples.

    Attributes:
        rows: all of them, (n, groups, K) in float32.
        starts: the first row of each sample, in the order of the rows.
    """

    rows: NDArray[np.float32]
    starts: tuple[int, ...]


def layer_matrix(view: GraphView, node: Node) -> LayerMatrix | None:
    """The matrix view of a layer, or None where it has none.

    ConvTranspose, products of two activations, batched constants, weights on the left, and Gemm
    with transA or alpha other than 1 have none: their weights are rounded to nearest.
    """
    if len(node.inputs) < 2 or view.is_constant(node.inputs[0]):
        return None
    weight = view.constant(node.inputs[1])
    if weight is None or weight.dtype not in (np.float32, np.float16, np.float64):
        return None
    if node.op_type == "Conv" and weight.ndim >= 3:
        return LayerMatrix(
            node=node,
            tensor=node.inputs[1],
            weight=weight,
            groups=node.integer("group", 1),
            transposed=False,
        )
    plain_gemm = (
        node.op_type == "Gemm"
        and not node.integer("transA", 0)
        and node.attributes.get("alpha", 1.0) == 1.0
    )
    if weight.ndim == 2 and (plain_gemm or node.op_type == "MatMul"):
        return LayerMatrix(
            node=node,
            tensor=node.inputs[1],
            weight=weight,
            groups=1,
            transposed=node.op_type == "MatMul" or not node.integer("transB", 0),
        )
    return None


def reading_layers(view: GraphView, tensor: str) -> tuple[LayerMatrix, ...]:
    """The layers that read an inner tensor as their data; none where anything else reads it."""
    if tensor in view.inputs or tensor in view.read_outside:
        return ()
    found = []
    for use in view.uses(tensor):
        layer = layer_matrix(view, use.node) if use.index == 0 else None
        if layer is None:
            return ()
        found.append(layer)
    return tuple(found)


def sample_columns(
    layer: LayerMatrix | None,
    samples: Sequence[Array],
    *,
    wanted: int,
    seed: int,
    change: Callable[[Array], Array] | None = None,
    then: Callable[[Array], Array] | None = None,
    first: Collection[int] = (),
) -> SampledColumns:
    """Columns at random positions of each sample; equal seeds, equal positions.

    Args:
        layer: whose columns; None takes single values, (n, 1, 1).
        samples: what the layer reads, one array a sample.
        wanted: about how many positions in all; at least one of each sample, and fewer where a
            position has many values.
        seed: of the positions.
        change: of a sample, before its columns are taken.
        then: of its columns.
        first: numbers of the samples whose columns come first.
    """
    if layer is not None:
        size = layer.inputs * layer.groups
        wanted = min(wanted, max(wanted * _EASY_VALUES // size, _FEWEST_POSITIONS))
    share = max(1, wanted // len(samples))
    found, starts, end = np.zeros((0, 1, 1), np.float32), list[int](), 0
    order = [*first, *(number for number in range(len(samples)) if number not in first)]
    for number in order:  # threads would wait for memory, and for each other
        x = samples[number] if change is None else change(samples[number])
        total = x.size if layer is None else layer.positions(x)
        rng = np.random.default_rng((seed, number))
        chosen = np.sort(rng.choice(total, min(share, total), replace=False))
        if layer is None:
            columns = x.reshape(-1)[chosen][:, None, None]
        else:
            columns = layer.columns(x, chosen)
        if not starts:  # rows that stay empty cost nothing
            found = np.empty((share * len(samples), *columns.shape[1:]), np.float32)
        starts.append(end)
        end += len(columns)
        found[starts[-1] : end] = columns if then is None else then(columns)
    return SampledColumns(rows=found[:end], starts=tuple(starts))


def _outputs(
    x: Array, spans: _Sizes, strides: _Sizes, pads: Sequence[tuple[int, int]]
) -> tuple[int, ...]:
    """The size of a convolution's output along each spatial axis."""
    sizes = zip(x.shape[2:], pads, spans, strides, strict=True)
    return tuple((size + sum(pad) - span) // stride + 1 for size, pad, span, stride in sizes)


def _pads(
    node: Node, size: Sequence[int], spans: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """Padding before and after each spatial axis, ``auto_pad`` worked out."""
    rank = len(size)
    kind = node.text("auto_pad", "NOTSET")
    if kind in ("SAME_UPPER", "SAME_LOWER"):
        pads = []
        for n, span, stride in zip(size, spans, strides, strict=True):
            total = max((-(-n // stride) - 1) * stride + span - n, 0)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if kind == "SAME_UPPER" else (large, small))
        return pads
    given = () if kind == "VALID" else node.integers("pads")
    flat = given or (0,) * (2 * rank)
    return [(flat[i], flat[i + rank]) for i in range(rank)]
