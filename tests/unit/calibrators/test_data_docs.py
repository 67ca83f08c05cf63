"""docs/data.md says what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from calibrators.preprocessing.preprocess import Preprocess
from calibrators.samples.data import InputSpec, open_samples

DOCUMENT = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
SPECS = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
LOADERS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


def test_every_key_is_documented_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (.*?) \|$", DOCUMENT, re.MULTILINE))
    assert list(rows) == [entry.name for entry in fields(Preprocess)]
    for entry in fields(Preprocess):
        if isinstance(entry.default, (str, bool)):
            assert rows[entry.name] == f"`{str(entry.default).lower()}`"
        elif isinstance(entry.default, float):
            assert rows[entry.name] == f"{entry.default:g}"


@pytest.mark.parametrize("text", SPECS)
def test_example_specs(text: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    spec = Preprocess.from_yaml(tmp_path / "spec.yaml")
    assert Preprocess.from_dict(spec.to_dict()) == spec


def test_example_loader(tmp_path: Path) -> None:
    assert (len(SPECS), len(LOADERS)) == (5, 1)
    (tmp_path / "loader.py").write_text(LOADERS[0])
    inputs = [InputSpec(name="input", dtype=np.dtype(np.float32), shape=("N", 3, 32, 32))]
    assert len(list(open_samples(tmp_path / "loader.py", inputs=inputs))) == 32
