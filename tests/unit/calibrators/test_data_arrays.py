"""Arrays in files: read by rows, mapped or streamed, and never unpickled."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artefacts.errors import DataError
from calibrators.samples.arrays import open_arrays


def save(path: Path, how: str, **arrays: np.ndarray) -> Path:
    if how == "npy":
        path = path.with_suffix(".npy")
        np.save(path, next(iter(arrays.values())))
        return path
    (np.savez if how == "stored" else np.savez_compressed)(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


@pytest.mark.parametrize("how", ["npy", "stored", "compressed"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", ">f8", "int64", "bool", "float16"])
def test_rows(how: str, order: str, dtype: str, tmp_path: Path, rng: np.random.Generator) -> None:
    array = np.asarray(rng.integers(0, 2, (7, 3, 5)), dtype=dtype, order=order)
    path = save(tmp_path / "a", how, x=array)
    found = open_arrays(path)["" if how == "npy" else "x"]
    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    assert found.compressed == (how == "compressed")
    np.testing.assert_array_equal(found.read(), array)
    for chosen in ([0, 1, 2, 3, 4, 5, 6], [2, 5], [6], []):
        rows = list(found.rows(chosen))
        assert len(rows) == len(chosen)
        for row, index in zip(rows, chosen, strict=True):
            np.testing.assert_array_equal(row, array[index])


@pytest.mark.parametrize("how", ["npy", "stored", "compressed"])
def test_scalars_and_empty_arrays(how: str, tmp_path: Path) -> None:
    for array in (np.array(7), np.zeros((0, 3)), np.zeros((2, 0, 3))):
        found = next(iter(open_arrays(save(tmp_path / "a", how, x=array)).values()))
        assert found.shape == array.shape
        np.testing.assert_array_equal(found.read(), array)


def test_several_members_and_other_files_in_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((3, 2)), labels=np.arange(3))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.txt", "hello")
    found = open_arrays(path)
    assert sorted(found) == ["images", "labels"]
    np.testing.assert_array_equal(found["labels"].read(), [0, 1, 2])


@pytest.mark.parametrize("how", ["npy", "stored", "compressed"])
def test_memory_is_one_row(how: str, tmp_path: Path) -> None:
    array = np.zeros((400, 50_000), np.uint8)  # 20 MB
    path = save(tmp_path / "a", how, x=array)
    tracemalloc.start()
    try:
        found = next(iter(open_arrays(path).values()))
        assert sum(1 for _ in found.rows(range(400))) == 400
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


class Trap:
    """Pickled in place of an array: unpickling it would call ``open``."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("/nonexistent/trap", "w")


@pytest.mark.parametrize("how", ["npy", "stored", "compressed"])
def test_pickles_are_refused_unread(how: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a", how, x=np.array([Trap()], dtype=object))
    with pytest.raises(DataError) as caught:
        open_arrays(path)
    assert "Python objects (a pickle)" in str(caught.value)
    assert path.name in str(caught.value)


@pytest.mark.parametrize(
    "array",
    [np.array(["a", "b"]), np.zeros(3, [("x", "f4")]), np.zeros(2, complex), np.zeros(2, "M8[s]")],
    ids=lambda array: str(array.dtype),
)
@pytest.mark.parametrize("how", ["npy", "stored"])
def test_arrays_that_are_no_numbers_are_refused(
    how: str, array: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="expected integers, floats or booleans"):
        open_arrays(save(tmp_path / "a", how, x=array))


def test_record_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x03\x00" + struct.pack("<I", 10) + b"{'descr': ")
    with pytest.raises(DataError, match=r"format \(3, 0\)"):
        open_arrays(path)


@pytest.mark.parametrize("how", ["npy", "stored", "compressed"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.98])
def test_truncated_files_are_refused(how: str, share: float, tmp_path: Path) -> None:
    path = save(tmp_path / "a", how, x=np.arange(4000.0).reshape(40, 100))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match=path.name):
        open_arrays(path)


def test_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((4, 4), np.uint8))
    path.write_bytes(path.read_bytes().replace(b"(4, 4)", b"(4, 9)"))
    with pytest.raises(DataError, match=r"16 bytes of data, expected 36 for uint8 \[4, 9\]"):
        open_arrays(path)
    huge = tmp_path / "b.npy"
    header = {"descr": "|u1", "fortran_order": False, "shape": (2**62, 2**62)}
    with huge.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(DataError, match="cut short"):
        open_arrays(huge)


def test_compressed_member_whose_rows_are_too_large(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (2, 2**30 + 1)}
    np.lib.format.write_array_header_1_0(buffer, header)
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", buffer.getvalue())
    # The directory lies about the size, as a bomb's would.
    raw = bytearray(path.read_bytes())
    entry = raw.index(b"PK\x01\x02")
    raw[entry + 24 : entry + 28] = struct.pack("<I", 2**31 + 200)
    path.write_bytes(raw)
    found = open_arrays(path)["x"]
    with pytest.raises(DataError, match="1073741825 bytes, expected at most 1073741824"):
        next(found.rows([0]))
    with pytest.raises(DataError, match="at most 1073741824"):
        found.read()


def test_what_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for raw in (b"", b"hello", b"\x80\x04\x95"):
        path.write_bytes(raw)
        with pytest.raises(DataError, match="array file"):
            open_arrays(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(DataError, match="it holds no array"):
        open_arrays(path)


def test_two_members_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros(3))
    raw = path.read_bytes()
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x.npy", zipfile.ZipFile(io.BytesIO(raw)).read("x.npy"))
    with pytest.raises(DataError, match="two arrays named x"):
        open_arrays(path)


def seeds() -> list[tuple[str, bytes]]:
    made = []
    for how in ("npy", "stored", "compressed"):
        buffer = io.BytesIO()
        if how == "npy":
            np.save(buffer, np.arange(24.0).reshape(4, 6))
        else:
            write = np.savez if how == "stored" else np.savez_compressed
            write(buffer, x=np.arange(24.0).reshape(4, 6), labels=np.arange(4))
        made.append((".npy" if how == "npy" else ".npz", buffer.getvalue()))
    return made


SEEDS = seeds()


@settings(max_examples=150)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    st.integers(0, 2000),
)
def test_damaged_files_give_arrays_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory,
    seed: tuple[str, bytes],
    changes: list[tuple[int, int]],
    cut: int,
) -> None:
    suffix, raw = seed
    damaged = bytearray(raw)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    path.write_bytes(damaged[: len(damaged) - cut % len(damaged)])
    with contextlib.suppress(DataError):
        for array in open_arrays(path).values():
            count = min(array.shape[0], 50) if array.shape else 0
            assert sum(1 for _ in array.rows(range(count))) == count
