"""Signal to quantization noise in decibels: what every measurement of an error is said in."""

from __future__ import annotations

import math

__all__ = ["LIMIT_DB", "bounded_db", "noise_share", "sqnr_db"]

LIMIT_DB = 150.0
"""What equal values count as where a number is needed; its negative is nothing but noise."""


def sqnr_db(signal: float, noise: float) -> float:
    """``10 log10(signal / noise)``, of energies or of mean squares.

    Returns:
        Infinity without noise; minus infinity without signal, or where the noise is no number.
    """
    if noise == 0:
        return math.inf
    ratio = signal / noise
    return 10.0 * math.log10(ratio) if ratio > 0 else -math.inf


def noise_share(level_db: float) -> float:
    """Noise as a share of the signal: what ``sqnr_db`` was taken of, the other way up."""
    return float(10.0 ** (-level_db / 10))


def bounded_db(level_db: float) -> float:
    """A level within ``LIMIT_DB``, for means and for files, which know no infinity."""
    return min(max(level_db, -LIMIT_DB), LIMIT_DB)
