"""The flags of ``build_engine.py``, and the job that they become.

Where NVIDIA's samples or trtexec have a flag for a thing, it has their name.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from artefacts.arguments import ArgumentParser
from engines import RUNTIMES
from pipeline.flag_values import (
    amount,
    count,
    effort,
    least_share,
    local_path,
    names,
    parse_axes,
    parse_pools,
    parse_shapes,
    parse_shard,
    seconds,
    share,
)
from pipeline.job import Job
from pipeline.settle import settle_job
from pipeline.trtexec import from_trtexec
from quantization.improve.methods import EFFORTS, Effort
from quantization.placement import ATTENTIONS

__all__ = ["parse_job", "parser"]

EPILOG = """examples:
  build_engine.py --onnx model.onnx --engine out/model.int8.engine --precision int8 \\
      --calib-data samples/ --preprocess preprocess.yaml --eval-data labelled/
  build_engine.py --onnx model.onnx --engine out/model.fp32.engine --precision fp32
  build_engine.py --onnx model.onnx --engine out/model.int8.engine --precision int8 \\
      --calib-data samples.npz --stop-after onnx      # the Q/DQ model, for a builder elsewhere
"""


def parser(prog: str = "build_engine.py") -> argparse.ArgumentParser:
    """The argument parser; groups in the order of the steps."""
    root = ArgumentParser(
        prog=prog,
        description="ONNX model and samples in; a measured INT8 engine out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.register("type", Path, local_path)
    _add_model(root)
    _add_calibration(root)
    _add_quantization(root)
    _add_promise(root)
    _add_build(root)
    _add_verification(root)
    _add_output(root)
    return root


def _add_model(root: argparse.ArgumentParser) -> None:
    """The model, the engine, where to end."""
    add = root.add_argument_group("model and engine").add_argument
    add("--onnx", type=Path, required=True, help="the FP32 model (or one with Q/DQ nodes)")
    add("--engine", type=Path, required=True, help="the engine to write; artefacts lie beside it")
    add("--force", action="store_true", help="replace the engine of another model, if one is there")
    add("--precision", choices=("fp32", "fp16", "int8"), default="int8")
    add("--target", choices=("auto", *RUNTIMES), default="auto")
    add(
        "--stop-after",
        choices=("ranges", "onnx"),
        help="stop after writing the ranges, or the Q/DQ ONNX",
    )


def _add_calibration(root: argparse.ArgumentParser) -> None:
    """Samples and ranges."""
    add = root.add_argument_group("calibration").add_argument
    add(
        "--calib-data",
        type=Path,
        help="image folder, .npz, .npy, a file with load_data(), or Polygraphy's saved inputs",
    )
    add(
        "--preprocess",
        type=Path,
        help="YAML spec or preset: torchvision, timm:NAME, yolox, … (docs/data.md); default: what "
        "the model itself says",
    )
    add(
        "--batch-axis",
        type=parse_axes,
        default={},
        metavar="INPUT=AXIS,...",
        help="each row along these axes is a sample (default: found by running the model)",
    )
    add(
        "--whole-samples",
        action="store_true",
        help="each dict, file or further axis of an array is one sample, whatever its rows are",
    )
    add(
        "--calibrator",
        help="mse (default), entropy, minmax, percentile:99.99, auto; naming one switches the "
        "improvement off, unless --improve N is given, too",
    )
    add("--calib-num", type=count, help="use only this many samples")
    add(
        "--calib-batch",
        type=count,
        default=8,
        help="batch for statistics and for the engine's default profile (default 8)",
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


def _efforts() -> str:
    return ", ".join(f"{word} {_amount(each)}" for word, each in EFFORTS.items())


def _amount(each: Effort) -> str:
    """``48 (small networks up to 160)``."""
    more = f" (small networks up to {each.most_samples})"
    return f"{each.samples}{more if each.most_samples > each.samples else ''}"


def _add_quantization(root: argparse.ArgumentParser) -> None:
    """What becomes INT8, and how."""
    add = root.add_argument_group("quantization").add_argument
    add("--exclude", action="append", default=[], help="node name, /regex/ or op type left float")
    add(
        "--improve",
        type=effort,
        metavar="|".join([*EFFORTS, "N"]),
        help=f"fit ranges, weight rounding and biases to samples: {_efforts()} "
        "and a second walk, or N; 0 switches it off, and is the default where --calibrator names a "
        "method",
    )
    add(
        "--attention",
        choices=ATTENTIONS,
        default="auto",
        help="both products of an attention: INT8 where TensorRT makes one kernel of it (auto; on "
        "target cpu everywhere), INT8 everywhere, or float everywhere",
    )
    add(
        "--weights",
        choices=("int8", "float"),
        default="int8",
        help="float: keep weights as float32 behind Q/DQ (TensorRT up to 8.5)",
    )
    add(
        "--float-part",
        choices=("fp32", "fp16"),
        help="type of the layers that are not INT8 (default fp16 for TensorRT, fp32 for cpu)",
    )
    add("--calib", type=Path, help="build from this calibration cache (TensorRT up to 10.16)")
    add("--implicit", action="store_true", help="TensorRT quantizes: its calibrator, up to 10.16")
    add(
        "--cpu-unsigned",
        action="store_true",
        help="uint8 codes for activations that cannot be negative (target cpu)",
    )
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


def _add_promise(root: argparse.ArgumentParser) -> None:
    """What must be kept of the accuracy."""
    add = root.add_argument_group("promise on accuracy (docs/accuracy.md)").add_argument
    add(
        "--max-drop",
        type=amount,
        metavar="POINTS",
        help="lose at most this much of the task's metric (0.5: 98.0 %% → 97.5 %%); leave layers "
        "in float until it is kept, or end with 1",
    )
    add(
        "--min-sqnr",
        type=amount,
        metavar="DB",
        help="keep the outputs' SQNR against FP32 at or above this, in dB",
    )
    add(
        "--min-agreement",
        type=share,
        metavar="99%",
        help="keep the share of samples with the same top-1 as FP32 at or above this",
    )
    add("--search-time", type=seconds, metavar="SECONDS", help="stop the search after this long")
    add("--recipe", type=Path, metavar="YAML", help="rebuild from a saved search result")


def _add_build(root: argparse.ArgumentParser) -> None:
    """The builder's options."""
    add = root.add_argument_group("build").add_argument
    for name in ("min", "opt", "max"):
        add(
            f"--{name}Shapes",
            action="append",
            type=parse_shapes,
            default=[],
            metavar="NAME:1x3x224x224[,...]",
            help="minimum shapes; repeat all three flags for another profile"
            if name == "min"
            else None,
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
    add(
        "--require-int8",
        type=least_share,
        metavar="SHARE",
        help="fail below this share of MACs in INT8",
    )
    add("--sign", type=Path, metavar="KEY.pem", help="sign engine and manifest (extra signing)")
    add("--threads", type=count, help="CPU threads of the engine (target cpu)")


def _add_verification(root: argparse.ArgumentParser) -> None:
    """What the engine is held against."""
    add = root.add_argument_group("verification").add_argument
    add("--eval-data", type=Path, help="labelled samples: image folder, .npz")
    add("--task", type=Path, help="task spec, YAML (docs/benchmarking.md); default classification")
    add(
        "--allow-runtime-gap",
        action="store_true",
        help="go on where the engine differs from its own graph by more than rounding explains",
    )
    add(
        "--save-outputs",
        type=Path,
        metavar="PATH.json",
        help="write what the engine's graph computes, to compare with on another machine by "
        "polygraphy run --load-outputs (extra tensorrt)",
    )


def _add_output(root: argparse.ArgumentParser) -> None:
    """What a person, or a program, is told."""
    add = root.add_argument_group("output").add_argument
    add("--dry-run", action="store_true", help="check everything, tell the plan, write nothing")
    add("--quiet", action="store_true", help="print nothing but errors")
    add("--json", action="store_true", help="one object on standard output: files, accuracy, …")
    add("--verbose", action="store_true", help="also print the libraries' log")
    add("--debug", action="store_true", help="show the stack trace of an error")


def parse_job(argv: Sequence[str], prog: str = "build_engine.py") -> Job:
    """Flags to a checked job; trtexec's, where they mean one thing here, become ours.

    Raises:
        InputError: flags that do not fit together.
    """
    return settle_job(vars(parser(prog).parse_args(from_trtexec(argv))))
