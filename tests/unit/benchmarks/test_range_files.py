"""Histograms beside an engine: of tensors whose range stands for the values that were counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from artefacts.files import sha256_file
from benchmarks.range_files import find_ranges


def test_a_range_around_the_middle_is_not_drawn_over_values_from_zero(tmp_path: Path) -> None:
    """It has half the amax, and would be drawn as a clip at half of the data."""
    entry = {"amax": 2.0, "method": "reader error", "why": ""}
    centred = {"amax": 1.0, "method": "reader error, centred", "why": "moved by -1"}
    ranges = tmp_path / "m.ranges.json"
    ranges.write_text(json.dumps({"tensors": {"plain": entry, "moved": centred}}))
    statistics = tmp_path / "m.stats.npz"
    np.savez(
        statistics,
        meta=np.frombuffer(json.dumps({"tensors": ["plain", "moved"]}).encode(), np.uint8),
        counts=np.ones((1, 2, 4096), np.int64),
        exponent=np.ones((1, 2), np.int32),
    )
    passport = {
        "ranges_sha256": sha256_file(ranges),
        "statistics_sha256": sha256_file(statistics),
    }
    assert [found.tensor for found in find_ranges(tmp_path / "m.engine", passport)] == ["plain"]
