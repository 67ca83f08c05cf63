"""Every fenced command of the README runs, in order; its links resolve."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_no_fenced_command_runs_these_tests() -> None:
    """They would run this file, which would run them: without end."""
    assert not [text for _, text in BLOCKS if re.search(r"make (lint )?test\b|pytest", text)]


def test_there_are_commands_and_a_python_example() -> None:
    assert [kind for kind, _ in BLOCKS].count("bash") >= 3
    assert "python" in [kind for kind, _ in BLOCKS]


@pytest.mark.skipif(not (ROOT / ".venv").is_dir(), reason="commands need the .venv of `make test`")
def test_every_fenced_command_runs() -> None:
    for kind, text in BLOCKS:
        program = ["bash", "-euo", "pipefail", "-c", text]
        if kind == "python":
            program = [sys.executable, "-W", "error", "-c", text]
        done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"], ids=str)
def test_links_to_files_resolve(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing, f"{page.name} links to {missing}"
