"""What ``int8`` can do: each subcommand, and whose ``main`` does it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SUBCOMMANDS", "Subcommand"]


@dataclass(frozen=True, kw_only=True)
class Subcommand:
    """One subcommand.

    Attributes:
        group: its title in the help.
        module: has ``main(argv, prog)``.
        summary: one line for the help.
        example: what a person would type.
        given: words that ``main`` is given in front of the user's.
        prog: how usage lines call the program; its own subcommands come after it.
        finds: words for one file of a build in front: fields of ``Family`` in braces.
        behind: a word of the user's that the file stands behind; empty where it comes first.
        takes: ending of files that are taken as they are.
        flags: module that has ``parser(prog)``; None for ``module``, empty where nothing has one.
    """

    group: str
    module: str
    summary: str
    example: str
    given: tuple[str, ...] = ()
    prog: str = "int8"
    finds: tuple[str, ...] = ()
    behind: str = ""
    takes: str = "/"
    flags: str | None = None


SUBCOMMANDS = {
    "build": Subcommand(
        group="build and measure",
        module="build_engine",
        flags="pipeline.flags",
        summary="a measured INT8 engine from an ONNX model and samples",
        example="int8 build --onnx m.onnx --engine out/m.int8.engine --calib-data samples/",
        prog="int8 build",
    ),
    "recalibrate": Subcommand(
        group="build and measure",
        module="pipeline.recalibration.command",
        summary="a new engine with the ranges of new data, compared with the old one",
        example="int8 recalibrate out/m.int8.engine --calib-data samples/",
        prog="int8 recalibrate",
    ),
    "bench": Subcommand(
        group="build and measure",
        module="benchmarks.__main__",
        flags="benchmarks.arguments",
        summary="which engine is faster, which is right",
        example="int8 bench out/m.fp32.engine out/m.int8.engine --data labelled/",
        prog="int8 bench",
    ),
    "doctor": Subcommand(
        group="build and measure",
        module="int8.doctor",
        summary="what this machine is, which targets work here, what is missing",
        example="int8 doctor",
        prog="int8 doctor",
    ),
    "completion": Subcommand(
        group="build and measure",
        module="int8.completion",
        summary="a script for the shell, so that Tab completes all of this",
        example="int8 completion bash > ~/.local/share/bash-completion/completions/int8",
        prog="int8 completion",
    ),
    "lint": Subcommand(
        group="look at a model",
        module="quantization.__main__",
        summary="what TensorRT will refuse or run slowly",
        example="int8 lint m.onnx",
        given=("lint",),
        finds=("{int8}",),
        takes=".onnx",
    ),
    "simulate": Subcommand(
        group="look at a model",
        module="quantization.__main__",
        summary="where the error of an INT8 model is, tensor by tensor",
        example="int8 simulate out/m.int8.engine --data samples/",
        given=("simulate",),
        finds=("{float_model}", "{int8}"),
    ),
    "sensitivity": Subcommand(
        group="look at a model",
        module="quantization.__main__",
        summary="what INT8 costs in each layer",
        example="int8 sensitivity out/m.int8.engine --data samples/",
        given=("sensitivity",),
        finds=("{float_model}", "--ranges", "{ranges}", "--profile", "{profile}"),
    ),
    "prepare": Subcommand(
        group="stage by stage",
        module="quantization.__main__",
        summary="the graph that calibration works on",
        example="int8 prepare m.onnx -o m.prepared.onnx",
        given=("prepare",),
    ),
    "calibrate": Subcommand(
        group="stage by stage",
        module="calibrators.__main__",
        summary="statistics, ranges and caches (observe, ranges, cache, show)",
        example="int8 calibrate ranges m.stats.npz --method mse -o m.ranges.json",
        prog="int8 calibrate",
        finds=("{ranges}",),
        behind="cache",
        takes=".ranges.json",
    ),
    "merge": Subcommand(
        group="stage by stage",
        module="calibrators.__main__",
        summary="join the statistics of several parts",
        example="int8 merge m.shard*.stats.npz -o m.stats.npz",
        given=("merge",),
    ),
    "insert": Subcommand(
        group="stage by stage",
        module="quantization.__main__",
        summary="ranges into a prepared model, as Q/DQ pairs",
        example="int8 insert m.prepared.onnx m.ranges.json -o m.int8.onnx",
        given=("insert",),
    ),
    "fp16": Subcommand(
        group="stage by stage",
        module="quantization.__main__",
        summary="the floating-point part in float16, where that is safe",
        example="int8 fp16 m.int8.onnx -o m.fp16.onnx",
        given=("fp16",),
    ),
    "import": Subcommand(
        group="stage by stage",
        module="quantization.__main__",
        summary="take a quantized model of another tool",
        example="int8 import theirs.onnx -o m.int8.onnx",
        given=("import",),
    ),
    "strip": Subcommand(
        group="stage by stage",
        module="quantization.__main__",
        summary="a Q/DQ model as plain ONNX with its ranges",
        example="int8 strip qdq.onnx -o m.onnx",
        given=("strip",),
    ),
    "inspect": Subcommand(
        group="an engine",
        module="engines.__main__",
        summary="what its manifest says",
        example="int8 inspect out/m.int8.engine",
        given=("inspect",),
    ),
    "verify": Subcommand(
        group="an engine",
        module="engines.__main__",
        summary="whether it is intact and fits this machine",
        example="int8 verify out/m.int8.engine",
        given=("verify",),
    ),
    "sign": Subcommand(
        group="an engine",
        module="engines.__main__",
        summary="sign engine and manifest",
        example="int8 sign out/m.int8.engine --key key.pem",
        given=("sign",),
    ),
    "export-triton": Subcommand(
        group="an engine",
        module="engines.__main__",
        summary="add it to a model repository of Triton",
        example="int8 export-triton out/m.int8.engine models/",
        given=("export-triton",),
    ),
    "serve": Subcommand(
        group="an engine",
        module="int8.serve",
        flags="",
        summary="an image classifier over HTTP (from a checkout, extra serve)",
        example="int8 serve --engine out/m.int8.engine",
        prog="int8 serve",
    ),
}
