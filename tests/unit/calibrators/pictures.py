"""Small pictures in folders, and what is read of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artefacts.errors import DataError
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.samples.data import InputSpec, open_samples, require_labels

SPEC = Preprocess(resize=(4, 4), scale="1/255")
INPUTS = (InputSpec(name="x", dtype=np.dtype(np.float32), shape=("N", 3, 4, 4)),)


def picture(path: Path, level: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (level, level, level)).save(path, "PNG")
    return path


def names(path: Path) -> list[str]:
    return [sample.name for sample in open_samples(path, inputs=INPUTS, preprocess=SPEC)]


def labels(path: Path) -> list[object]:
    samples = open_samples(path, inputs=INPUTS, preprocess=SPEC)
    require_labels(samples)
    return [sample.label for sample in samples]


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        open_samples(path, inputs=INPUTS, preprocess=SPEC)
    return str(caught.value)
