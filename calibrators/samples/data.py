"""Samples from a path, and batches from samples.

In: an image folder, .npz or .npy files, a Python loader, Polygraphy's files. Out: what the model is
fed with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import DataError
from calibrators.preprocessing import images
from calibrators.preprocessing.named import named_preprocess
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.preprocessing.presets import PRESETS
from calibrators.preprocessing.spec_file import read_yaml
from calibrators.samples.array_samples import ArrayFiles
from calibrators.samples.axes import fixed_batch, has_batch_axis, input_specs, resolved
from calibrators.samples.folders import FileList, list_folder, list_text
from calibrators.samples.input_names import check_preprocess
from calibrators.samples.loaders import Feed, LoaderSamples, load_function
from calibrators.samples.polygraphy_inputs import SUFFIX, is_saved_folder, saved_inputs
from calibrators.samples.samples import InputSpec, Sample, Samples, image_shape
from calibrators.samples.sources import Chosen, ImageFiles, RandomRows

__all__ = [
    "Batch",
    "InputSpec",
    "Sample",
    "Samples",
    "batches",
    "input_specs",
    "open_samples",
    "preprocess_named",
    "random_samples",
    "require_labels",
    "require_source",
    "shape_limits",
]

_ARRAYS = (".npz", ".npy")


def open_samples(
    path: str | Path | Callable[[], Iterable[Feed]],
    *,
    inputs: Sequence[InputSpec],
    preprocess: Preprocess | None = None,
    limit: int | None = None,
) -> Samples:
    """Open a source of samples; nothing is decoded yet.

    Args:
        path: an image folder, an image, an .npz or .npy file or a folder of them, a .txt list of
            files, a Python file with ``load_data()`` (or ``file.py:function``), or such a function;
            or what ``polygraphy run --save-inputs`` wrote, a .json file or a folder of them.
        inputs: the model's inputs, from :func:`input_specs`.
        preprocess: the spec; needed for images and for integers that feed a real-valued input.
        limit: at most so many samples, evenly spread where their number is known.

    Raises:
        DataError: the source cannot be used; the message says why and what to do.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit of samples is {limit}, expected at least 1; correct it")
    if preprocess is not None:
        check_preprocess(preprocess, inputs)
    if callable(path):
        name = f"loader {getattr(path, '__name__', 'function')}"
        loader = LoaderSamples(path, inputs=inputs, preprocess=preprocess, path=name)
        return loader[:limit]
    file, _, function = str(path).partition(".py:")
    if function or str(path).endswith(".py"):
        name = f"loader {path}"
        load = load_function(Path(f"{file}.py" if function else path), function or "load_data")
        return LoaderSamples(load, inputs=inputs, preprocess=preprocess, path=name)[:limit]
    return _open_files(Path(path), inputs=inputs, preprocess=preprocess, limit=limit)


def require_source(path: str | Path) -> None:
    """Refuse a path of samples where nothing is; ``loader.py:function`` names the file.

    Raises:
        DataError: nothing is there.
    """
    file, _, function = str(path).partition(".py:")
    if not Path(f"{file}.py" if function else path).exists():
        raise DataError(
            f"samples {path} do not exist, expected an image folder, .npz, .npy or a Python file "
            "with load_data(); check the path"
        )


def _open_files(
    path: Path,
    *,
    inputs: Sequence[InputSpec],
    preprocess: Preprocess | None,
    limit: int | None,
) -> Samples:
    require_source(path)
    if path.suffix.lower() == SUFFIX or is_saved_folder(path):
        name = f"saved inputs {path}"
        load = partial(saved_inputs, path)
        return LoaderSamples(load, inputs=inputs, preprocess=preprocess, path=name)[:limit]
    listed = _listed(path)
    if listed.files[0].suffix.lower() in _ARRAYS:
        source = ArrayFiles(listed, inputs=inputs, preprocess=preprocess, path=path)
        return Chosen.of(source, limit)
    if preprocess is None:
        raise DataError(
            f"images of {path} need a preprocessing spec, expected --preprocess with a preset "
            f"({', '.join(PRESETS)}, timm:NAME) or a YAML file with at least 'scale: 1/255' (and "
            "resize, mean, std as in training); see docs/data.md"
        )
    return Chosen.of(ImageFiles(listed, inputs=inputs, preprocess=preprocess), limit)


def _listed(path: Path) -> FileList:
    kinds = (*images.SUFFIXES, *_ARRAYS)
    suffix = path.suffix.lower()
    if path.is_dir():
        # Images win over arrays, which may be their features or labels.
        return list_folder(path, (images.SUFFIXES, _ARRAYS))
    if suffix == ".txt":
        return list_text(path, kinds)
    if suffix in (".yaml", ".yml"):
        raise _dataset_description(path)
    if suffix not in kinds:
        raise DataError(
            f"samples {path} end in {suffix or 'nothing'}, expected an image folder, an image, "
            ".npz, .npy, a .txt list of files, a .py loader or Polygraphy's .json; convert them or "
            "write a Python file with load_data()"
        )
    return FileList(root=path.parent, files=(path,), names=(path.name,))


def _dataset_description(path: Path) -> DataError:
    """Ultralytics users have a data.yaml; calibrating with its val split would flatter accuracy."""
    spec = read_yaml(path)
    base = path.parent / str(spec.get("path") or "")
    splits = {key: base / str(spec[key]) for key in ("train", "val") if spec.get(key)}
    found = ", ".join(f"{key}: {folder}" for key, folder in splits.items())
    return DataError(
        f"samples {path} is a description of a dataset ({found or 'without train and val'}), "
        "expected the samples; give its train folder for calibration and val for evaluation"
    )


def preprocess_named(name: str | Path, inputs: Sequence[InputSpec]) -> Preprocess:
    """The spec of a file, or of a preset for the model's image input.

    Raises:
        DataError: neither of the two, or one that cannot be used.
        MissingLibraryError: ``timm:NAME`` without timm.
    """
    return named_preprocess(name, image_shape(inputs))


def random_samples(inputs: Sequence[InputSpec], *, count: int, seed: int) -> Samples:
    """Random samples: for a first build without data, never for one to deploy.

    Raises:
        DataError: an input has a dynamic dimension other than the batch.
    """
    return Chosen.of(RandomRows(inputs, count, seed), None)


def require_labels(samples: Samples) -> None:
    """Refuse samples without labels.

    Raises:
        DataError: why there are none.
    """
    if samples.unlabelled:
        raise DataError(samples.unlabelled)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples stacked for one run of the model.

    Attributes:
        inputs: input name → array, e.g. (8, 3, 224, 224).
        samples: what it was stacked from.
        count: real rows; the rest repeats the last one (static batch only).
        padding: rows to leave out of results.
    """

    inputs: dict[str, NDArray[Any]]
    samples: tuple[Sample, ...]
    count: int
    padding: int = 0


def batches(
    samples: Iterable[Sample], batch_size: int, *, inputs: Sequence[InputSpec]
) -> Iterator[Batch]:
    """Stack samples along their axis.

    A static batch dimension of the model wins over ``batch_size``; its last batch is padded by
    repeating the last real row. A change of shape between samples starts a new batch. Models
    without a batch axis get one sample at a time.

    Raises:
        DataError: ``batch_size`` is less than 1.
    """
    if batch_size < 1:
        raise DataError(f"batch size is {batch_size}, expected at least 1; correct --calib-batch")
    batched, static = has_batch_axis(inputs), fixed_batch(inputs)
    axes = {spec.name: spec.axis or 0 for spec in resolved(inputs)}
    size = static or batch_size
    pending: list[Sample] = []
    for sample in samples:
        single = batched and all(
            array.shape[axes.get(name, 0)] == 1 for name, array in sample.inputs.items()
        )
        if pending and (not single or _shapes(pending[0]) != _shapes(sample)):
            yield _stack(pending, static, axes)
            pending = []
        if not single:
            yield _alone(sample)
            continue
        pending.append(sample)
        if len(pending) == size:
            yield _stack(pending, static, axes)
            pending = []
    if pending:
        yield _stack(pending, static, axes)


def _shapes(sample: Sample) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in sample.inputs.items()}


def _stack(pending: Sequence[Sample], static: int | None, axes: Mapping[str, int]) -> Batch:
    padding = max((static or 0) - len(pending), 0)
    rows = [*pending, *[pending[-1]] * padding]
    inputs = {
        name: np.concatenate([row.inputs[name] for row in rows], axis=axes.get(name, 0))
        for name in rows[0].inputs
    }
    return Batch(inputs=inputs, samples=tuple(pending), count=len(pending), padding=padding)


def _alone(sample: Sample) -> Batch:
    first = next(iter(sample.inputs.values()))
    count = first.shape[0] if first.ndim else 1
    return Batch(inputs=dict(sample.inputs), samples=(sample,), count=count)


def shape_limits(
    samples: Iterable[Sample],
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Smallest and largest size of each dimension of each input among the samples.

    Returns:
        Two mappings from input name to shape, batch axis 1, e.g. (1, 3, 320, 320) and
        (1, 3, 640, 640).

    Raises:
        DataError: no samples.
    """
    low: dict[str, tuple[int, ...]] = {}
    high: dict[str, tuple[int, ...]] = {}
    for sample in samples:
        for name, shape in _shapes(sample).items():
            low[name] = tuple(map(min, low.get(name, shape), shape))
            high[name] = tuple(map(max, high.get(name, shape), shape))
    if not low:
        raise DataError("0 samples to take shapes from, expected at least 1; give calibration data")
    return low, high
