"""Wide layers: rounded in blocks, no worse than whole and within a bound."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from graphs.layer_matrix import layer_matrix
from graphs.pairs import pair_partners, saturating
from graphs.view import GraphView
from quantization.improve.decisions import Decisions
from quantization.improve.methods import Methods
from quantization.improve.walk.float_and_int8 import FloatAndInt8
from quantization.improve.weights.rounding import (
    largest_scale,
    refit,
    round_with_feedback,
    second_moment,
)
from quantization.improve.weights.wide import (
    BLOCK_INPUTS,
    WIDEST_WHOLE,
    round_in_blocks,
    wide_layers,
)
from quantization.measure.execution import load_onnxruntime
from quantization.placement import place
from tests.networks import Builder
from tests.observed import observed_amax, ranges_of

Columns = tuple[np.ndarray, np.ndarray]


def columns(rng: np.random.Generator, size: int, *, groups: int = 1, count: int = 800) -> Columns:
    """Inputs with a few strong common directions, and what INT8 makes of them."""
    exact = rng.normal(size=(count, 12)) @ rng.normal(size=(12, groups * size))
    exact += 0.1 * rng.normal(size=exact.shape)
    step = np.abs(exact).max() / 127
    return tuple(x.reshape(count, groups, size) for x in (exact, np.rint(exact / step) * step))  # type: ignore[return-value]


def output_error(codes: np.ndarray, scale: np.ndarray, matrix: np.ndarray, read: Columns) -> float:
    exact, actual = read
    wanted = np.einsum("gok,ngk->ngo", matrix, exact)
    return float(
        ((np.einsum("gok,ngk->ngo", codes * scale[..., None], actual) - wanted) ** 2).mean()
    )


@pytest.mark.parametrize("groups", [1, 3])
def test_one_block_is_the_whole_layer(groups: int, rng: np.random.Generator) -> None:
    matrix = rng.normal(size=(groups, 8, 24))
    read = exact, actual = columns(rng, 24, groups=groups)
    scale, hessian = largest_scale(matrix), second_moment(actual, actual)
    found = round_in_blocks(matrix, scale, *read, ridge=0.05)
    fitted = refit(matrix, second_moment(exact, actual), hessian, ridge=0.05)
    whole = round_with_feedback(fitted, scale, hessian)
    assert (found != whole).mean() < 0.01  # ties of two ways to compute one number
    plain = round_in_blocks(matrix, scale, actual, actual, ridge=None)
    np.testing.assert_array_equal(plain, round_with_feedback(matrix, scale, hessian))


@pytest.mark.parametrize("ridge", [None, 0.05])
def test_blocks_hand_their_errors_on(ridge: float | None, rng: np.random.Generator) -> None:
    size = 3 * BLOCK_INPUTS + 10
    matrix = rng.normal(size=(1, 6, size))
    read = exact, actual = columns(rng, size)
    scale, hessian = largest_scale(matrix), second_moment(actual, actual)
    found = round_in_blocks(matrix, scale, *read, ridge=ridge)
    target = (actual, actual) if ridge is None else read
    fitted = matrix
    if ridge is not None:
        fitted = refit(matrix, second_moment(exact, actual), hessian, ridge=ridge)
    whole = round_with_feedback(fitted, scale, hessian)
    nearest = np.rint(matrix / scale[..., None])
    errors = [output_error(codes, scale, matrix, target) for codes in (found, whole, nearest)]
    if ridge is not None:
        assert errors[0] < 1.05 * errors[1]
    assert errors[0] < (0.02 if ridge is None else 0.9) * errors[2]


@pytest.mark.parametrize("kernel", [(), (3, 3), (5, 7)])
def test_no_pair_is_cut_apart(kernel: tuple[int, ...], rng: np.random.Generator) -> None:
    channels = 2 * BLOCK_INPUTS // max(int(np.prod(kernel)), 1) + 3
    shape = (4, channels, *kernel)
    partners = pair_partners(shape, 1, 0)
    matrix = np.abs(rng.normal(size=(1, 4, len(partners))))
    read = columns(rng, len(partners), count=50)
    codes = round_in_blocks(matrix, largest_scale(matrix), *read, ridge=0.1, partners=partners)
    assert not saturating(codes, partners).any()
    assert saturating(np.rint(matrix / largest_scale(matrix)[..., None]), partners).any()


def test_no_matrix_is_larger_than_a_block(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def spy(matrix: np.ndarray, scale: np.ndarray, hessian: np.ndarray, *rest: object) -> object:
        sizes.append(hessian.shape)
        return round_with_feedback(matrix, scale, hessian, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sys.modules[round_in_blocks.__module__], "round_with_feedback", spy)
    size = 3 * BLOCK_INPUTS + 1
    matrix = rng.normal(size=(1, 2, size)).astype(np.float32)
    round_in_blocks(matrix, largest_scale(matrix), *columns(rng, size, count=20), ridge=0.1)
    assert sizes == [(1, BLOCK_INPUTS, BLOCK_INPUTS)] * 3 + [(1, 1, 1)]


def test_dead_inputs_are_rounded_to_nearest() -> None:
    matrix = np.linspace(-1, 1, 2 * BLOCK_INPUTS).reshape(1, 1, -1)
    zeros = np.zeros((5, 1, 2 * BLOCK_INPUTS))
    scale = largest_scale(matrix)
    codes = round_in_blocks(matrix, scale, zeros, zeros, ridge=0.1)
    np.testing.assert_array_equal(codes, np.rint(matrix / scale[..., None]))


@pytest.mark.parametrize("portable", [False, True])
def test_a_walk_takes_blocks_where_the_layer_is_wide(
    portable: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Builder()
    x = net.relu(net.gemm(net.input("x", ("N", 32)), 32, 96))
    model = net.build("wide", net.gemm(net.relu(net.gemm(x, 96, 32)), 32, 8))
    placement = place(model, profile="cpu", portable=portable)
    assert wide_layers(GraphView(model), placement) == ()
    limited = [sys.modules[each.__module__] for each in (Decisions, round_in_blocks)]
    for module in limited:
        monkeypatch.setattr(module, "WIDEST_WHOLE", 64)
    assert wide_layers(GraphView(model), placement) == ("n_Gemm_1",)
    feeds = [{"x": rng.normal(size=(64, 32)).astype(np.float32)} for _ in range(12)]
    found = {}
    for limit in (64, WIDEST_WHOLE):
        monkeypatch.setattr(limited[0], "WIDEST_WHOLE", limit)
        ranges = ranges_of(model, observed_amax(model, feeds[0]))
        decisions = Decisions(GraphView(model), placement, ranges, Methods(), seed=0)
        twins = FloatAndInt8(
            view=GraphView(model), load=load_onnxruntime, samples=feeds, correct=True
        )
        twins.walk(decisions.decide)
        found[limit] = decisions.weights
    layer = layer_matrix(GraphView(model), GraphView(model).nodes[2])
    assert layer is not None
    blocks, whole = found[64][layer.tensor], found[WIDEST_WHOLE][layer.tensor]
    values = [each.codes * each.scale[:, None] for each in (blocks, whole)]
    assert np.linalg.norm(values[0] - values[1]) < 0.1 * np.linalg.norm(values[1])
    assert not np.array_equal(blocks.codes, whole.codes)
