"""An execution context of NVIDIA's class on a C++ object that is made up here.

Without its library no release can make a context. But the Python class only holds a pointer to a
C++ object, whose table of virtual functions can be ours: so what NVIDIA's own conversions do with
an answer shows, here with the answer "there is no shape".
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import tensorrt as trt

__all__ = ["context_without_shapes"]

ENTRIES = 300  # more than any class has
Answer = Callable[[int, int, int], int]
_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_size_t, *[ctypes.c_void_p] * 3)
_KEPT: list[Any] = []  # C++ has only pointers to these


def context_without_shapes() -> Any:
    """One whose get_tensor_shape has -1 dimensions, and whose infer_shapes returns -1."""
    context = trt.IExecutionContext.__new__(trt.IExecutionContext)
    # A pybind11 object holds the pointer to its C++ object behind PyObject's two words.
    slot = ctypes.c_void_p.from_address(id(context) + 2 * ctypes.sizeof(ctypes.c_void_p))
    slot.value = _object(_no_shape)
    _KEPT.append(context)  # never destroyed: C++ would delete what it does not own
    return context


def _no_shape(first: int, second: int, third: int) -> int:
    """For getTensorShape the first argument is where Dims go, whose first word is their number."""
    ctypes.c_int32.from_address(first).value = -1
    return first


def _object(answer: Answer) -> int:
    """A class of NvInferRuntime.h: a table of virtual functions, then mImpl, which has one, too."""
    functions = [_FUNCTION(answer) for _ in range(ENTRIES)]
    addresses = [ctypes.cast(function, ctypes.c_void_p).value for function in functions]
    table = (ctypes.c_void_p * ENTRIES)(*addresses)
    implementation = (ctypes.c_void_p * 8)(ctypes.addressof(table))
    made = (ctypes.c_void_p * 8)(ctypes.addressof(table), ctypes.addressof(implementation))
    _KEPT.extend((functions, table, implementation, made))
    return ctypes.addressof(made)
