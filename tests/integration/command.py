"""The command in this process, as tests call it."""

from __future__ import annotations

from pathlib import Path

import pytest

from build_engine import main

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "01_digits"


def run(*flags: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main([str(flag) for flag in flags])
    out, err = capsys.readouterr()
    return code, out, err


def refused(out: Path, *flags: object, capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """Run a job that must fail: one sentence, the exit code, nothing half-written."""
    before = set(out.rglob("*")) if out.exists() else set()
    found, _, err = run(*flags, "--engine", out / "m.int8.engine", capsys=capsys)
    assert found == code, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    after = set(out.rglob("*")) if out.exists() else set()
    left = {p.name for p in after - before}
    assert not any(name.endswith((".part", ".engine", ".engine.json")) for name in left), left
    return err
