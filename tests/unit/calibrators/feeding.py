"""Arrays as files, inputs they are for, and the sentence where they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artefacts.errors import DataError
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.samples.data import InputSpec, open_samples

F32 = np.dtype(np.float32)
I64 = np.dtype(np.int64)
IMAGE = (InputSpec(name="pixels", dtype=F32, shape=("N", 3, 4, 5)),)
FEATURES = (InputSpec(name="mfcc", dtype=F32, shape=("N", 1, 7, 3)),)
TOKENS = (
    InputSpec(name="input_ids", dtype=I64, shape=("batch", "sequence")),
    InputSpec(name="attention_mask", dtype=I64, shape=("batch", "sequence")),
)
UNIT = Preprocess(scale="1/255")


def npz(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def refusal(path: object, inputs: tuple[InputSpec, ...], **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        list(open_samples(path, inputs=inputs, **options))
    return str(caught.value)
