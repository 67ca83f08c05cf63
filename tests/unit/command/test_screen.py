"""Lines, bars and the time that is left, as a person sees them."""

from __future__ import annotations

import io
import re

import pytest

from pipeline import screen
from pipeline.screen import Screen


class Terminal(io.StringIO):
    """Both streams of a terminal."""

    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Called by the test itself: pytest puts its own streams in place before each phase."""
    shown = Terminal()
    monkeypatch.setattr("sys.stdout", shown)
    monkeypatch.setattr("sys.stderr", shown)
    return shown


def on_screen(written: str) -> list[str]:
    """What stands there: a carriage return goes to the start of the line and writes over it."""
    lines = []
    for line in written.split("\n"):
        cells: list[str] = []
        for part in line.split("\r"):
            cells[: len(part)] = part
        lines.append("".join(cells).rstrip())
    return lines


def test_a_bar_is_there_before_the_first_step_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal(monkeypatch)
    with Screen(bars=True, steps=5).bar("steps") as progress:
        progress(0, 38)
        assert re.search(r"0%\|.*0/38 \[00:00<\?, \? steps/s\]", on_screen(shown.getvalue())[-1])
    assert on_screen(shown.getvalue()) == [""]


def test_a_line_stands_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal(monkeypatch)
    lines = Screen(bars=True, steps=5)
    with lines.bar("side runs") as progress:
        progress(0, 3)
        lines.add("all groups in INT8")
        lines.warn("labels are few")
    assert on_screen(shown.getvalue()) == [
        "      all groups in INT8",
        "      warning: labels are few",
        "",
    ]


@pytest.mark.parametrize(
    ("step_s", "said"),
    [
        (0.1, ["2 of 20 steps", "4 of 20 steps"]),
        (2.0, ["2 of 20 steps, about 40 s left", "4 of 20 steps, about 30 s left"]),
        (9.9, ["2 of 20 steps, about 3 minutes left", "4 of 20 steps, about 3 minutes left"]),
    ],
)
def test_lines_say_what_is_left(
    step_s: float,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now_s = 0.0
    monkeypatch.setattr(screen.time, "monotonic", lambda: now_s)
    with Screen(bars=False, steps=5).bar("steps") as progress:
        progress(0, 20)
        for done in range(1, 5):
            now_s += step_s
            progress(done, 20)
    assert capsys.readouterr().out.split("\n") == [*(f"      {line}" for line in said), ""]
