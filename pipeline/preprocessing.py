"""What is done to images, and what classes are called: as the flags say, else as the model does."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx

import calibrators
import engines
from artefacts.errors import DataError
from benchmarks.accuracy.classification import ClassificationTask
from benchmarks.accuracy.task import read_task
from calibrators.preprocessing.detect import detect, stated_classes
from calibrators.samples.samples import image_shape
from pipeline.job import Data, Paths
from pipeline.screen import Screen

__all__ = [
    "Described",
    "class_count",
    "sample_classes",
    "settle_preprocess",
    "with_description",
]

BACKGROUND = "background"


@dataclass(frozen=True, kw_only=True)
class Described:
    """What the flags or the model say.

    Attributes:
        preprocess: of images; None where nobody says it.
        labels: class names by the model's class, empty where the model has none.
    """

    preprocess: calibrators.Preprocess | None
    labels: tuple[str, ...]


def settle_preprocess(
    paths: Paths, data: Data, model: onnx.ModelProto, screen: Screen
) -> tuple[Data, Described]:
    """Look presets up, and what nobody said where the model says it.

    Returns:
        The samples with a spec instead of a name, and what the manifest says of it.

    Raises:
        DataError: ``--preprocess`` cannot be used.
    """
    inputs = calibrators.input_specs(model)
    shape = image_shape(inputs)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    spec = data.preprocess
    classes: tuple[str, ...] = ()
    if spec is not None and not isinstance(spec, calibrators.Preprocess):
        spec = calibrators.preprocess_named(spec, inputs)
    try:
        if spec is None and shape is not None:
            found = detect(paths.onnx, metadata, shape)
            if found is not None:
                spec = found.preprocess
                screen.add(f"preprocessing of {found.origin}: {_said(spec)}")
        classes = _fitting(stated_classes(paths.onnx, metadata), model, screen)
    except DataError as err:  # nobody asked for it: arrays need none, and images are refused later
        screen.warn(str(err))
    return replace(data, preprocess=spec), Described(preprocess=spec, labels=classes)


def with_description(passport: engines.Passport, known: Described) -> engines.Passport:
    """The passport with what it does not say itself; class names of the model win."""
    spec = None if known.preprocess is None else known.preprocess.to_dict()
    return replace(
        passport, preprocess=passport.preprocess or spec, labels=known.labels or passport.labels
    )


def sample_classes(
    data: Data, model: onnx.ModelProto, sources: list[calibrators.Samples], screen: Screen
) -> tuple[str, ...] | None:
    """Class names by the model's class, from the first source of samples that has names."""
    names = next((samples.classes for samples in sources if samples.classes), ())
    if not names:
        return None
    task = read_task(data.task) if data.task is not None else ClassificationTask()
    if not isinstance(task, ClassificationTask):
        return names
    offset = task.label_offset
    named = (BACKGROUND,) * offset + names if offset > 0 else names[-offset:]
    return _fitting(named, model, screen) or None


def _fitting(names: tuple[str, ...], model: onnx.ModelProto, screen: Screen) -> tuple[str, ...]:
    """Names where there are as many as classes, as far as that is known."""
    classes = class_count(model)
    if not names or classes in (None, len(names)):
        return names
    screen.warn(
        f"{len(names)} class names for a model of {classes} classes, expected as many; the engine "
        "is built without names"
    )
    return ()


def class_count(model: onnx.ModelProto, output: str | None = None) -> int | None:
    """How many classes a classifier scores; None where its shape does not say.

    Args:
        model: a classifier, or anything else.
        output: that has the scores; None for the only one.
    """
    found = [value for value in model.graph.output if output in (None, value.name)]
    if len(found) != 1:
        return None
    dims = found[0].type.tensor_type.shape.dim
    if len(dims) != 2 or not dims[1].HasField("dim_value"):
        return None
    return int(dims[1].dim_value)


def _said(spec: calibrators.Preprocess) -> str:
    """The keys of a spec that are no defaults, in one line."""
    plain, default = spec.to_dict(), calibrators.Preprocess().to_dict()
    return ", ".join(f"{key} {value}" for key, value in plain.items() if value != default.get(key))
