"""Files that belong together, with the process killed at every step of replacing them."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import pytest

from artefacts import groups
from artefacts.errors import InputError
from artefacts.files import write_atomic
from artefacts.groups import finish_group, folder_lock, replace_group


def names(folder: Path) -> set[str]:
    return set(os.listdir(folder))  # noqa: PTH208 - hidden ones included


def write_pair(folder: Path, text: bytes) -> None:
    with replace_group(folder / "a", folder / "b", gone=[folder / "c"]) as (a, b):
        a.write_bytes(text)
        b.write_bytes(text)


def test_all_are_replaced_and_what_does_not_fit_goes(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(b"old")
    for text in (b"one", b"two"):
        write_pair(tmp_path, text)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == text
    assert names(tmp_path) == {"a", "b"}


def test_an_error_leaves_everything_as_it_was(tmp_path: Path) -> None:
    write_pair(tmp_path, b"old")
    (tmp_path / "c").write_bytes(b"kept")

    def failing() -> None:
        with replace_group(tmp_path / "a", tmp_path / "b", gone=[tmp_path / "c"]) as (a, _):
            a.write_bytes(b"new")
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"a cannot be written \(No space left on device\), expec"):
        failing()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == b"old"
    assert names(tmp_path) == {"a", "b", "c"}


def test_a_folder_in_the_way_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match=r"b cannot be written \(it is a folder\)"):
        write_pair(tmp_path, b"x")
    assert names(tmp_path) == {"b"}


@pytest.mark.parametrize("already", [True, False], ids=["second", "first"])
def test_a_kill_at_any_step_leaves_all_old_or_all_new(tmp_path: Path, already: bool) -> None:
    """Every rename, removal and opening of a file is a step; none may be the wrong moment."""
    outcomes = set()
    for step in range(60):
        folder = tmp_path / str(step)
        folder.mkdir()
        if already:
            write_pair(folder, b"old")
        done = kill_at(folder, step)
        finish_group(folder / "a")
        found = {name: (folder / name).read_bytes() for name in ("a", "b") if name in names(folder)}
        outcomes.add(tuple(found.values()))
        if done:
            break
        write_pair(folder, b"next")
        assert names(folder) == {"a", "b"}, step
    else:
        raise AssertionError("never ran to its end")
    assert step > 10
    assert outcomes == {(b"old", b"old") if already else (), (b"new", b"new")}


def kill_at(folder: Path, step: int) -> bool:
    """Whether a writer ran to its end before ``step`` steps were over; else it was killed there."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        left = step

        def audit(event: str, arguments: object) -> None:
            nonlocal left
            if event in ("os.rename", "os.remove", "open", "os.scandir"):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), 9)

        sys.addaudithook(audit)
        write_pair(folder, b"new")
        os.write(writing, b"done")
        os.kill(os.getpid(), 9)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said == b"done"


def test_a_record_of_others_renames_nothing(tmp_path: Path) -> None:
    for replace in ({"../x.part": "a"}, {".x.part": "../a"}, {"x": "a"}, {".x.part": 3}, 7):
        outside = tmp_path / "x.part"
        outside.write_bytes(b"outside")
        folder = tmp_path / "folder"
        folder.mkdir(exist_ok=True)
        (folder / "x").write_bytes(b"mine")
        record = folder / ".a.group"
        record.write_text(json.dumps({"replace": replace, "remove": ["../x.part"]}))
        finish_group(folder / "a")
        assert names(folder) == {"x"}
        assert outside.read_bytes() == b"outside"


def test_a_damaged_record_is_removed(tmp_path: Path) -> None:
    for text in (b"", b"{", b"[" * 5000, b'{"replace": {}}', b"\xff"):
        (tmp_path / ".a.group").write_bytes(text)
        finish_group(tmp_path / "a")
        assert names(tmp_path) == set()


def test_what_a_record_names_is_not_swept(tmp_path: Path) -> None:
    (tmp_path / ".b.00.part").write_bytes(b"new")
    record = {"replace": {".a.00.part": "a", ".b.00.part": "b"}, "remove": []}
    (tmp_path / ".a.group").write_text(json.dumps(record))
    write_atomic(tmp_path / "b", b"by another command")
    finish_group(tmp_path / "a")
    assert (tmp_path / "b").read_bytes() == b"new"


def test_readers_with_the_lock_see_no_half(tmp_path: Path) -> None:
    write_pair(tmp_path, b"0")
    stop = threading.Event()

    def rebuild() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            write_pair(tmp_path, str(number).encode())

    builder = threading.Thread(target=rebuild)
    builder.start()
    try:
        for _ in range(200):
            with folder_lock(tmp_path, shared=True):
                assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    finally:
        stop.set()
        builder.join()


def test_the_lock_may_be_taken_again_by_its_holder(tmp_path: Path) -> None:
    with folder_lock(tmp_path), folder_lock(tmp_path / "."), folder_lock(tmp_path, shared=True):
        write_pair(tmp_path, b"inside")
    assert not groups._held
