from __future__ import annotations

import math

import numpy as np
import pytest

from artefacts.decibels import LIMIT_DB, bounded_db, noise_share, sqnr_db


def test_it_is_ten_times_the_logarithm_of_the_ratio(rng: np.random.Generator) -> None:
    signal, noise = rng.uniform(1, 9, 2)
    assert sqnr_db(signal, noise) == pytest.approx(10 * np.log10(signal / noise))
    assert noise_share(sqnr_db(signal, noise)) == pytest.approx(noise / signal)
    assert noise_share(math.inf) == 0.0


@pytest.mark.parametrize(
    ("signal", "noise", "level"),
    [
        (1.0, 0.0, math.inf),
        (0.0, 0.0, math.inf),
        (0.0, 1.0, -math.inf),
        (1.0, math.inf, -math.inf),
        (1.0, math.nan, -math.inf),
    ],
)
def test_what_no_logarithm_says(signal: float, noise: float, level: float) -> None:
    assert sqnr_db(signal, noise) == level
    assert bounded_db(level) == math.copysign(LIMIT_DB, level)
