from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from artefacts.errors import RequestError
from engines import dlpack
from engines.dlpack import CPU, CUDA, DeviceArray, borrow


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "int64", "bool"])
def test_borrows_numpy_as_it_lies(dtype: str) -> None:
    array = np.ones((2, 3), dtype)
    tensor = borrow(array, None)
    assert (tensor.address, tensor.shape, tensor.dtype) == (array.ctypes.data, (2, 3), array.dtype)
    assert tensor.device == (CPU, 0)
    assert tensor.contiguous
    tensor.release()
    tensor.release()


def test_borrows_bfloat16_of_torch() -> None:
    tensor = borrow(torch.zeros(2, 3, dtype=torch.bfloat16), None)
    assert tensor.dtype.name == "bfloat16"
    tensor.release()


@pytest.mark.parametrize(
    ("array", "contiguous"),
    [
        (np.zeros((4, 6))[:, ::2], False),
        (np.zeros((4, 6)).T, False),
        (np.zeros((4, 6))[1:], True),
        (np.zeros((1, 6))[:, :3], True),
        (np.zeros((4, 1, 6)).transpose(1, 0, 2), True),
    ],
)
def test_contiguity_ignores_axes_of_one(array: NDArray[np.float64], contiguous: bool) -> None:
    tensor = borrow(array, None)
    assert tensor.contiguous == contiguous
    assert tensor.address == array.ctypes.data
    tensor.release()


def test_release_lets_the_owner_go() -> None:
    owner = torch.zeros(3)
    before = owner.untyped_storage().nbytes()
    tensor = borrow(owner, None)
    tensor.release()
    assert owner.untyped_storage().nbytes() == before


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(2, requires_grad=True), "Tensor cannot be read by DLPack"),
        (torch.zeros(2, dtype=torch.complex64), "DLPack type code 5 with 64 bits"),
    ],
)
def test_what_cannot_be_borrowed(value: object, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        borrow(value, None)


class Owner:
    """What the memory belongs to; says when nobody keeps it any more."""

    def __init__(self, memory: NDArray[np.float32], freed: list[str]) -> None:
        self.memory, self.freed = memory, freed

    def __del__(self) -> None:
        self.freed.append("x" if self.memory.any() else "")


def lend(freed: list[str]) -> tuple[DeviceArray, NDArray[np.float32]]:
    memory = np.arange(6, dtype=np.float32).reshape(2, 3)
    owner = Owner(memory, freed)
    return DeviceArray(memory.ctypes.data, memory.shape, "float32", (CPU, 0), owner), memory


def test_lends_to_numpy_and_torch_without_a_copy() -> None:
    freed: list[str] = []
    array, memory = lend(freed)
    seen, tensor = np.from_dlpack(array), torch.from_dlpack(array)
    memory[0, 0] = 77
    assert seen[0, 0] == tensor[0, 0] == 77
    del array
    gc.collect()
    assert freed == []
    del seen
    gc.collect()
    assert freed == []
    del tensor
    gc.collect()
    assert freed == ["x"]
    assert dlpack._EXPORTED == {}


def test_an_array_that_nobody_takes_is_freed_once() -> None:
    freed: list[str] = []
    array, _ = lend(freed)
    capsule = array.__dlpack__()
    assert len(dlpack._EXPORTED) == 1
    del capsule
    assert dlpack._EXPORTED == {}
    del array
    gc.collect()
    assert freed == ["x"]


def test_out_and_in_again_keeps_device_and_address() -> None:
    array = DeviceArray(4096, (2, 5), "int8", (CUDA, 3))
    tensor = borrow(array, 42)
    assert (tensor.address, tensor.shape, tensor.device) == (4096, (2, 5), (CUDA, 3))
    assert tensor.dtype == np.int8
    tensor.release()
    assert dlpack._EXPORTED == {}
