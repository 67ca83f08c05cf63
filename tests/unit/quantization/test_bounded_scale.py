"""The scale of a weight under the bound is the best of those that are tried."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graphs.pairs import beyond_pairs, pair_partners, within_pairs
from quantization.write.bounded_weights import bounded_codes, bounded_scale

ROWS = hnp.arrays(np.float64, (3, 9), elements=st.floats(-1, 2, allow_subnormal=False))
PARTNERS = pair_partners((3, 9), 1, 0)
REACHES = st.floats(0.5, 1.0)  # of the largest magnitude: a scale that was clipped before


@given(ROWS, REACHES, st.sampled_from([None, np.geomspace(0.1, 10, 9)]))
def test_no_factor_has_a_smaller_error(
    rows: np.ndarray, reach: float, importance: np.ndarray | None
) -> None:
    scale = np.maximum(np.abs(rows).max(axis=1) * reach / 127, 1e-30)
    chosen = bounded_scale(rows, scale, PARTNERS, importance)

    def loss(tried: np.ndarray) -> np.ndarray:
        error = bounded_codes(rows, tried, PARTNERS) * tried[:, None] - rows
        return (error**2 * (1.0 if importance is None else importance)).sum(axis=1)

    assert (chosen >= scale).all()
    losses = [loss(scale * factor) for factor in np.linspace(1, 254 / 128, 17)]
    found = loss(chosen)
    binding = chosen != scale  # rows without a pair that binds keep what they had
    assert (found[binding] <= np.min(losses, axis=0)[binding] * (1 + 1e-12)).all()
    assert (found <= losses[0] * (1 + 1e-12)).all()


@given(hnp.arrays(np.float64, (2, 9), elements=st.floats(-140, 140)))
def test_both_of_a_pair_are_changed_or_neither(codes: np.ndarray) -> None:
    beyond = beyond_pairs(codes, PARTNERS)
    assert (beyond == (beyond[:, PARTNERS] & (PARTNERS >= 0))).all()
    kept = within_pairs(codes, PARTNERS)
    np.testing.assert_array_equal(kept[~beyond], np.clip(codes, -127, 127)[~beyond])
    assert not beyond_pairs(kept * (1 - 1e-9), PARTNERS).any()
