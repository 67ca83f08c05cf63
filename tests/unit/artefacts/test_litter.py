"""What killed processes leave behind, and what live ones still need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from artefacts.errors import InputError
from artefacts.files import read_bounded, replace_atomic, write_atomic
from artefacts.groups import folder_lock, replace_group
from artefacts.litter import job_lock, scratch_folder

ROOT = Path(__file__).parents[3]


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))  # noqa: PTH208 - hidden ones included


KILLED = {
    "part": "from artefacts.files import replace_atomic as made\nat = sys.argv[1] + '/x.json'",
    "folder": "from artefacts.litter import scratch_folder\n"
    "from functools import partial\nmade = partial(scratch_folder, 'test')\n"
    "at = Path(sys.argv[1])",
}


@pytest.mark.parametrize("kind", list(KILLED))
def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path, kind: str) -> None:
    program = (
        f"import os, sys\nfrom pathlib import Path\n{KILLED[kind]}\n"
        "with made(at) as path:\n"
        "    (path / 'model' if path.is_dir() else path).write_bytes(b'half')\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as child:
        assert child.stdout.readline() == "ready\n"
        again(kind, tmp_path)
        assert len(names(tmp_path)) == 2  # a live one's stays: with the result, or with its lock
        child.send_signal(signal.SIGKILL)
        child.wait()
    again(kind, tmp_path)
    assert names(tmp_path) == (["x.json"] if kind == "part" else [])


def again(kind: str, folder: Path) -> None:
    if kind == "part":
        write_atomic(folder / "x.json", b"whole")
        return
    with scratch_folder("test", folder) as made:
        assert names(made) == []


def test_engines_are_built_in_temporary_folders_too(tmp_path: Path) -> None:
    with scratch_folder("costs", tmp_path) as made, folder_lock(made):
        with replace_group(made / "a", made / "b") as (a, b):
            a.write_bytes(b"1")
            b.write_bytes(b"2")
        assert names(made) == ["a", "b"]
    assert names(tmp_path) == []


def test_other_files_are_not_litter(tmp_path: Path) -> None:
    for name in (".y.json.00.part", "x.json.part", ".x.jsonl.00.part", ".x.json.00.parts"):
        (tmp_path / name).write_bytes(b"someone's")
    before = names(tmp_path)
    write_atomic(tmp_path / "x.json", b"1")
    assert names(tmp_path) == sorted([*before, "x.json"])


def test_names_as_long_as_a_file_system_allows(tmp_path: Path) -> None:
    name = "n" * 250
    write_atomic(tmp_path / name, b"1")
    assert names(tmp_path) == [name]
    with pytest.raises(InputError, match=r"cannot be written \(File name too long\)"):
        write_atomic(tmp_path / ("n" * 300), b"1")


def test_a_folder_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be written \(it is a folder\), expected a file"):
        write_atomic(tmp_path, b"1")
    with pytest.raises(InputError, match=r"ranges .* does not exist, expected a file"):
        read_bounded(tmp_path, limit_bytes=1, what="ranges")


@pytest.mark.parametrize("code", [28, 122, 5])
def test_no_room_is_one_sentence(tmp_path: Path, code: int) -> None:
    write_atomic(tmp_path / "x", b"old")

    def fill() -> None:
        with replace_atomic(tmp_path / "x") as part:
            part.write_bytes(b"half")
            raise OSError(code, os.strerror(code))

    with pytest.raises(InputError, match=rf"x cannot be written \({os.strerror(code)}\), expect"):
        fill()
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_jobs_of_one_name_take_turns_and_leave_no_lock(tmp_path: Path) -> None:
    path, order = tmp_path / "m.engine", []
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with job_lock(path, lambda: order.append("never")):
            inside.set()
            leave.wait(60)
            order.append("first")

    other = threading.Thread(target=first)
    other.start()
    inside.wait(60)

    def waiting() -> None:
        order.append("waiting")
        leave.set()

    with job_lock(path, waiting):
        order.append("second")
    other.join()
    assert order == ["waiting", "first", "second"]
    assert names(tmp_path) == []


def test_a_lock_of_a_killed_job_holds_nobody(tmp_path: Path) -> None:
    (tmp_path / ".m.engine.lock").write_bytes(b"")

    def failing() -> None:
        with job_lock(tmp_path / "m.engine", lambda: pytest.fail("nobody has it")):
            raise InputError("x")

    with pytest.raises(InputError, match="x"):
        failing()
    assert names(tmp_path) == []
