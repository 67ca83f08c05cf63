"""Device memory for TensorRT's calibrators without PyCUDA; with it: tests/host_driver."""

from __future__ import annotations

import sys

import pytest

from artefacts.errors import MissingLibraryError
from calibrators.tensorrt.device_memory import CudaMemory


def test_no_pycuda_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(MissingLibraryError, match=r"pip install '\.\[tensorrt\]'"):
        CudaMemory()
