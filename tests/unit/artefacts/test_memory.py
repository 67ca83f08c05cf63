"""Memory that is free goes back to the system, where the C library can."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from artefacts import memory


def resident_bytes() -> int:
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * 4096


@pytest.fixture(autouse=True)
def anew() -> None:
    memory._trim.cache_clear()


@pytest.mark.skipif(
    not (sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "malloc_trim")),
    reason="the C library hands nothing back",
)
def test_what_is_freed_between_blocks_in_use_goes_back() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(64 << 10) for _ in range(1600)]  # 100 MB, in blocks it keeps to itself
    for block in blocks:
        ctypes.memset(block, 1, 64 << 10)
    for block in blocks[:-1]:  # the last one stands behind all others
        libc.free(block)
    before = resident_bytes()
    memory.give_back_memory()
    assert before - resident_bytes() > 80e6
    libc.free(blocks[-1])


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_a_library_that_cannot_is_left_alone(
    platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())  # as musl's, without malloc_trim
    memory.give_back_memory()
