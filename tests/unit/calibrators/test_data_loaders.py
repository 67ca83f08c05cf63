"""Python loaders: functions and files, what they may yield, whose error is whose."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artefacts.errors import DataError
from calibrators.samples.data import Sample, open_samples
from tests.unit.calibrators.feeding import IMAGE, refusal


def test_loader_functions(rng: np.random.Generator) -> None:
    array = rng.normal(size=(5, 3, 4, 5)).astype(np.float32)

    def load() -> Iterator[Mapping[str, Any]]:
        yield {"pixels": array[:2]}
        yield {"pixels": array[2:], "labels": [7, 8, 9]}

    samples = open_samples(load, inputs=IMAGE)
    for _ in range(2):  # a generator function is called anew
        found = list(samples)
        assert [(s.name, s.label) for s in found] == [
            ("0", None),
            ("1", None),
            ("2", 7),
            ("3", 8),
            ("4", 9),
        ]
        np.testing.assert_array_equal(np.concatenate([s.inputs["pixels"] for s in found]), array)
    with pytest.raises(TypeError, match="known after reading"):
        len(samples)
    assert [sample.name for sample in samples[1:]] == ["1", "2", "3", "4"]
    assert [sample.name for sample in samples[1::2]] == ["1", "3"]
    assert [sample.name for sample in samples[1:][::2][:1]] == ["1"]
    assert [sample.name for sample in samples[:4][1:9:2]] == ["1", "3"]
    assert len(list(open_samples(load, inputs=IMAGE, limit=3))) == 3


def test_loader_files(tmp_path: Path) -> None:
    (tmp_path / "shapes_of_mine.py").write_text("SHAPE = (2, 3, 4, 5)\n")
    path = tmp_path / "loader.py"
    path.write_text(
        "import numpy as np\n"
        "from shapes_of_mine import SHAPE\n"
        "def load_data():\n"
        "    yield {'pixels': np.zeros(SHAPE, np.float32)}\n"
        "def other():\n"
        "    return [{'pixels': np.ones(SHAPE, np.float32)}] * 2\n"
    )
    samples = list(open_samples(path, inputs=IMAGE))
    assert [sample.inputs["pixels"].max() for sample in samples] == [0, 0]
    samples = list(open_samples(f"{path}:other", inputs=IMAGE))
    assert [sample.inputs["pixels"].max() for sample in samples] == [1] * 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "has no function load_data(), expected one that yields"),
        ("load_data = 3\n", "has no function load_data()"),
        ("def load_data(:\n", "raised SyntaxError"),
        ("import no_such_module\n", "raised ModuleNotFoundError: No module named 'no_such_module'"),
        ("def load_data():\n    raise KeyError('gone')\n    yield\n", "raised KeyError: 'gone'"),
        ("def load_data():\n    return 3\n", "raised TypeError"),
        ("def load_data(size):\n    yield {}\n", "raised TypeError"),
        ("def load_data():\n    return []\n", "yields nothing"),
        ("def load_data():\n    yield 3\n", "sample 0 is of type int, expected a dict {input name"),
        ("def load_data():\n    yield {}\n", "has nothing, expected an array for input pixels"),
        ("def load_data():\n    yield {'pixel': [1.0], 'ids': [1]}\n", "did you mean pixel?"),
        ("def load_data():\n    yield {'pixels': 'a.jpg'}\n", "(pixels) is str (<U5), expected"),
        ("def load_data():\n    yield {'pixels': [[1.0], [1.0, 2.0]]}\n", "raised ValueError"),
        ("def load_data():\n    yield {1: 2}\n", "has key 1, expected the name of a model input"),
        ("raise SystemExit(3)\n", "SystemExit"),
    ],
    ids=lambda value: value[:40],
)  # fmt: skip
def test_loaders_that_fail(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "loader.py"
    path.write_text(text)
    found = refusal(path, IMAGE)
    assert said in found
    assert str(path) in found


def test_loaders_of_one_name_and_with_dataclasses(tmp_path: Path) -> None:
    for level in (1, 2):
        path = tmp_path / str(level) / "loader.py"
        path.parent.mkdir()
        path.write_text(
            "from __future__ import annotations\n"
            "from dataclasses import dataclass\n"
            "import numpy as np\n"
            "@dataclass\n"
            "class Row:\n"
            "    level: float\n"
            "def load_data():\n"
            f"    yield {{'pixels': np.full((1, 3, 4, 5), Row({level}).level, np.float32)}}\n"
        )
    for level in (2, 1):
        (sample,) = open_samples(tmp_path / str(level) / "loader.py", inputs=IMAGE)
        assert sample.inputs["pixels"].max() == level


def test_loader_cause_is_kept_for_debug(tmp_path: Path) -> None:
    path = tmp_path / "loader.py"
    path.write_text("def load_data():\n    yield {}['missing']\n")
    with pytest.raises(DataError) as caught:
        list(open_samples(path, inputs=IMAGE))
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(DataError, match=r"loader .*none\.py does not exist"):
        open_samples(tmp_path / "none.py", inputs=IMAGE)


def test_errors_of_the_consumer_are_its_own() -> None:
    samples = open_samples(lambda: [{"pixels": np.zeros((3, 3, 4, 5), "f4")}], inputs=IMAGE)

    def consume(sample: Sample) -> None:
        raise ZeroDivisionError(sample.name)

    with pytest.raises(ZeroDivisionError):
        deque(map(consume, samples))


def test_torch_tensors_are_arrays() -> None:
    torch = pytest.importorskip("torch")
    samples = open_samples(lambda: [{"pixels": torch.ones(2, 3, 4, 5)}], inputs=IMAGE)
    assert [sample.inputs["pixels"].dtype for sample in samples] == [np.float32] * 2
    grad = open_samples(
        lambda: [{"pixels": torch.ones(2, 3, 4, 5, requires_grad=True)}], inputs=IMAGE
    )
    with pytest.raises(DataError, match=r"raised RuntimeError: .*detach"):
        list(grad)
