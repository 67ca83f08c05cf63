"""Inputs as Polygraphy saves them: read as samples, refused where damaged, never unpickled."""

from __future__ import annotations

import base64
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artefacts.errors import DataError
from calibrators import open_samples
from calibrators.samples import polygraphy_inputs
from calibrators.samples.samples import InputSpec

X = InputSpec(name="x", dtype=np.dtype(np.float32), shape=("N", 3))
IDS = InputSpec(name="ids", dtype=np.dtype(np.int64), shape=("N", 2))


def encoded(array: Any, **options: Any) -> dict[str, str]:
    """As ``polygraphy.json`` writes an array."""
    file = io.BytesIO()
    np.save(file, array, **options)
    return {"array": base64.b64encode(file.getvalue()).decode(), "polygraphy_class": "ndarray"}


def saved(path: Path, *feeds: dict[str, Any]) -> Path:
    path.write_text(json.dumps([{n: encoded(a) for n, a in f.items()} for f in feeds]))
    return path


def test_each_row_is_a_sample(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = rng.normal(size=(5, 3)).astype(np.float32)
    ids = rng.integers(0, 99, size=(5, 2))
    feeds = [{"x": rows[:2], "ids": ids[:2]}, {"x": np.asfortranarray(rows[2:]), "ids": ids[2:]}]
    path = saved(tmp_path / "x.json", *feeds)
    samples = open_samples(path, inputs=(X, IDS))
    for _ in range(2):  # each pass reads anew
        found = list(samples)
        np.testing.assert_array_equal(np.concatenate([s.inputs["x"] for s in found]), rows)
        np.testing.assert_array_equal(np.concatenate([s.inputs["ids"] for s in found]), ids)
    assert len(list(open_samples(path, inputs=(X, IDS), limit=3))) == 3


def test_a_folder_is_read_in_the_order_of_its_files(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    rows = rng.normal(size=(3, 3)).astype(np.float32)
    for number, row in enumerate(rows):
        path = tmp_path / f"{number:010d}.json"
        path.write_text(json.dumps({"x": encoded(row[None])}))
    found = [sample.inputs["x"][0] for sample in open_samples(tmp_path, inputs=(X,))]
    np.testing.assert_array_equal(found, rows)


class _Runs:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("it was unpickled",))


def _pickled() -> dict[str, str]:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": (1,)}
    )
    data = header.getvalue() + pickle.dumps(_Runs())
    return {"array": base64.b64encode(data).decode()}


def _cut() -> dict[str, str]:
    raw = base64.b64decode(encoded(np.zeros((4, 3), np.float32))["array"])
    return {"array": base64.b64encode(raw[:-8]).decode()}


DAMAGED = {
    "no JSON": ("{", "is no JSON"),
    "nested without end": ("[" * 200_000, "is no JSON"),
    "nothing": ("[]", "holds 0 iterations"),
    "numbers": ("[1, 2]", "holds int as iteration 0"),
    "outputs": ('{"lst": [], "polygraphy_class": "RunResults"}', r"holds outputs \(--save-outputs"),
    "a tensor of torch": (
        json.dumps([{"x": {"tensor": "", "polygraphy_class": "Tensor"}}]),
        "holds no NumPy array as input x of 0",
    ),
    "no base64": (json.dumps([{"x": {"array": "§"}}]), "damaged at input x of 0"),
    "no array": (json.dumps([{"x": {"array": "AAAA"}}]), "cannot be read .*x of 0"),
    "cut short": (json.dumps([{"x": _cut()}]), "cut short: 40 bytes of data, expected 48"),
    "a pickle": (json.dumps([{"x": _pickled()}]), "holds Python objects .*unpickling runs code"),
    "words": (json.dumps([{"x": encoded(np.array(["a"]))}]), "holds <U1 values"),
}


@pytest.mark.parametrize(("text", "said"), DAMAGED.values(), ids=DAMAGED)
def test_what_is_damaged_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said) as refused:
        list(open_samples(path, inputs=(X,)))
    assert str(path) in str(refused.value)
    assert "raised" not in str(refused.value)


def test_a_file_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "x.json", {"x": np.zeros((2, 3), np.float32)})
    monkeypatch.setattr(polygraphy_inputs, "_LARGEST_FILE_BYTES", 100)
    with pytest.raises(DataError, match="expected at most 100"):
        list(open_samples(path, inputs=(X,)))
