"""What is kept of OpenVINO's error messages."""

from __future__ import annotations

import pytest

from engines.openvino.library import reason


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (
            "Exception from src/inference/src/cpp/core.cpp:84:\nModel wasn't fully converted.\n"
            "Summary:\n-- Conversion is failed for: Loop-15, ReverseSequence-15\n",
            "Conversion is failed for: Loop-15, ReverseSequence-15",
        ),
        (
            "Exception from src/inference/src/cpp/core.cpp:117:\n"
            "Check 'convert->constant_fold(inputs)' failed at src/core/src/pass/folding.cpp:71\n\n",
            "Check 'convert->constant_fold(inputs)' failed",
        ),
        (
            "Exception from a.cpp:1:\nCheck 'x' failed at src/b.cpp:2:\nno such layer",
            "no such layer",
        ),
        ("", "RuntimeError"),
    ],
)
def test_the_lines_that_say_why(text: str, kept: str) -> None:
    assert reason(RuntimeError(text)) == kept
