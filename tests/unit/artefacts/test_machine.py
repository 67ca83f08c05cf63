"""Systems without POSIX's calls, and streams of narrow encodings."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from artefacts.files import write_atomic
from artefacts.machine import print_every_character, usable_cores


def test_cores_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores() == 7


def test_a_stream_shows_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr("sys.stdout", narrow)
    print_every_character()
    narrow.write("4× → 8")
    narrow.seek(0)
    assert narrow.read() == "4× ? 8"


def test_a_file_is_synced_while_it_may_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses to sync a file that was opened for reading."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.write(file, b"")))
    write_atomic(tmp_path / "a", b"content")
    assert synced == [0]
    assert (tmp_path / "a").read_bytes() == b"content"
