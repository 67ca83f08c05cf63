"""The grid whose error the readers see least."""

from __future__ import annotations

import numpy as np
import pytest

from quantization.improve.range_choice import Reader, best_grid, candidates
from quantization.improve.walk.grid import Grid


def test_values_that_no_reader_sees_are_clipped(rng: np.random.Generator) -> None:
    inputs = rng.standard_normal((2000, 1, 2)).astype(np.float32)
    inputs[:, :, 1] *= 100.0
    blind = Reader(exact=inputs, actual=inputs, matrix=np.array([[[1.0, 0.0]]]))
    seeing = Reader(exact=inputs, actual=inputs, matrix=np.array([[[1.0, 1.0]]]))
    grids = candidates(float(np.abs(inputs).max()), [4.0])
    assert best_grid([blind], grids, centred_errors=False)[0].amax == 4.0
    assert best_grid([seeing], grids, centred_errors=False)[0].amax > 100


def test_nothing_is_clipped_where_all_values_are_on_the_grid() -> None:
    inputs = np.arange(-127, 128, dtype=np.float32).reshape(-1, 1, 1)
    reader = Reader(exact=inputs, actual=inputs, matrix=None)
    grid, error = best_grid([reader], candidates(127.0), centred_errors=False)
    assert grid.amax == 127.0
    assert error == 0.0


def test_a_mean_error_counts_only_without_bias_correction() -> None:
    exact = np.zeros((100, 1, 1), np.float32)
    exact[50:] = 1.0
    reader = Reader(exact=exact, actual=exact + 8.0, matrix=None)
    grids = candidates(9.0)
    assert best_grid([reader], grids, centred_errors=True)[1] < 0.01
    assert best_grid([reader], grids, centred_errors=False)[1] > 10


def test_candidates_are_sorted_and_hold_what_was_given() -> None:
    amax = [grid.amax for grid in candidates(8.0, [3.3, 0.0])]
    assert amax == sorted(amax, reverse=True)
    assert amax[0] == 8.0
    assert 3.3 in amax
    assert all(value > 0 for value in amax)


def test_centred_grids_have_a_code_for_their_lower_end() -> None:
    for grid in candidates(6.0, low=0.0):
        assert grid(np.zeros(1, np.float32))[0] == pytest.approx(0.0, abs=1e-6)
        assert grid.centre == pytest.approx(grid.amax)


def test_a_centred_grid_has_half_the_step(rng: np.random.Generator) -> None:
    x = rng.uniform(0, 6, 10000).astype(np.float32)
    plain, centred = Grid(amax=6.0), Grid(amax=3.0, centre=3.0)
    ratio = ((plain(x) - x) ** 2).mean() / ((centred(x) - x) ** 2).mean()
    assert ratio == pytest.approx(4.0, rel=0.1)


def test_activations_saturate_at_minus_128() -> None:
    assert Grid(amax=127.0)(np.array([-500.0, 500.0], np.float32)).tolist() == [-128.0, 127.0]


def test_one_loud_sample_does_not_take_the_resolution_of_the_others(
    rng: np.random.Generator,
) -> None:
    rows = rng.standard_normal((1000, 1, 1)).astype(np.float32)
    rows[-50:] *= 40.0  # the last of 20 samples
    starts = tuple(range(0, 1000, 50))
    grids = candidates(float(np.abs(rows).max()), [4.0])
    of_one = Reader(exact=rows, actual=rows, matrix=None)
    of_each = Reader(exact=rows, actual=rows, matrix=None, starts=starts)
    wide, narrow = (best_grid([r], grids, centred_errors=False)[0] for r in (of_one, of_each))
    assert narrow.amax < wide.amax


def test_samples_without_signal_do_not_decide(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((100, 1, 1)).astype(np.float32)
    rows[50:] = 0.0
    reader = Reader(exact=rows, actual=rows, matrix=None, starts=(0, 50))
    silent = Reader(exact=rows * 0, actual=rows * 0, matrix=None, starts=(0, 50))
    for readers in ([reader], [silent]):
        grids = candidates(float(np.abs(rows).max()))  # none must clip
        error = best_grid(readers, grids, centred_errors=False)[1]
        assert np.isfinite(error)
        assert error < 0.01


def test_unsigned_codes_have_twice_the_resolution(rng: np.random.Generator) -> None:
    x = rng.uniform(0, 6, 10000).astype(np.float32)
    signed, unsigned = (Grid(amax=6.0, unsigned=each) for each in (False, True))
    ratio = ((signed(x) - x) ** 2).mean() / ((unsigned(x) - x) ** 2).mean()
    assert ratio == pytest.approx((255 / 127) ** 2, rel=0.1)
    assert unsigned(np.array([-3.0, 9.0], np.float32)).tolist() == pytest.approx([0.0, 6.0])


@pytest.mark.parametrize(("clipped", "stays"), [(5.0, True), (40.0, False)])
def test_the_usual_range_stays_unless_another_is_clearly_better(
    clipped: float, stays: bool, rng: np.random.Generator
) -> None:
    inputs = rng.uniform(-clipped, clipped, (4000, 1, 1)).astype(np.float32)
    reader = Reader(exact=inputs, actual=inputs, matrix=None)
    usual = Grid(amax=float(np.abs(inputs).max()) * (1.05 if stays else 2.0))
    grids = [usual, Grid(amax=float(np.abs(inputs).max()))]
    free, least = best_grid([reader], grids, centred_errors=False)
    assert free == grids[1]
    held, error = best_grid([reader], grids, centred_errors=False, usual=usual)
    assert (held == usual) is stays
    assert (error > least) is stays
