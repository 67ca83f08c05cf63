"""CUDA buffers of TensorRT's calibrators: the context is always given back, nothing leaks.

PyCUDA needs a GPU to import, so its driver module is recorded here; what TensorRT does with the
addresses is tested on NVIDIA's classes in tests/contract, and on a GPU in tests/gpu.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from artefacts.errors import MissingLibraryError, UnsupportedError
from calibrators.tensorrt import CudaMemory


class Driver(ModuleType):
    """The part of pycuda.driver that is used, with books of contexts and buffers."""

    class Error(Exception):
        pass

    def __init__(self, devices: int = 1) -> None:
        super().__init__("pycuda.driver")
        self.devices = devices
        self.depth = 0
        self.alive: dict[int, int] = {}
        self.copied: list[tuple[int, bytes]] = []

    def init(self) -> None:
        if not self.devices:
            raise self.Error("cuInit failed: no CUDA-capable device is detected")

    def Device(self, number: int) -> Any:
        assert number < self.devices
        return self

    def retain_primary_context(self) -> Any:
        return self

    def push(self) -> None:
        self.depth += 1

    def pop(self) -> None:
        self.depth -= 1
        assert self.depth >= 0

    def mem_alloc(self, size: int) -> Any:
        assert self.depth, "no context is current"
        return Buffer(self, size)

    def memcpy_htod(self, buffer: Any, array: np.ndarray) -> None:
        assert self.depth, "no context is current"
        assert array.flags.c_contiguous
        assert array.nbytes <= self.alive[int(buffer)]
        self.copied.append((int(buffer), array.tobytes()))


class Buffer:
    """A device allocation: freed by hand, or when the last reference goes."""

    def __init__(self, driver: Driver, size: int) -> None:
        self._driver, self._address = driver, 4096 + 256 * len(driver.copied) + len(driver.alive)
        driver.alive[self._address] = size

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        assert self._driver.depth, "no context is current"
        del self._driver.alive[self._address]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    package = ModuleType("pycuda")
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", made)
    return made


def test_buffers_are_reused_and_freed(driver: Driver) -> None:
    memory = CudaMemory()
    first = memory.upload("a", np.arange(4, dtype=np.float32))
    other = memory.upload("b", np.zeros(2, np.int64))
    again = memory.upload("a", np.ones(4, np.float32))
    assert first == again != other
    assert driver.copied[-1] == (first, np.ones(4, np.float32).tobytes())
    assert (len(driver.alive), driver.depth) == (2, 0)
    memory.close()
    assert driver.alive == {}
    assert driver.depth == 0
    memory.close()


def test_context_is_given_back_when_an_allocation_fails(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(size: int) -> Any:
        raise driver.Error("out of memory")

    monkeypatch.setattr(driver, "mem_alloc", fail)
    memory = CudaMemory()
    with pytest.raises(UnsupportedError, match=r"input a of 16 bytes .*out of memory"):
        memory.upload("a", np.arange(4, dtype=np.float32))
    assert driver.depth == 0


def test_no_gpu_is_one_sentence(driver: Driver) -> None:
    driver.devices = 0
    with pytest.raises(UnsupportedError, match=r"CUDA device 0 cannot be used .*no CUDA-capable"):
        CudaMemory()


def test_no_pycuda_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(MissingLibraryError, match=r"pip install '\.\[tensorrt\]'"):
        CudaMemory()
