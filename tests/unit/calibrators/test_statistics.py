"""The statistics file: merging, bytes, damage."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artefacts.errors import ArtefactError, InputError
from artefacts.files import sha256_bytes
from calibrators.statistics.statistics import SUBSETS, Statistics, TensorStatistics, subsets_of

NAMES = ("conv: out", "a", "größe")


def make(samples: Mapping[str, float], **changes: object) -> Statistics:
    """Statistics of tensors that hold one value a sample, multiplied by 1, 2, 3."""
    levels = [{name: TensorStatistics() for name in NAMES} for _ in range(SUBSETS + 1)]
    for digest, value in samples.items():
        for tensors in levels[: subsets_of(digest) + 1]:
            for factor, cell in enumerate(tensors.values(), start=1):
                cell.add(np.array([factor * value, 0], np.float32))
    fields: dict[str, object] = {
        "graph_hash": "a" * 64,
        "preprocess": {"resize": 256, "mean": [0.5, 0.25, 0.125]},
        "samples": tuple(samples),
        "tensors": levels[0],
        "subsets": tuple(levels[1:]),
    }
    return Statistics(**{**fields, **changes})  # type: ignore[arg-type]  # tests change one at will


def digest(number: int) -> str:
    return sha256_bytes(str(number).encode())


SAMPLES = st.dictionaries(
    st.integers(0, 50).map(digest), st.floats(-1e6, 1e6, width=32), max_size=12
)


@given(samples=SAMPLES, data=st.data())
def test_shards_merge_to_the_whole(samples: dict[str, float], data: st.DataObject) -> None:
    owner = {name: data.draw(st.integers(0, 3)) for name in samples}
    shards = [make({n: v for n, v in samples.items() if owner[n] == i}) for i in range(4)]
    first, *others = data.draw(st.permutations(shards))
    merged, whole = first.merge(*others), make(samples)
    assert merged == whole
    assert merged.digest == whole.digest


def test_merging_changes_neither_part() -> None:
    left, right = make({digest(1): 1.0}), make({digest(2): 500.0})
    before = (left.digest, right.digest)
    left.merge(right)
    fresh = (dataclasses.replace(left).digest, dataclasses.replace(right).digest)
    assert fresh == before


def test_save_and_load_are_the_identity_and_bytes_repeat(tmp_path: Path) -> None:
    whole = make({digest(i): i / 3 for i in range(9)})
    whole.save(tmp_path / "a.stats.npz")
    reordered = make({digest(i): i / 3 for i in reversed(range(9))})
    reordered.save(tmp_path / "b.stats.npz")
    assert (tmp_path / "a.stats.npz").read_bytes() == (tmp_path / "b.stats.npz").read_bytes()
    loaded = Statistics.load(tmp_path / "a.stats.npz")
    assert loaded == whole
    assert loaded.digest == whole.digest


def test_subsets_are_nested_and_halve() -> None:
    levels = [subsets_of(digest(i)) for i in range(4000)]
    half, quarter = (sum(level >= wanted for level in levels) for wanted in (1, 2))
    assert 1850 < half < 2150  # 5 standard deviations of a fair coin
    assert 860 < quarter < 1140


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"graph_hash": "b" * 64}, "of graphs aaaaaaaaaaaa and bbbbbbbbbbbb"),
        ({"preprocess": {"resize": 224}}, r"\{'resize': 256.*\} and \{'resize': 224\}"),
        ({"preprocess": None}, "and None, expected the same"),
        ({"tensors": {}, "subsets": ()}, "of 3 and 0 tensors"),
        ({"subsets": ()}, "their subsets"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    left, right = make({digest(1): 1.0}), make({digest(2): 1.0}, **change)
    with pytest.raises(ArtefactError, match=message):
        left.merge(right)


def test_overlapping_samples_are_refused() -> None:
    left, right = make({digest(1): 1.0, digest(2): 1.0}), make({digest(2): 1.0})
    with pytest.raises(ArtefactError, match=f"1 samples are in both .* {digest(2)[:12]}"):
        left.merge(right)
    with pytest.raises(ArtefactError, match="1 samples twice"):
        dataclasses.replace(left, samples=("x", "x"))


@given(data=st.data())
def test_damaged_files_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """One byte of the zip changed: refused, or the very same content (a byte that says nothing)."""
    path = tmp_path_factory.getbasetemp() / "damaged.stats.npz"
    whole = make({digest(i): float(i) for i in range(3)})
    whole.save(path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), place]))])
    try:
        assert Statistics.load(path) == whole
    except ArtefactError as err:
        assert "expected a *.stats.npz" in str(err)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip", b"\x80\x04."])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.stats.npz"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"x\.stats\.npz cannot be read"):
        Statistics.load(path)
    with pytest.raises(InputError, match=r"missing\.npz does not exist"):
        Statistics.load(tmp_path / "missing.npz")


def test_digests_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.stats.npz"
    dataclasses.replace(make({digest(1): 1.0}), samples=("one",)).save(path)
    with pytest.raises(ArtefactError, match="digest is not hexadecimal"):
        Statistics.load(path)


def repacked(path: Path, name: str, array: object, *, compress: bool = False) -> None:
    """Replace one array of a file, with valid checksums."""
    with zipfile.ZipFile(path) as archive:
        members = {entry: archive.read(entry) for entry in archive.namelist()}
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=True)
    members[f"{name}.npy"] = buffer.getvalue()
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        for entry, data in members.items():
            archive.writestr(entry, data)


@pytest.mark.parametrize(
    ("name", "array", "compress", "message"),
    [
        ("counts", np.array([{}], object), False, "an array is of object"),
        ("counts", np.zeros((3, 3, 5), "<i8"), False, r"counts is int64\[3, 3, 5\]"),
        ("zeros", np.ones((3, 3), "<i8"), False, "do not add up"),
        ("exponent", np.full((3, 3), 500, "<i8"), False, "exponent of tensor a is 500"),
        ("min", np.full((3, 3), np.nan), False, "range of tensor a is nan"),
        ("meta", np.frombuffer(b"[]", np.uint8), False, "format is not 1"),
        ("meta", np.zeros((2, 2)), False, "meta is float64"),
        ("surplus", np.zeros(1), False, "'surplus'"),
        ("zeros", np.zeros((3, 3), "<i8"), True, "is compressed"),
    ],
)
def test_altered_arrays_are_refused(
    tmp_path: Path, name: str, array: object, compress: bool, message: str
) -> None:
    path = tmp_path / "x.stats.npz"
    make({digest(1): 1.0}).save(path)
    repacked(path, name, array, compress=compress)
    with pytest.raises(ArtefactError, match=message):
        Statistics.load(path)
