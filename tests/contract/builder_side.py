"""TensorRT's side of a calibrator: calls its C++ virtual functions, as the builder does.

NVIDIA's bindings wrap a Python calibrator in a C++ class whose functions call back into Python.
Their addresses are in the object's table of virtual functions, so ctypes can call them: pointers,
names and the cache pass through NVIDIA's own conversions.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

__all__ = ["BuilderSide"]

# Of the first function of IInt8Calibrator (NvInfer.h). From 10.0 it derives from
# IVersionedInterface: getAPILanguage, getInterfaceInfo and two entries for the destructor.
_FIRST_SLOT = {"8": 0, "10": 4}


class BuilderSide:
    """One calibrator, seen from C++."""

    def __init__(self, calibrator: Any, version: str) -> None:
        self._keep = calibrator
        # A pybind11 object holds the pointer to its C++ object behind PyObject's two words.
        word = ctypes.sizeof(ctypes.c_void_p)
        self._this = ctypes.c_void_p.from_address(id(calibrator) + 2 * word).value
        assert self._this is not None
        table = ctypes.c_void_p.from_address(self._this).value
        assert table is not None
        first = _FIRST_SLOT[version.split(".")[0]]
        self._slots = [
            ctypes.c_void_p.from_address(table + word * (first + slot)).value for slot in range(5)
        ]

    def _call(self, slot: int, result: Any, *arguments: Any) -> Any:
        kinds = [type(argument) for argument in arguments]
        address = self._slots[slot]
        assert address is not None
        return ctypes.CFUNCTYPE(result, ctypes.c_void_p, *kinds)(address)(self._this, *arguments)

    def get_batch_size(self) -> int:
        return int(self._call(0, ctypes.c_int32))

    def get_batch(self, names: Sequence[str]) -> list[int] | None:
        bindings = (ctypes.c_void_p * len(names))()
        texts = (ctypes.c_char_p * len(names))(*[name.encode() for name in names])
        more = self._call(1, ctypes.c_bool, bindings, texts, ctypes.c_int32(len(names)))
        return [int(pointer or 0) for pointer in bindings] if more else None

    def read_calibration_cache(self) -> bytes | None:
        length = ctypes.c_size_t()
        found = self._call(2, ctypes.c_void_p, ctypes.pointer(length))
        return ctypes.string_at(found, length.value) if found else None

    def write_calibration_cache(self, cache: bytes) -> None:
        self._call(3, None, ctypes.c_char_p(cache), ctypes.c_size_t(len(cache)))

    def get_algorithm(self) -> int:
        return int(self._call(4, ctypes.c_int32))
