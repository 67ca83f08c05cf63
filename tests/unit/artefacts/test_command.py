"""How a command ends, whatever happens in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from artefacts.command import run_command
from artefacts.errors import GateMissedError, InputError
from artefacts.texts import printable, printable_json, shortened, shown

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("err", "code", "said"),
    [
        (InputError("x is 1, expected 2; correct it"), 2, "error: x is 1, expected 2; correct it"),
        (GateMissedError("x is missed"), 1, "error: x is missed"),
        (KeyboardInterrupt(), 130, "stopped"),
        (MemoryError(), 2, "error: memory is exhausted, expected room"),
        (OSError(28, "No space left", "out/x"), 2, "error: the system refused (out/x: No space le"),
        (KeyError("x\n" * 999), 2, "error: this program has a fault (KeyError: 'x\\nx\\n"),
        (InputError("title \x1b]0;owned\x07"), 2, r"error: title \x1b]0;owned\x07"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_error_is_one_sentence(
    err: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def step() -> None:
        raise err

    assert run_command(step, debug=False, interrupted="stopped") == code
    shown_text = capsys.readouterr().err
    assert shown_text.startswith(said)
    assert len(shown_text.splitlines()) == 1
    assert "Traceback" not in shown_text


def test_a_sentence_that_names_endless_things_shows_both_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def step() -> None:
        raise InputError(f"node {'x' * 10**6} is wrong; rename it")

    assert run_command(step, debug=False) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: node xxx")
    assert said.endswith("xxx is wrong; rename it\n")
    assert len(said) < 4100


def test_who_asks_is_told_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[int, str | None]] = []

    def fail() -> None:
        raise GateMissedError("x is missed")

    def ended(code: int, error: str | None) -> None:
        told.append((code, error))
        if error is None:
            raise InputError("it cannot be told")

    assert run_command(fail, debug=False, ended=ended) == 1
    assert run_command(lambda: 0, debug=False, ended=ended) == 2
    assert told == [(1, "x is missed"), (0, None)]
    assert capsys.readouterr().err == "error: x is missed\nerror: it cannot be told\n"


def test_debug_shows_the_trace(capsys: pytest.CaptureFixture[str]) -> None:
    def step() -> None:
        raise KeyError("x")

    assert run_command(step, debug=True) == 2
    assert "Traceback" in capsys.readouterr().err
    assert run_command(lambda: 1, debug=True) == 1
    assert run_command(lambda: None, debug=True) == 0


@pytest.mark.parametrize("words", [["build_engine.py"], ["int8/__main__.py", "build"]])
def test_ctrl_c_while_libraries_are_imported_leaves_no_trace(words: list[str]) -> None:
    """The signal comes from the first import of a library itself."""
    stop = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
    source = (
        "import sys, runpy, builtins, signal\n"
        # A shell's background jobs ignore it, and hand that on.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "load = builtins.__import__\n"
        "def hooked(name, *rest):\n"
        f"    if name == 'pipeline.flags': exec({stop!r})\n"
        "    return load(name, *rest)\n"
        "builtins.__import__ = hooked\n"
        f"sys.argv = {words!r}\n"
        f"runpy.run_path({words[0]!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""


def test_a_reader_that_went_away_is_no_error() -> None:
    source = (
        "import sys\nfrom artefacts.command import run_command, say\n"
        "sys.exit(run_command(lambda: say('x' * 1_000_000), debug=False))\n"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_reprs_are_bounded_and_printable() -> None:
    deep: list[object] = []
    for _ in range(60):  # 2^60 entries, if they were all written
        deep = [deep, deep]
    values = [deep, 10**5000, -(10**5000), "x" * 10**6, {1: deep}, b"\x00" * 10**6, ("\x1b[2J",)]
    values += [{str(k): [10**5000] * 50 for k in range(1000)}, "\ud800", float("nan"), None]
    for value in values:
        text = shown(value)
        assert len(text) <= 400
        assert text.isprintable()
    assert shown("plain") == "'plain'"
    assert shown([1, 2]) == "[1, 2]"
    assert shown(10**5000) == "<integer of 16610 bits>"
    assert shortened("a\n  b\tc") == "a b c"
    assert printable("a\n\x1b") == "a\n\\x1b"
    assert printable("a\nb", kept="") == "a\\nb"


def test_json_on_a_terminal_is_the_same_json() -> None:
    value = {"é": "\x9b2J \x7f \ud800 \U000e0001 plain"}
    text = json.dumps(value, ensure_ascii=False, indent=1)
    shown_text = printable_json(text)
    assert json.loads(shown_text) == value
    assert shown_text.replace("\n", "").isprintable()
    assert "é" in shown_text
