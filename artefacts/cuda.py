"""The primary context of an NVIDIA GPU by PyCUDA, the one file that imports it.

The primary context is the one that torch and CuPy use, so their tensors are valid here, and
TensorRT's runtime as well. It is retained once for each device and process and never given back:
PyCUDA detaches contexts in a way that CUDA refuses for primary ones (inducer/pycuda#305), and what
it leaves on the stack of a thread then fails what comes later. Pushed and popped around each
operation, it may be used from any thread.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from artefacts.errors import UnsupportedError
from artefacts.libraries import require

__all__ = ["CudaContext", "cuda_context", "every_step"]

_lock = threading.Lock()
_contexts: dict[int, CudaContext] = {}
_process: list[int] = []  # that initialised CUDA, once it has


class CudaContext:
    """A device's primary context; ``cuda_context`` makes it, once."""

    def __init__(self, driver: Any, device: int) -> None:
        """Retain it."""
        self.driver = driver
        self.device = device
        with self.checked("give its context"):
            self._context = driver.Device(device).retain_primary_context()
        # Never destroyed, also not when the process ends: PyCUDA would detach it, see above.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._context))

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make it current in this thread.

        Raises:
            UnsupportedError: the device fails, or this process is a fork of the one that uses it.
        """
        _check_process()
        with self.checked("make its context current"):
            self._context.push()
        try:
            yield
        finally:
            with self.checked("give back its context"):
                self._context.pop()

    @contextmanager
    def checked(self, doing: str) -> Iterator[None]:
        """Turn PyCUDA's errors into ours.

        Args:
            doing: what the GPU cannot do then, e.g. "copy the input".

        Raises:
            UnsupportedError: with what CUDA said.
        """
        try:
            yield
        except self.driver.MemoryError as err:
            raise UnsupportedError(
                f"GPU {self.device} has no memory left to {doing} ({err}), expected enough; use a "
                "smaller batch or fewer engines"
            ) from err
        except self.driver.Error as err:
            raise UnsupportedError(
                f"GPU {self.device} fails to {doing} ({err}), expected a healthy device; restart "
                "the process, for such an error mostly stays until then"
            ) from err


def cuda_context(device: int = 0) -> CudaContext:
    """The context of a device, the same one for everybody in this process.

    Raises:
        MissingLibraryError: PyCUDA is not installed.
        UnsupportedError: no driver, no such device, or a fork of a process that uses CUDA.
    """
    _check_process()
    with _lock:
        if device not in _contexts:
            driver = require("pycuda.driver", extra="tensorrt")
            _initialize(driver)
            count = driver.Device.count()
            if not 0 <= device < count:
                raise UnsupportedError(
                    f"GPU {device} is not there, expected one below {count}; choose another device"
                )
            _contexts[device] = CudaContext(driver, device)
        return _contexts[device]


def every_step(*steps: Callable[[], None]) -> list[UnsupportedError]:
    """Do all steps of a release, whatever becomes of those before.

    Returns:
        What went wrong: a device that failed once often fails everything after.
    """
    wrong = []
    for step in steps:
        try:
            step()
        except UnsupportedError as err:  # noqa: PERF203 - each step by itself is the point
            wrong.append(err)
    return wrong


def _initialize(driver: Any) -> None:
    try:
        driver.init()
    except driver.Error as err:
        raise UnsupportedError(
            f"CUDA cannot be initialised ({err}), expected an NVIDIA GPU with its driver, and no "
            "CUDA in the process that this one was forked from; check nvidia-smi, and start "
            "processes with multiprocessing's 'spawn'"
        ) from err
    _process[:] = [os.getpid()]


def _check_process() -> None:
    if _process and _process[0] != os.getpid():
        raise UnsupportedError(
            f"CUDA was initialised in process {_process[0]} and is used in {os.getpid()}, its "
            "fork, expected one process (CUDA does not survive a fork); start processes with "
            "multiprocessing's 'spawn'"
        )
