"""Labels beside a folder, in it and of its subfolders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from artefacts.errors import DataError
from calibrators.samples.data import open_samples, require_labels
from tests.unit.calibrators.pictures import INPUTS, SPEC, labels, picture


@pytest.mark.parametrize("beside", [False, True], ids=["inside", "beside"])
@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("labels.json", '{"a.png": 7, "b.png": 3, "other.png": 1}'),
        ("labels.json", '{"a.png": "7", "b.png": "3"}'),
        ("labels.txt", "b.png 3\na.png 7\n"),
        ("labels.txt", "\ufeffa.png 7\r\nb.png 3\r\n"),
        ("labels.txt", "7\n3\n"),
    ],
    ids=["json", "json-text", "lines", "windows", "order"],
)
def test_label_files(beside: bool, file: str, text: str, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / "data" / name)
    (tmp_path / ("." if beside else "data") / file).write_text(text, encoding="utf-8", newline="")
    assert labels(tmp_path / "data") == [7, 3]


def test_label_names(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name)
    (tmp_path / "labels.json").write_text('{"a.png": "dog", "b.png": "cat", "c.png": "dog"}')
    samples = open_samples(tmp_path, inputs=INPUTS, preprocess=SPEC)
    assert [sample.label for sample in samples] == [1, 0, 1]
    assert samples.classes == ("cat", "dog")
    (tmp_path / "classes.txt").write_text("bird\ndog\ncat\n")
    samples = open_samples(tmp_path, inputs=INPUTS, preprocess=SPEC)
    assert [sample.label for sample in samples] == [1, 2, 1]
    assert samples.classes == ("bird", "dog", "cat")


def test_labels_of_a_regression(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    (tmp_path / "labels.json").write_text('{"a.png": 37.5, "b.png": [1, -2.5, 3]}')
    first, second = labels(tmp_path)
    np.testing.assert_array_equal(np.asarray(first), [37.5])
    np.testing.assert_array_equal(np.asarray(second), [1.0, -2.5, 3.0])


def test_label_files_win_over_folders_and_know_bare_names(tmp_path: Path) -> None:
    for name in ("x/a.png", "y/b.png"):
        picture(tmp_path / name)
    (tmp_path / "labels.json").write_text('{"a.png": 5, "y/b.png": 6}')
    assert labels(tmp_path) == [5, 6]


def test_a_sibling_s_labels_are_not_ours(tmp_path: Path) -> None:
    for name in ("calib/a.png", "test/b.png", "test/c.png"):
        picture(tmp_path / name)
    (tmp_path / "labels.json").write_text('{"b.png": 1, "c.png": 2}')
    assert labels(tmp_path / "test") == [1, 2]
    samples = open_samples(tmp_path / "calib", inputs=INPUTS, preprocess=SPEC)
    assert [sample.label for sample in samples] == [None]
    with pytest.raises(DataError, match=r"calib have no labels, expected one folder per class"):
        require_labels(samples)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("labels.json", '{"a.png": 1}', "no entry for b.png (nor for 0 more)"),
        ("labels.json", '{"a.png": 1, "b.png": -1}', "holds -1"),
        ("labels.json", '{"a.png": 1, "b.png": true}', "holds True"),
        ("labels.json", '{"a.png": 1.5, "b.png": []}', "holds []"),
        ("labels.json", '{"a.png": 1.5, "b.png": ["x"]}', "holds ['x']"),
        ("labels.json", '{"a.png": 1, "b.png": "cat"}', "holds 'cat'"),
        ("labels.json", "[1, 2]", "holds a list"),
        ("labels.json", "{", "is not JSON"),
        ("labels.json", "[" * 100_000, "is not JSON"),
        ("labels.txt", "1\n2\n3\n", "3 lines, expected 2"),
        ("labels.txt", "a.png 1\n", "no entry for b.png"),
    ],
)
def test_labels_that_do_not_fit(file: str, text: str, said: str, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    (tmp_path / file).write_text(text)
    samples = open_samples(tmp_path, inputs=INPUTS, preprocess=SPEC)
    assert len(list(samples)) == 2  # calibration needs no labels
    with pytest.raises(DataError) as caught:
        require_labels(samples)
    assert said in str(caught.value)


def test_labels_that_are_no_text(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="expected UTF-8 text"):
        require_labels(open_samples(tmp_path, inputs=INPUTS, preprocess=SPEC))


def test_labels_of_a_thousand_files_are_read_once(tmp_path: Path) -> None:
    table = {}
    for position in range(300):
        table[picture(tmp_path / f"{position}.png", position % 256).name] = position
    (tmp_path / "labels.json").write_text(json.dumps(table))
    samples = open_samples(tmp_path, inputs=INPUTS, preprocess=SPEC)
    assert all(table[sample.name] == sample.label for sample in samples)
    assert len(samples) == 300
