"""The flags of ``build_engine.py``, and the frozen record they become.

Where NVIDIA's samples or trtexec have a flag for a thing, it has their name.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from artefacts.errors import InputError
from calibrators import Preprocess

__all__ = [
    "SUFFIXES",
    "Job",
    "Shapes",
    "local_path",
    "parse_job",
    "parse_pools",
    "parse_shapes",
    "parser",
    "settle_job",
]

Shapes = Mapping[str, tuple[int, ...]]

SUFFIXES = (
    ".prepared.onnx",
    ".stats.npz",
    ".ranges.json",
    ".improved.onnx",
    ".search.json",
    ".recipe.yaml",
    ".pareto.png",
    ".int8.onnx",
    ".portable.onnx",
    ".fp16.onnx",
)
IMPROVEMENT_SAMPLES = 48
PROMISES = ("max_drop", "min_sqnr", "min_agreement")
EPILOG = """examples:
  build_engine.py --onnx model.onnx --engine out/model.int8.engine --precision int8 \\
      --calib-data samples/ --preprocess preprocess.yaml --eval-data labelled/
  build_engine.py --onnx model.onnx --engine out/model.fp32.engine --precision fp32
  build_engine.py --onnx model.onnx --engine out/model.int8.engine --precision int8 \\
      --calib-data samples.npz --stop-after onnx      # the Q/DQ model, for a builder elsewhere
"""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one run of the command is asked for; field names are the flags'."""

    onnx: Path
    engine: Path
    precision: Literal["fp32", "fp16", "int8"]
    target: str
    calib_data: Path | Callable[[], Any] | None
    preprocess: Path | Preprocess | None
    calibrator: str
    calib_num: int | None
    calib_batch: int
    calib_cache: Path | None
    cache_version: str
    calib: Path | None
    random_calibration: int | None
    shard: tuple[int, int] | None
    workers: Literal["ray"] | None
    statistics: Path | None
    eval_data: Path | Callable[[], Any] | None
    task: Path | None
    exclude: tuple[str, ...]
    improve: int
    max_drop: float | None
    min_sqnr: float | None
    min_agreement: float | None
    search_time: float | None
    recipe: Path | None
    holds_out: bool  # no flag: calibration samples are held out to judge a promise by
    weights: Literal["int8", "float"]
    float_part: Literal["fp32", "fp16"] | None
    cpu_unsigned: bool
    cpu_isa: str
    simulate_target: str | None
    implicit: bool
    stop_after: str | None
    min_shapes: tuple[Shapes, ...]
    opt_shapes: tuple[Shapes, ...]
    max_shapes: tuple[Shapes, ...]
    workspace: int | None
    timing_cache: Path | None
    mem_pool_size: Mapping[str, float]
    optimization_level: int | None
    compute_capability: tuple[str, ...]
    dla_core: int | None
    allow_gpu_fallback: bool
    hardware_compatibility: str | None
    version_compatible: bool
    no_tf32: bool
    tactic_sources: tuple[str, ...]
    preview: tuple[str, ...]
    threads: int | None
    require_int8: float | None
    allow_runtime_gap: bool
    sign: Path | None
    verbose: bool
    debug: bool

    def __post_init__(self) -> None:
        """Refuse combinations that no step could make sense of."""
        taken = [self.engine, *map(self.beside, SUFFIXES)]
        if self.onnx.resolve() in [path.resolve() for path in taken]:
            raise InputError(
                f"--engine {self.engine} would overwrite the model {self.onnx} (artefacts lie "
                "beside the engine), expected another name or folder; change --engine"
            )
        if self.sign is not None and not self.sign.is_file():
            raise InputError(
                f"--sign names the key {self.sign}, which is no file, expected a PEM file with a "
                "private key; correct the path"
            )
        _refuse_uneven_profiles(self.min_shapes, self.opt_shapes, self.max_shapes)
        refuse_promises(self)
        if self.precision == "int8" or self.stop_after is None:
            return
        raise InputError(
            f"--stop-after is {self.stop_after} with --precision {self.precision}, expected int8: "
            "only INT8 has ranges and a Q/DQ model; drop the flag or choose int8"
        )

    @property
    def promise(self) -> str | None:
        """The flag of the promise on accuracy, if one was given."""
        given = {name: getattr(self, name) for name in PROMISES}
        return next((flag_of(name) for name, value in given.items() if value is not None), None)

    @property
    def steps(self) -> int:
        """How many are announced."""
        return 5 if self.precision == "int8" else 3

    @property
    def label_free(self) -> bool:
        """Whether a promise is judged without labels."""
        return self.promise is not None and self.max_drop is None

    @property
    def searched(self) -> bool:
        """Whether some samples may have chosen the model, so that others must be reported on."""
        return self.promise is not None or self.recipe is not None

    def beside(self, suffix: str) -> Path:
        """An artefact beside the engine, ``out/m.int8.engine`` → ``out/m.ranges.json``.

        The precision is not in the name: one calibration serves engines of every precision.
        """
        stem = self.engine.name
        for ending in (".engine", ".plan", ".int8", ".fp16", ".fp32"):
            stem = stem.removesuffix(ending)
        return self.engine.with_name(stem + suffix)


def flag_of(name: str) -> str:
    """``max_drop`` → ``--max-drop``."""
    return f"--{name.replace('_', '-')}"


def refuse_promises(job: Job) -> None:
    """Refuse a promise or a recipe that other flags leave no way to keep.

    Raises:
        InputError: which two flags do not go together, and what to do.
    """
    given = [flag_of(name) for name in PROMISES if getattr(job, name) is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)}, expected one promise; drop the others")
    asked = given or ([] if job.recipe is None else ["--recipe"])
    if not asked:
        if job.search_time is not None:
            raise InputError(
                "--search-time without a promise, expected --max-drop, --min-sqnr or "
                "--min-agreement beside it; give one or drop the flag"
            )
        return
    others = {
        f"--precision {job.precision}": job.precision != "int8",
        "--implicit or --calib, where TensorRT quantizes": job.implicit,
        "--random-calibration": job.random_calibration is not None,
        "--shard": job.shard is not None,
        "--stop-after ranges": job.stop_after == "ranges",
    }
    for other, clashes in others.items():
        if clashes:
            raise InputError(
                f"{asked[0]} with {other}, expected an INT8 model that is calibrated on real "
                "samples and written here; drop one of the two"
            )
    if job.max_drop is not None and job.eval_data is None:
        raise InputError(
            "--max-drop without --eval-data has no labels to measure a drop with, expected "
            "labelled samples; give them, or promise --min-sqnr or --min-agreement"
        )
    if job.holds_out and job.calib_data is None:
        raise InputError(
            f"{asked[0]} with --statistics alone has no samples to judge by, expected --calib-data "
            "or --eval-data; give one"
        )


def _refuse_uneven_profiles(*given: tuple[Shapes, ...]) -> None:
    counts = [len(shapes) for shapes in given]
    if len({count for count in counts if count}) > 1:
        raise InputError(
            f"--minShapes, --optShapes and --maxShapes are given {counts[0]}, {counts[1]} and "
            f"{counts[2]} times, expected equally often: once for each profile; add what is missing"
        )


def parse_shapes(text: str) -> Shapes:
    """Shapes as trtexec writes them, ``image:1x3x224x224,mask:1x1x224x224``.

    Names may hold colons.

    Raises:
        argparse.ArgumentTypeError: the text is not of that form.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for part in text.split(","):
        name, colon, dims = part.rpartition(":")
        sizes = dims.split("x")
        if not (colon and name and all(size.isdigit() for size in sizes)):
            raise argparse.ArgumentTypeError(f"{part!r} is not of the form name:1x3x224x224")
        shapes[name] = tuple(map(int, sizes))
    return shapes


def parse_shard(text: str) -> tuple[int, int]:
    """``2/8`` is the second of eight parts.

    Raises:
        argparse.ArgumentTypeError: the text is not of that form.
    """
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 2/8 (second of eight parts)")
    return int(part), int(parts)


def parse_pools(text: str) -> dict[str, float]:
    """Sizes as trtexec writes them, ``workspace:1024,dlaSRAM:0.5``, in MiB.

    Raises:
        argparse.ArgumentTypeError: the text is not of that form.
    """
    pools = {}
    for part in text.split(","):
        name, _, size = part.partition(":")
        if not (name and size):
            raise argparse.ArgumentTypeError(f"{part!r} is not of the form POOL:MiB")
        pools[name] = amount(size)
    return pools


def names(text: str) -> tuple[str, ...]:
    """Comma-separated names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def local_path(text: str) -> Path:
    """A file or folder on this machine.

    Raises:
        argparse.ArgumentTypeError: the text is an address; a path would lose one of its slashes.
    """
    scheme, found, _ = text.partition("://")
    if found and scheme.isalnum():
        raise argparse.ArgumentTypeError(
            f"{text} is an address, expected a file or folder on this machine; fetch it first"
        )
    return Path(text)


def count(text: str) -> int:
    """A whole number of at least one."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def amount(text: str) -> float:
    """A finite number of at least zero."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value


def seconds(text: str) -> float:
    """A finite number above zero."""
    value = amount(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def share(text: str) -> float:
    """A share, ``0.99`` or ``99%``; above 0, at most 1."""
    percent = text.endswith("%")
    value = amount(text.removesuffix("%")) / (100 if percent else 1)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 0.99 or 99%")
    return value


def parser() -> argparse.ArgumentParser:
    """The argument parser; groups in the order of the steps."""
    root = argparse.ArgumentParser(
        prog="build_engine.py",
        description="ONNX model and samples in; a measured INT8 engine out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.register("type", Path, local_path)
    add = root.add_argument_group("model and engine").add_argument
    add("--onnx", type=Path, required=True, help="the FP32 model (or one with Q/DQ nodes)")
    add("--engine", type=Path, required=True, help="the engine to write; artefacts lie beside it")
    add("--precision", choices=("fp32", "fp16", "int8"), default="int8")
    add("--target", choices=("auto", "cpu", "tensorrt", "tensorrt-rtx"), default="auto")
    add("--stop-after", choices=("ranges", "onnx"), help="end before quantizing, or building")

    add = root.add_argument_group("calibration").add_argument
    add("--calib-data", type=Path, help="image folder, .npz, .npy, or a file with load_data()")
    add(
        "--preprocess",
        type=Path,
        help="YAML spec or preset: torchvision, timm:NAME, yolox, … (docs/data.md); default: what "
        "the model itself says",
    )
    add("--calibrator", help="mse (default), entropy, minmax, percentile:99.99, auto")
    add("--calib-num", type=count, help="use only this many samples")
    add(
        "--calib-batch",
        type=count,
        default=8,
        help="samples counted together, and a batch of the engine (default 8)",
    )
    add("--calib-cache", type=Path, help="also write TensorRT's calibration cache")
    add("--shard", type=parse_shard, metavar="2/8", help="observe only this part of the samples")
    add("--workers", choices=("ray",), help="observe shards on Ray (extra ray)")
    add("--statistics", type=Path, help="take ranges from this *.stats.npz, observe nothing")
    add("--cache-version", default="10.3.0", help="TensorRT version the cache is for")
    add(
        "--random-calibration",
        type=count,
        metavar="N",
        help="calibrate with N random samples: speed can be measured, accuracy is lost",
    )

    add = root.add_argument_group("quantization").add_argument
    add("--exclude", action="append", default=[], help="node name, /regex/ or op type left float")
    add(
        "--improve",
        type=int,
        metavar="N",
        help="fit ranges, weight rounding and biases to N samples (default 48; 0, off, where "
        "--calibrator is given)",
    )
    add("--weights", choices=("int8", "float"), default="int8", help="float for old parsers")
    add(
        "--float-part",
        choices=("fp32", "fp16"),
        help="type of the layers that are not INT8 (default fp16 for TensorRT, fp32 for cpu)",
    )
    add("--calib", type=Path, help="build from this calibration cache (TensorRT up to 10.16)")
    add("--implicit", action="store_true", help="TensorRT quantizes: its calibrator, up to 10.16")
    add("--cpu-unsigned", action="store_true", help="uint8 where never negative (target cpu)")
    add(
        "--cpu-isa",
        choices=("auto", "vnni", "portable"),
        default="auto",
        help="INT8 arithmetic of target cpu: that of this machine (auto), exact only with VNNI, or "
        "right on every x86 CPU (portable: bounds pairs of weights)",
    )
    add(
        "--simulate-target",
        choices=("tensorrt",),
        help="target cpu runs the graph placed for TensorRT, to measure its accuracy",
    )

    add = root.add_argument_group("promise on accuracy (docs/accuracy.md)").add_argument
    add(
        "--max-drop",
        type=amount,
        metavar="POINTS",
        help="lose at most this much of the task's metric (0.5: 98.0 %% → 97.5 %%); leave layers "
        "in float until it is kept, or end with 1",
    )
    add("--min-sqnr", type=amount, metavar="DB", help="the same by signal to noise against FP32")
    add("--min-agreement", type=share, metavar="99%", help="the same by equal top-1 with FP32")
    add("--search-time", type=seconds, metavar="SECONDS", help="end the search by then")
    add("--recipe", type=Path, metavar="YAML", help="make what a search found, without searching")

    add = root.add_argument_group("build").add_argument
    for name in ("min", "opt", "max"):
        add(
            f"--{name}Shapes",
            action="append",
            type=parse_shapes,
            default=[],
            metavar="NAME:1x3x224x224[,...]",
            help="a profile; given again, the next one" if name == "min" else None,
        )
    add("--workspace", type=count, metavar="MiB", help="scratch memory of TensorRT's builder")
    add("--timingCacheFile", dest="timing_cache", type=Path, help="read if there, written back")
    add("--memPoolSize", dest="mem_pool_size", type=parse_pools, default={}, metavar="POOL:MiB,...")
    add("--builderOptimizationLevel", dest="optimization_level", type=int, metavar="0-5")
    add("--compute-capability", type=names, default=(), metavar="8.6,8.9", help="TensorRT-RTX")
    add("--useDLACore", dest="dla_core", type=int, metavar="N")
    add("--allowGPUFallback", dest="allow_gpu_fallback", action="store_true")
    add(
        "--hardwareCompatibilityLevel",
        dest="hardware_compatibility",
        choices=("ampere+", "same-compute-capability"),
    )
    add("--versionCompatible", dest="version_compatible", action="store_true")
    add("--noTF32", dest="no_tf32", action="store_true", help="TF32 is on, as in trtexec")
    add("--tacticSources", dest="tactic_sources", type=names, default=(), metavar="+CUBLAS,-CUDNN")
    add("--preview", type=names, default=(), metavar="+FEATURE,...")
    add("--require-int8", type=float, metavar="SHARE", help="fail below this share of MACs in INT8")
    add("--sign", type=Path, metavar="KEY.pem", help="sign engine and manifest (extra signing)")
    add("--threads", type=count, help="CPU threads of the engine (target cpu)")

    add = root.add_argument_group("verification").add_argument
    add("--eval-data", type=Path, help="labelled samples: image folder, .npz")
    add("--task", type=Path, help="task spec, YAML (docs/benchmarking.md); default classification")
    add(
        "--allow-runtime-gap",
        action="store_true",
        help="go on where the engine differs from its own graph by more than rounding explains",
    )
    add("--verbose", action="store_true", help="also say what the libraries say")
    add("--debug", action="store_true", help="show the stack trace of an error")
    return root


def parse_job(argv: Sequence[str] | None) -> Job:
    """Flags to a checked record.

    Raises:
        InputError: flags that do not fit together.
    """
    return settle_job(vars(parser().parse_args(argv)))


def settle_job(given: dict[str, Any]) -> Job:
    """The job of parsed flags; what they leave open is decided here.

    Raises:
        InputError: flags that do not fit together.
    """
    for name in ("min", "opt", "max"):
        given[f"{name}_shapes"] = tuple(given.pop(f"{name}Shapes"))
    if given["recipe"] is not None:
        for name in ("calibrator", "improve", "exclude", "search_time"):
            if given[name]:
                raise InputError(
                    f"--recipe with {flag_of(name)}, expected the recipe alone to say that; drop "
                    "one of the two"
                )
    if given["improve"] is None:
        given["improve"] = 0 if given["calibrator"] else IMPROVEMENT_SAMPLES
    given["calibrator"] = given["calibrator"] or "mse"
    implicit = given["implicit"] or given["calib"] is not None
    promised = any(given[name] is not None for name in PROMISES)
    given["holds_out"] = promised and given["eval_data"] is None
    return Job(**{**given, "implicit": implicit, "exclude": tuple(given["exclude"])})
