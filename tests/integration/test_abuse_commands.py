"""Commands with no room on the disk, and killed where it matters; ``make soak`` does more."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

import pytest

from tests.soak.commands import COMMANDS, ROOT, killed_at, left_over, run, start, wrong_files
from tests.soak.faults import LIMITED


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", ["quantization prepare", "build --precision fp32"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    name: str, tmp_path: Path, temporary: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run(
        COMMANDS[name].command(out, out),
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temporary)} | LIMITED,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "cannot be written (File too large), expected a file name in a folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(out) == []  # noqa: PTH208 - hidden ones included
    assert left_over(out, temporary) == []


def test_an_engine_is_old_or_new_wherever_its_rebuild_is_killed(
    tmp_path: Path, temporary: Path
) -> None:
    """At the last changes of files, where the engine and its manifest are renamed."""
    out = tmp_path / "out"
    out.mkdir()
    words = COMMANDS["build --precision fp32"].command(out, out)
    code, said = run(killed_at(-1, words), temporary)
    assert code == 0, said
    changes = int(said.rpartition("changes ")[2])
    for step in range(changes - 6, changes, 2):
        assert run(killed_at(step, words), temporary)[0] == -9
        assert wrong_files(out) == []
    assert run(words, temporary)[0] == 0
    assert left_over(out, temporary) == []


def test_two_builds_of_one_engine_take_turns(tmp_path: Path, temporary: Path) -> None:
    out = tmp_path / "out"
    words = COMMANDS["build --precision fp32"].command(out, out)
    both = [start(words, temporary) for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert (out / "m.engine").is_file()
    assert wrong_files(out) == []
    assert left_over(out, temporary) == []


def test_a_build_that_is_refused_leaves_no_folder(tmp_path: Path, temporary: Path) -> None:
    out = tmp_path / "new" / "out"
    words = COMMANDS["build"].command(out, out)
    words[words.index("--calib-data") + 1] = str(tmp_path)  # holds no samples
    assert run(words, temporary)[0] == 2
    assert not out.parent.exists()
