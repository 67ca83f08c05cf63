"""Files of plain arrays."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from artefacts.arrays import unpack_arrays, write_arrays
from artefacts.errors import BuilderError

KINDS = st.sampled_from(["<i8", "<f4", "|i1", "<f8", "|u1"])


@given(array=arrays.arrays(dtype=KINDS, shape=arrays.array_shapes(min_dims=0, min_side=0)))
def test_arrays_come_back(array: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("arrays") / "a.npz"
    write_arrays(path, {"größe": array, "none": np.zeros((0, 3), np.int8)})
    found = unpack_arrays(path.read_bytes())
    assert list(found) == ["größe", "none"]
    assert found["größe"].dtype == array.dtype
    np.testing.assert_array_equal(found["größe"], array)


def test_equal_arrays_are_equal_bytes(tmp_path: Path, rng: np.random.Generator) -> None:
    array = rng.normal(size=(3, 4))
    for name in "ab":
        write_arrays(tmp_path / name, {"x": array})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_truncated_files_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.npz"
    write_arrays(path, {"x": rng.normal(size=100)})
    data = path.read_bytes()
    for end in rng.integers(0, len(data), 20):
        with pytest.raises(ValueError, match=r"."):
            unpack_arrays(data[:end])


def test_a_member_that_is_no_array_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../x.txt", b"1")
    with pytest.raises(ValueError, match=r"\.\./x\.txt is no array"):
        unpack_arrays(buffer.getvalue())


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BuilderError, match="file"):
        write_arrays(tmp_path / "file" / "a.npz", {})
