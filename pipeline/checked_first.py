"""What can be known before anything is computed is refused before anything is computed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

import engines
import quantization
from artefacts.errors import InputError, ModelError
from artefacts.files import check_output
from artefacts.libraries import require
from artefacts.words import counted
from benchmarks.accuracy.classification import ClassificationTask, class_of
from benchmarks.accuracy.task import read_task
from calibrators.ranges.methods import parse_method
from calibrators.samples.data import require_source
from calibrators.samples.samples import declared_specs
from calibrators.tensorrt.cache import version_number
from pipeline.building import refuse_calibrator, settle_cpu_isa
from pipeline.job import Calibrate, Data, Job
from pipeline.needs import check_space
from pipeline.preprocessing import class_count
from pipeline.recipes import with_recipe
from pipeline.replaced import refuse_another
from pipeline.samples import evaluation_samples, refuse_nothing_to_learn
from quantization.lint.lint import RULES, Finding
from quantization.search.recipe import Recipe

__all__ = ["Loaded", "Ready", "check_evaluation", "check_first", "check_operators"]

LOOKED_AT = 32


class Loaded:
    """A model that is given away once: nobody holds it while another is made of it."""

    def __init__(self, model: onnx.ModelProto, notes: tuple[str, ...] = ()) -> None:
        self.notes = notes  # of what it was made from
        self._model: onnx.ModelProto | None = model

    @property
    def model(self) -> onnx.ModelProto:
        """The model, until it is taken."""
        assert self._model is not None
        return self._model

    def take(self) -> onnx.ModelProto:
        """The model, which from here on is the caller's."""
        model, self._model = self.model, None
        return model


@dataclass(frozen=True, kw_only=True, eq=False)
class Ready:
    """A job that nothing known speaks against.

    Attributes:
        job: as its recipe wants it.
        target: that ``auto`` stands for.
        isa: INT8 arithmetic to quantize for; None where the target has no choice.
        recipe: that it follows, if any.
        loaded: the model as it was read.
        taken: whether it is quantized already, and built as it is.
    """

    job: Job
    target: str
    isa: str | None
    recipe: Recipe | None
    loaded: Loaded
    taken: bool


def check_first(job: Job, model: onnx.ModelProto | None = None) -> Ready:
    """Check names, files, this machine and the model, in the order of what each costs.

    Args:
        job: what is asked for.
        model: of the job, where it was read already.

    Raises:
        BuilderError: the first thing that would end the job later.
    """
    _check_names(job.calibrate, implicit=job.build.implicit, cached=_cache(job) is not None)
    _check_files(job)
    target = engines.resolve_target(job.build.options.target)
    runtime = engines.runtime_of(target)
    quantizes, builds = job.build.precision == "int8", job.stop_after is None
    isa = settle_cpu_isa(job.quantize.isa, target, quantizes=quantizes, builds=builds)
    job, recipe = with_recipe(job)
    model = quantization.load_model(job.paths.onnx) if model is None else model
    model, notes = _in_floating_point(job, model)
    if builds:  # else the engine is built elsewhere, by a release not known here
        runtime.check_model(model)
        runtime.ready()
    _check_shapes(job.build.options.profiles, model)
    check_space(job, model)
    refuse_another(job.paths, model)
    taken = quantizes and quantization.quantized_format(model) is not None
    if taken:
        _refuse_searching(job)
    elif quantizes and job.calibrate.statistics is None and _cache(job) is None:
        refuse_nothing_to_learn(job.data)
    return Ready(
        job=job, target=target, isa=isa, recipe=recipe, loaded=Loaded(model, notes), taken=taken
    )


def _in_floating_point(job: Job, model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A model whose activations have no fixed scales as one to be calibrated, and what is said."""
    dynamic, data = quantization.is_dynamic(model), job.data
    learns = data.calib_data is not None or data.random_calibration is not None
    wanted = job.build.precision == "int8" and learns
    if not dynamic and not (wanted and quantization.has_coded_weights_only(model)):
        return model, ()
    model, count = quantization.from_dynamic(model)
    which = (
        f"dynamically quantized: the weights of {counted(count, 'layer')}"
        if dynamic
        else f"weights alone are quantized: those of {counted(count, 'constant')}"
    )
    said = "the numbers that their codes stand for, and calibrated as those of a float model"
    return model, (f"{which} are taken as {said}",)


def check_evaluation(data: Data, model: onnx.ModelProto) -> None:
    """Refuse labels that no accuracy could be measured with: those of samples spread over all.

    Args:
        data: the samples; of others than a classifier's, only whether they can be opened.
        model: with its note of what a sample is.

    Raises:
        DataError: labels are missing, not one class a sample, or of a class the model lacks.
    """
    if data.eval_data is None:
        return
    samples = evaluation_samples(data, model)
    task = ClassificationTask() if data.task is None else read_task(data.task)
    if not isinstance(task, ClassificationTask) or (data.task is None and not data.labelled):
        return
    classes = class_count(model, task.output)
    if classes is None:  # the shape does not say; a label has to be there all the same
        classes = sys.maxsize
    try:
        step = max(1, (len(samples) - 1) // (LOOKED_AT - 1))
    except TypeError:  # a loader: what it gives first
        step = 1
    for sample in samples[: LOOKED_AT * step : step]:
        class_of(sample, task.label_offset, classes)


def check_operators(job: Job, target: str, prepared: onnx.ModelProto) -> list[str]:
    """Refuse operators that the target is known to lack; warn of those that it may refuse.

    A model that is built elsewhere is not held to the library of this machine.

    Args:
        job: what is asked for.
        target: that is built for.
        prepared: the graph; of a model that came quantized, as it was taken.

    Raises:
        ModelError: the target lacks one.
    """
    runtime = engines.runtime_of(target)
    if job.stop_after is None:
        runtime.check_operators(prepared, job.build.options)
    if not runtime.linted:
        return []
    fatal = [each for each in quantization.lint(prepared, target) if each.severity == "fatal"]
    if job.stop_after is None:
        _refuse_lacking(job.paths.onnx, target, fatal)
    if job.build.precision != "int8":
        return []
    return [
        f"warning: TensorRT will refuse node {each.node!r} ({each.found}): {each.mend}"
        for each in fatal
    ]


def _refuse_lacking(path: Path, target: str, fatal: Sequence[Finding]) -> None:
    """Refuse what the target's parser takes and its builder does not: no parser says so."""
    for each in fatal:
        if RULES[each.rule].unsaid:
            raise ModelError(
                f"node {each.node} ({each.found}) of {path} cannot be built for {target}: "
                f"{_clause(each.why)}, expected operators that it has; {_clause(each.mend)}"
            )


def _clause(sentence: str) -> str:
    return f"{sentence[0].lower()}{sentence[1:-1]}"


def _cache(job: Job) -> Path | None:
    return job.build.options.calibration_cache


def _check_names(asked: Calibrate, *, implicit: bool, cached: bool) -> None:
    """The calibrator, and the version that a cache is for."""
    if implicit and not cached:
        refuse_calibrator(asked.method)
    elif asked.method != "auto":
        parse_method(asked.method)
    if asked.cache is not None:
        version_number(asked.cache_version)


def _check_files(job: Job) -> None:
    """What is read is there; what is written can be."""
    outputs = {
        "--engine": job.paths.engine,
        "--calib-cache": job.calibrate.cache,
        "--timingCacheFile": job.build.options.timing_cache,
        "--save-outputs": job.verify.save_outputs,
    }
    for flag, path in outputs.items():
        if path is not None:
            check_output(path, flag)
    inputs = {
        "--onnx": job.paths.onnx,
        "--statistics": job.calibrate.statistics,
        "--calib": _cache(job),
    }
    for flag, path in inputs.items():
        if path is not None and not path.is_file():
            found = "is a folder" if path.is_dir() else "does not exist"
            raise InputError(f"{flag} {path} {found}, expected a file; check the path")
    for source in (job.data.calib_data, job.data.eval_data):
        if isinstance(source, (str, Path)):
            require_source(source)
    if job.data.task is not None:
        read_task(job.data.task)
    if job.verify.save_outputs is not None:
        require("polygraphy.comparator", extra="tensorrt")


def _check_shapes(profiles: Sequence[engines.Profile], model: onnx.ModelProto) -> None:
    """Profiles name inputs of the model, with as many axes and the sizes that are fixed."""
    inputs = {spec.name: spec.shape for spec in declared_specs(model)}
    for profile in profiles:
        for name, shape in (*profile.min.items(), *profile.max.items()):
            if name not in inputs:
                raise InputError(
                    f"shapes are given for {name!r}, expected an input of the model: "
                    f"{', '.join(inputs)}; correct the name"
                )
            wanted = inputs[name]
            fits = len(shape) == len(wanted) and all(
                size == fixed or not isinstance(fixed, int)
                for size, fixed in zip(shape, wanted, strict=True)
            )
            if not fits:
                raise InputError(
                    f"shape {'x'.join(map(str, shape))} is given for input {name}, expected one "
                    f"that fits {'x'.join(map(str, wanted))}; correct it"
                )


def _refuse_searching(job: Job) -> None:
    """A model that is quantized already has no float network to go back to."""
    if job.quantize.asked:
        raise InputError(
            f"{job.quantize.asked} with {job.paths.onnx}, which is quantized already, expected "
            "the float model it was made from; give that one, or take the Q/DQ nodes out with "
            "python -m quantization strip"
        )
