"""What one run is asked for: a frozen configuration for each stage, and the job that holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import engines
from artefacts.errors import InputError
from calibrators import Preprocess
from engines.openvino.cpu_isa import CPU_ISAS
from engines.options import Precision
from pipeline.paths import Paths
from pipeline.promise import Promise
from quantization.improve.methods import EFFORTS
from quantization.placement import ATTENTIONS, Attention

__all__ = ["Build", "Calibrate", "Data", "Job", "Paths", "Quantize", "Show", "Verify"]

Source = Path | Callable[[], Any]


def _check_least(name: str, found: int | None, least: int) -> None:
    if found is not None and found < least:
        raise InputError(f"{name} is {found}, expected at least {least}; correct it")


def _check_member(name: str, found: object, known: tuple[object, ...]) -> None:
    if found not in known:
        raise InputError(
            f"{name} is {found!r}, expected one of {', '.join(map(str, known))}; choose one"
        )


@dataclass(frozen=True, kw_only=True)
class Data:
    """The samples: which are learned from, and which are held back to judge by.

    Attributes:
        calib_data: to learn from.
        preprocess: how they become inputs.
        calib_num: at most so many.
        batch: samples that are run together.
        random_calibration: so many random ones instead.
        shard: only this part of so many.
        eval_data: to judge by.
        task: what their labels mean; None for classification.
        labelled: whether judging needs labels.
        holds_out: whether a part of ``calib_data`` is held back to judge by.
        batch_axis: input name → axis whose rows are samples; empty: found by running the model.
        whole_samples: each dict or file is one sample, whatever its rows are.
        searched: whether some of them may have chosen the model: others must be reported on.
    """

    calib_data: Source | None = None
    preprocess: Path | Preprocess | None = None
    calib_num: int | None = None
    batch: int = 8
    random_calibration: int | None = None
    shard: tuple[int, int] | None = None
    eval_data: Source | None = None
    task: Path | None = None
    labelled: bool = True
    holds_out: bool = False
    searched: bool = False
    batch_axis: Mapping[str, int] = field(default_factory=dict)
    whole_samples: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers of samples that are none."""
        for name in ("calib_num", "batch", "random_calibration"):
            _check_least(name, getattr(self, name), 1)
        if self.batch_axis and self.whole_samples:
            raise InputError(
                "--batch-axis with --whole-samples, expected one of them: samples lie along an "
                "axis, or each is a whole feed; drop one of the two"
            )
        part, parts = self.shard or (1, 1)
        if not 1 <= part <= parts:
            raise InputError(
                f"shard is {part} of {parts}, expected a part of 1 to {parts}; correct it"
            )

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn from."""
        return self.calib_data is not None or self.random_calibration is not None


@dataclass(frozen=True, kw_only=True)
class Calibrate:
    """From samples to ranges.

    Attributes:
        method: of the ranges.
        statistics: take these, observe nothing.
        cache: write TensorRT's calibration cache here, too.
        cache_version: TensorRT version that it is for.
        workers: who observes.
    """

    method: str = "mse"
    statistics: Path | None = None
    cache: Path | None = None
    cache_version: str = "10.3.0"
    workers: Literal["ray"] | None = None

    def __post_init__(self) -> None:
        """Refuse workers that are not known."""
        _check_member("workers", self.workers, (None, "ray"))


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """From ranges to the INT8 model.

    Attributes:
        exclude: patterns of what stays in float.
        improvement_samples: that the network is fitted to; 0 for none, None by effort and size.
        effort: how much is tried with them, a word of ``EFFORTS``.
        not_improved: why there are none where no flag says 0, to be printed.
        attention: whether its products are INT8, see ``place``.
        weights: how they are stored, see ``insert_qdq``.
        unsigned: uint8 codes for activations that cannot be negative.
        isa: INT8 arithmetic of the cpu target.
        simulate_target: whose placement the cpu target runs.
        promise: on accuracy.
        search_time_s: of the search for it.
        recipe: what a search found, to be made again.
    """

    exclude: tuple[str, ...] = ()
    improvement_samples: int | None = 0
    effort: str = "default"
    not_improved: str = ""
    attention: Attention = "auto"
    weights: Literal["int8", "float"] = "int8"
    unsigned: bool = False
    isa: str = "auto"
    simulate_target: str | None = None
    promise: Promise | None = None
    search_time_s: float | None = None
    recipe: Path | None = None

    def __post_init__(self) -> None:
        """Refuse to search without knowing for what, and what no step knows."""
        _check_least("improvement_samples", self.improvement_samples or 0, 0)
        _check_member("attention", self.attention, ATTENTIONS)
        _check_member("effort", self.effort, tuple(EFFORTS))
        _check_member("weights", self.weights, ("int8", "float"))
        _check_member("isa", self.isa, CPU_ISAS)
        if self.search_time_s is not None and self.promise is None:
            raise InputError(
                "--search-time without a promise, expected --max-drop, --min-sqnr or "
                "--min-agreement beside it; give one or drop the flag"
            )

    def samples_for(self, macs: int) -> int:
        """How many samples a network of ``macs`` a sample is fitted to, if there are so many."""
        asked = self.improvement_samples
        return EFFORTS[self.effort].samples_for(macs) if asked is None else asked

    @property
    def asked(self) -> str:
        """The flag by which samples choose the model, ``--max-drop`` or ``--recipe``, if any."""
        if self.promise is not None:
            return self.promise.flag
        return "" if self.recipe is None else "--recipe"


@dataclass(frozen=True, kw_only=True)
class Build:
    """From a model to the engine.

    Attributes:
        options: of the builder, as far as the flags say them.
        implicit: TensorRT quantizes, by a calibrator or a cache.
        float_part: type of what is not INT8; None for the target's usual one.
    """

    options: engines.BuildOptions
    implicit: bool = False
    float_part: Literal["fp32", "fp16"] | None = None

    @property
    def precision(self) -> Precision:
        """The one that is asked for."""
        assert self.options.precision is not None
        return self.options.precision


@dataclass(frozen=True, kw_only=True)
class Verify:
    """What is done with a built engine.

    Attributes:
        allow_runtime_gap: go on where it differs from its graph by more than rounding.
        sign: private key to sign it with.
        save_outputs: write what its graph computes here, for Polygraphy.
    """

    allow_runtime_gap: bool = False
    sign: Path | None = None
    save_outputs: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a key that is not there, and outputs that Polygraphy would take for a folder."""
        if self.save_outputs is not None and self.save_outputs.suffix != ".json":
            raise InputError(
                f"--save-outputs is {self.save_outputs}, expected a name that ends in .json, by "
                "which Polygraphy knows a file; correct it"
            )
        if self.sign is not None and not self.sign.is_file():
            raise InputError(
                f"--sign names the key {self.sign}, which is no file, expected a PEM file with a "
                "private key; correct the path"
            )


@dataclass(frozen=True, kw_only=True)
class Show:
    """What a person, or a program, is told.

    Attributes:
        verbose: also what the libraries say.
        quiet: errors only.
        json: one object on standard output, nothing else there.
        dry_run: check, tell the plan, and end.
    """

    verbose: bool = False
    quiet: bool = False
    json: bool = False
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: the stages, and where it ends."""

    paths: Paths
    data: Data
    calibrate: Calibrate
    quantize: Quantize
    build: Build
    verify: Verify
    stop_after: Literal["ranges", "onnx"] | None = None
    show: Show = Show()

    def __post_init__(self) -> None:
        """Refuse stages that do not go together."""
        self._refuse_promises()
        if self.verify.save_outputs is not None and (self.stop_after or self.data.shard):
            raise InputError(
                "--save-outputs with --stop-after or --shard, expected a job that builds and "
                "verifies an engine; drop one of the two"
            )
        if self.build.precision != "int8" and self.stop_after is not None:
            raise InputError(
                f"--stop-after is {self.stop_after} with --precision {self.build.precision}, "
                "expected int8: only INT8 has ranges and a Q/DQ model; drop the flag or choose int8"
            )

    @property
    def steps(self) -> int:
        """How many are announced."""
        return 5 if self.build.precision == "int8" else 3

    def _refuse_promises(self) -> None:
        """Refuse a promise or a recipe that other stages leave no way to keep."""
        asked, data = self.quantize.asked, self.data
        if not asked:
            return
        others = {
            f"--precision {self.build.precision}": self.build.precision != "int8",
            "--implicit or --calib, where TensorRT quantizes": self.build.implicit,
            "--random-calibration": data.random_calibration is not None,
            "--shard": data.shard is not None,
            "--stop-after ranges": self.stop_after == "ranges",
        }
        for other, clashes in others.items():
            if clashes:
                raise InputError(
                    f"{asked} with {other}, expected an INT8 model that is calibrated on real "
                    "samples and written here; drop one of the two"
                )
        promise = self.quantize.promise
        if promise is not None and promise.kind == "drop" and data.eval_data is None:
            raise InputError(
                "--max-drop without --eval-data has no labels to measure a drop with, expected "
                "labelled samples; give them, or promise --min-sqnr or --min-agreement"
            )
        if data.holds_out and data.calib_data is None:
            raise InputError(
                f"{asked} with --statistics alone has no samples to judge by, expected "
                "--calib-data or --eval-data; give one"
            )
