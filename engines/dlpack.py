"""DLPack tensors in and out without a copy, for memory that numpy cannot see.

The layout is that of ``dlpack.h`` 0.8 (github.com/dmlc/dlpack), read and written with ctypes: a
capsule named ``dltensor`` holds a ``DLManagedTensor``, whoever takes it renames it to
``used_dltensor`` and calls its deleter once.
"""

from __future__ import annotations

import ctypes
from math import prod
from typing import Any

import numpy as np

from artefacts.errors import RequestError
from engines.tensors import numpy_dtype

__all__ = ["CPU", "CUDA", "BorrowedTensor", "DeviceArray", "borrow"]

CPU, CUDA = 1, 2  # DLDeviceType
CODES = {"i": 0, "u": 1, "f": 2, "b": 6}  # numpy kind → DLDataTypeCode
NAMES = {0: "int", 1: "uint", 2: "float"}
BFLOAT, BOOL = 4, 6


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("index", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_DELETER = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _DELETER))

_API = ctypes.pythonapi
_API.PyCapsule_GetPointer.restype = ctypes.c_void_p
_API.PyCapsule_GetPointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
_API.PyCapsule_SetName.argtypes = (ctypes.py_object, ctypes.c_char_p)
_API.PyCapsule_New.restype = ctypes.py_object
_API.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_UNUSED, _USED = b"dltensor", b"used_dltensor"


class BorrowedTensor:
    """Memory of another framework, valid until ``release``."""

    def __init__(self, managed: Any) -> None:
        """``borrow`` makes these."""
        tensor = managed.contents.tensor
        self._managed = managed
        self.address = (tensor.data or 0) + tensor.byte_offset
        self.shape = tuple(tensor.shape[: tensor.ndim])
        self.dtype = _numpy_dtype(tensor.dtype)
        self.device = (tensor.device.kind, tensor.device.index)
        strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None
        self.contiguous = strides is None or _is_contiguous(self.shape, strides)

    @property
    def nbytes(self) -> int:
        """Size of a contiguous tensor."""
        size: int = prod(self.shape) * self.dtype.itemsize
        return size

    def release(self) -> None:
        """Tell the owner that the memory is no longer used; a second call does nothing."""
        managed, self._managed = self._managed, None
        if managed is not None and managed.contents.deleter:
            managed.contents.deleter(managed)


def borrow(value: Any, stream: int | None) -> BorrowedTensor:
    """Take a DLPack tensor; its framework makes ``stream`` wait for what is still computing it.

    Raises:
        RequestError: the framework refuses (a gradient, say), or the dtype is unknown.
    """
    try:
        capsule = value.__dlpack__() if stream is None else value.__dlpack__(stream=stream)
    except (BufferError, RuntimeError, TypeError, ValueError) as err:
        raise RequestError(
            f"tensor of type {type(value).__name__} cannot be read by DLPack ({err}), expected "
            "one without gradient on a supported device; detach it"
        ) from err
    pointer = _API.PyCapsule_GetPointer(capsule, _UNUSED)
    _API.PyCapsule_SetName(capsule, _USED)
    return BorrowedTensor(ctypes.cast(pointer, ctypes.POINTER(_Managed)))


class DeviceArray:
    """An output that stays on its device: give it to ``torch.from_dlpack`` or ``cupy.from_dlpack``.

    The memory lives as long as this object or any tensor made from it.
    """

    def __init__(
        self,
        address: int,
        shape: tuple[int, ...],
        dtype: str,
        device: tuple[int, int],
        owner: object = None,
    ) -> None:
        """Wrap memory that lives as long as ``owner``, which this keeps."""
        self.address = address
        self.shape = shape
        self.dtype = numpy_dtype(dtype)
        self.device = device
        self._owner = owner

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **_: Any) -> Any:
        """A capsule. The work that fills the memory is done: no stream needs to wait."""
        shape = (ctypes.c_int64 * len(self.shape))(*self.shape)
        managed = _Managed()
        managed.tensor = _Tensor(
            data=self.address,
            device=_Device(*self.device),
            ndim=len(self.shape),
            dtype=_dlpack_dtype(self.dtype),
            shape=shape,
            strides=None,
            byte_offset=0,
        )
        managed.deleter = _RELEASE
        address = ctypes.addressof(managed)
        _EXPORTED[address] = (managed, shape, self)  # alive until the consumer's deleter call
        return _API.PyCapsule_New(address, _UNUSED, ctypes.cast(_ABANDON, ctypes.c_void_p))


_EXPORTED: dict[int, tuple[Any, Any, DeviceArray]] = {}


@_DELETER  # type: ignore[untyped-decorator]
def _RELEASE(managed: Any) -> None:  # noqa: N802 - a C callback kept for the life of the process
    _EXPORTED.pop(ctypes.addressof(managed.contents), None)


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # type: ignore[untyped-decorator]
def _ABANDON(capsule: Any) -> None:  # noqa: N802
    """A capsule that nobody took: what it holds goes with it."""
    valid = _API.PyCapsule_IsValid
    valid.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
    if valid(capsule, _UNUSED):
        pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
            ("PyCapsule_GetPointer", _API)
        )(capsule, _UNUSED)
        _EXPORTED.pop(pointer, None)


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return all(
        size <= 1 or stride == want
        for size, stride, want in zip(shape, strides, expected, strict=True)
    )


def _numpy_dtype(dtype: _DataType) -> np.dtype[Any]:
    if dtype.lanes == 1 and dtype.code == BOOL:
        return np.dtype(bool)
    if dtype.lanes == 1 and dtype.code == BFLOAT and dtype.bits == 16:
        return numpy_dtype("bfloat16")
    if dtype.lanes == 1 and dtype.code in NAMES:
        return np.dtype(f"{NAMES[dtype.code]}{dtype.bits}")
    raise RequestError(
        f"tensor has the DLPack type code {dtype.code} with {dtype.bits} bits and {dtype.lanes} "
        "lanes, expected integers, floats or bool; convert it"
    )


def _dlpack_dtype(dtype: np.dtype[Any]) -> _DataType:
    code = BFLOAT if dtype.name == "bfloat16" else CODES[dtype.kind]
    return _DataType(code, dtype.itemsize * 8, 1)
