"""The load test of the recorder (``make soak``), shorter: memory and disk stay within bounds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.soak.recorder import LIMIT, LIMIT_BYTES, MORE_MB, judged, record_under_load

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")


def test_memory_and_disk_stay_within_bounds_over_3000_requests() -> None:
    figure = record_under_load(3000)
    assert not figure.wrong
    assert figure.tried == figure.survived == 21


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"memory_mb": [50.0, 51.0 + MORE_MB]}, "21 MB more memory"),
        ({"disk_bytes": [0, LIMIT_BYTES + 1]}, "1000001 bytes on disk"),
        ({"files": [0, LIMIT + 1]}, "501 samples"),
        ({"statistics": {"seen": 9, "dropped": 0}}, "1 requests not seen"),
    ],
)
def test_what_grows_beyond_them_is_told(change: dict[str, Any], said: str) -> None:
    fine = {
        "memory_mb": [50.0, 51.0],
        "disk_bytes": [0, LIMIT_BYTES],
        "files": [0, LIMIT],
        "statistics": {"seen": 10, "dropped": 0},
    }
    assert not judged(fine, 10).wrong
    assert list(judged(fine | change, 10).wrong) == [said]
