"""The task spec: what a model's outputs mean and how they are scored, from YAML.

task: detection            # classification, detection, segmentation or regression
annotations: instances.json
decode: yolox
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artefacts.errors import DataError
from artefacts.files import read_bounded
from artefacts.texts import shortened, shown
from artefacts.yaml_documents import parse_yaml
from benchmarks.accuracy.classification import ClassificationTask
from benchmarks.accuracy.custom import CustomTask
from benchmarks.accuracy.detection import DetectionTask
from benchmarks.accuracy.regression import RegressionTask
from benchmarks.accuracy.segmentation import SegmentationTask

__all__ = ["TASKS", "Task", "read_task", "task_from"]

Task = ClassificationTask | DetectionTask | SegmentationTask | RegressionTask | CustomTask

# A custom metric is Python code: it comes from the command line, never out of a data file.
TASKS: dict[str, Any] = {
    "classification": ClassificationTask,
    "detection": DetectionTask,
    "segmentation": SegmentationTask,
    "regression": RegressionTask,
}
LIMIT_BYTES = 64 << 10


def read_task(path: str | Path) -> Task:
    """Read a task spec; file names in it are relative to it.

    Raises:
        DataError: not YAML, an unknown key, or a value that cannot be used.
        InputError: no such file, or larger than 64 KiB.
    """
    raw = read_bounded(path, limit_bytes=LIMIT_BYTES, what="task spec")
    try:
        values = parse_yaml(raw)
    except ValueError as err:
        raise DataError(
            f"task spec {path} is not YAML ({shortened(str(err))}), expected keys "
            "and values such as 'task: classification'; correct it"
        ) from err
    if not isinstance(values, dict):
        raise DataError(
            f"task spec {path} holds {type(values).__name__}, expected keys and values such as "
            "'task: classification'; correct it"
        )
    return task_from(values, folder=Path(path).parent, where=f"task spec {path}")


def task_from(values: Mapping[str, Any], *, folder: Path, where: str = "task spec") -> Task:
    """A task from plain values.

    Args:
        values: ``task`` and the fields of that task.
        folder: what ``annotations`` is relative to.
        where: for errors.

    Raises:
        DataError: an unknown task or key, or a value that cannot be used.
    """
    kind = values.get("task")
    if not isinstance(kind, str) or kind not in TASKS:
        raise DataError(
            f"{where} has task: {shown(kind)}, expected one of {', '.join(TASKS)}; correct it"
        )
    # What only the program can know (the preprocessing of the samples) is no key of the file.
    fields = {f.name: f for f in dataclasses.fields(TASKS[kind]) if f.metadata.get("key", True)}
    given = {key: value for key, value in values.items() if key != "task"}
    for key in given:
        if key not in fields:
            near = difflib.get_close_matches(shown(key), fields, n=1, cutoff=0.0)[0]
            raise DataError(
                f"{where} has unknown key {shown(key)}, expected one of {', '.join(fields)}; did "
                f"you mean {near!r}?"
            )
    if "annotations" in given:
        given["annotations"] = folder / str(given["annotations"])
    missing = [n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in given]
    if missing:
        raise DataError(f"{where} lacks {', '.join(missing)}, expected for a {kind} task; add it")
    plain = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
    _check_types(fields, plain, where)
    task: Task = TASKS[kind](**plain)
    return task


def _check_types(fields: Mapping[str, Any], given: Mapping[str, Any], where: str) -> None:
    """Refuse values whose type the field's annotation does not name."""
    allowed = {"int": int, "float": (int, float), "str": str, "bool": bool, "tuple": tuple}
    for key, value in given.items():
        names = str(fields[key].type)
        kinds = [kind for name, kind in allowed.items() if name in names] + [Path]
        if (value is None and "None" in names) or any(isinstance(value, k) for k in kinds):  # type: ignore[arg-type]
            continue
        raise DataError(f"{where} has {key}: {shown(value)}, expected {names}; correct it")
