"""What a build takes in files, memory and time, estimated before it starts."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx

import calibrators
from artefacts.errors import BuilderError, InputError
from graphs.macs import network_macs
from graphs.tensor_data import weight_bytes
from graphs.view import GraphView
from pipeline.job import Job
from pipeline.samples import calibration_samples
from quantization.improve.methods import EFFORTS
from quantization.measure.execution import load_onnxruntime

__all__ = ["Needs", "check_space", "needs_of"]

# Files beside the engine, in sizes of the float model: prepared 1, improved 1, INT8 0.3, half 0.5,
# engine 1.2 (OpenVINO's blob of a float model is 1.1). Statistics are small beside a large model.
_FILES = {"int8": 4.0, "fp16": 2.7, "fp32": 2.2}
# A model of 0.6 GB took 1.6 GB as calibrated, 0.25 GB of them the libraries; one of 1.2 GB 2.8 GB
# improved: its codes and the network of equalised channels are held beside it. What a layer is
# fitted to is in the rest.
_MODELS_CALIBRATED, _MODELS_IMPROVED = 2.5, 2.6
_BASE_BYTES, _ACTIVATION_BYTES = 450 << 20, 2 << 30
# Of all activations of a batch, in the two networks that the engine is held against: a ResNet-50
# took 1.2 GB, MobileNetV2 0.7 GB.
_ALIVE = 0.65
# Plain passes of the float model that each sample costs: 1.45 and, for each walk over the network,
# 19 (a ResNet-50) to 62 (MobileNetV2) on two cores.
_CALIBRATION_PASSES, _WALK_PASSES = 1.45, 30
_SHORT_S = 30.0
_LARGEST_TIMED_BYTES = 1 << 30  # reading a larger model once more takes too long


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Estimates.

    Attributes:
        disk_bytes: of all files of the build together.
        memory_bytes: at the most.
        seconds: of calibration and improvement on this machine; None where a pass of the float
            model could not be timed, or the samples cannot be counted.
    """

    disk_bytes: int
    memory_bytes: int
    seconds: float | None = None

    def __str__(self) -> str:
        """``files 0.4 GB, memory up to 2.5 GB, calibration and improvement about 3 minutes``."""
        said = f"files {_gigabytes(self.disk_bytes)}, memory up to {_gigabytes(self.memory_bytes)}"
        if self.seconds is None:
            return said
        return f"{said}, calibration and improvement about {_duration(self.seconds)} here"

    def long(self) -> list[str]:
        """A line for those who would wait; none where calibration and improvement are short."""
        if self.seconds is None or self.seconds < _SHORT_S:
            return []
        said = f"memory up to {_gigabytes(self.memory_bytes)}"
        return [f"calibration and improvement take about {_duration(self.seconds)} here, {said}"]


def check_space(job: Job, model: onnx.ModelProto) -> None:
    """Refuse a build whose files have no room.

    Raises:
        InputError: the disk has less free than they take.
    """
    folder = next(path for path in job.paths.engine.absolute().parents if path.exists())
    free, wanted = shutil.disk_usage(folder).free, _disk_bytes(job, model)
    if free < wanted:
        raise InputError(
            f"disk of {folder} has {_gigabytes(free)} free, expected about {_gigabytes(wanted)} "
            f"for {job.paths.engine.name} and the files beside it; free some, or give --engine "
            "another folder"
        )


def needs_of(job: Job, model: onnx.ModelProto, *, fits: bool) -> Needs:
    """Estimate what a job takes.

    Args:
        job: what is asked for.
        model: as it was read.
        fits: whether it will be calibrated and improved; a pass of it is timed then.
    """
    tried = job.quantize
    view = GraphView(model)
    macs = network_macs(view) if fits else 0
    fitted = tried.samples_for(macs) if fits else 0
    weights = weight_bytes(model)
    held = _held_bytes(view, fitted, _batch(job, model)) if fits else 0
    models = _MODELS_CALIBRATED if tried.improvement_samples == 0 else _MODELS_IMPROVED
    memory = _BASE_BYTES + models * weights + held
    return Needs(
        disk_bytes=_disk_bytes(job, model),
        memory_bytes=int(memory),
        seconds=_seconds(job, model, macs, fitted) if fits else None,
    )


def _disk_bytes(job: Job, model: onnx.ModelProto) -> int:
    return int(_FILES[job.build.precision] * weight_bytes(model)) + (1 << 20)


def _held_bytes(view: GraphView, fitted: int, batch: int) -> int:
    """Of the samples that are fitted to, and of what is alive while a batch is verified."""
    made = [name for node in view.nodes for name in node.outputs if name]
    alive = int(_ALIVE * batch * _sample_bytes(view, made))
    return fitted * _sample_bytes(view, view.inputs) + min(alive, _ACTIVATION_BYTES)


def _sample_bytes(view: GraphView, tensors: Iterable[str]) -> int:
    """Of one sample, in float32; tensors of unknown rank count as one value."""
    return sum(4 * math.prod(view.nominal_shape(name)) for name in tensors)


def _batch(job: Job, model: onnx.ModelProto) -> int:
    """Samples of a batch that its sizes do not say already."""
    return 1 if calibrators.fixed_batch(calibrators.input_specs(model)) else job.data.batch


def _seconds(job: Job, model: onnx.ModelProto, macs: int, fitted: int) -> float | None:
    if weight_bytes(model) > _LARGEST_TIMED_BYTES:
        return None
    try:
        samples = calibration_samples(job.data, model)
        count = len(samples)
        if not count:
            return None
        inputs = calibrators.input_specs(model)
        feed = next(iter(calibrators.batches(samples[:1], 1, inputs=inputs))).inputs
        run = load_onnxruntime(Path(job.paths.onnx))
        run(feed)
        begun = time.perf_counter()
        run(feed)
        once = (time.perf_counter() - begun) / (calibrators.fixed_batch(inputs) or 1)
    except (BuilderError, TypeError):  # shapes that are not known yet; a loader without a length
        return None
    tried = EFFORTS[job.quantize.effort].variants(macs)
    passes = _CALIBRATION_PASSES * count + _WALK_PASSES * (len(tried) - 1) * min(fitted, count)
    return once * passes


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{max(size / 1e6, 1):.0f} MB"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{max(seconds, 1):.0f} s"
