"""Flags of trtexec, and other exporters: ours where they mean one thing, else an answer."""

from __future__ import annotations

from collections.abc import Sequence

from artefacts.errors import InputError

__all__ = ["from_trtexec"]

# One meaning: what they become. ``{}`` is the value.
SAME = {
    "--saveEngine": ("--engine", "{}"),
    "--int8": ("--precision", "int8"),
    "--best": ("--precision", "int8"),
    "--fp16": ("--precision", "fp16"),
    "--shapes": ("--optShapes", "{}"),
    "--skipInference": (),
    "--buildOnly": (),
}
MEASURES = "this command builds; measure with int8 bench ENGINE --data samples/"
LISTS = "the manifest lists every layer: int8 inspect ENGINE"
PRECISIONS = "expected --precision fp32, fp16 or int8"
NAMES = "leave layers in float with --exclude NAME, the rest is INT8"
BATCH = "bound the shapes with --minShapes, --optShapes and --maxShapes, and calibrate with "
BATCH += "--calib-batch"
# Another meaning, or none: what to do instead.
ANSWERS = {
    "--loadEngine": "load one with int8 bench ENGINE --data samples/, or int8 inspect ENGINE",
    **dict.fromkeys(
        (
            "--iterations",
            "--duration",
            "--warmUp",
            "--avgRuns",
            "--streams",
            "--infStreams",
            "--useCudaGraph",
            "--useSpinWait",
            "--noDataTransfers",
            "--percentile",
            "--exportTimes",
            "--exportOutput",
            "--separateProfileRun",
        ),
        MEASURES,
    ),
    **dict.fromkeys(
        ("--dumpLayerInfo", "--exportLayerInfo", "--dumpProfile", "--exportProfile"), LISTS
    ),
    **dict.fromkeys(("--bf16", "--fp8", "--int4"), PRECISIONS),
    **dict.fromkeys(("--layerPrecisions", "--layerOutputTypes", "--precisionConstraints"), NAMES),
    **dict.fromkeys(("--batch", "--maxBatch", "batch"), BATCH),
    "--loadInputs": "give samples with --calib-data and --eval-data",
    "--stronglyTyped": "a Q/DQ model is built with the types that it has; drop it",
    "--sparsity": "TensorRT decides by itself; drop it",
    "--device": "choose the GPU with CUDA_VISIBLE_DEVICES",
    "--explicitBatch": "ONNX models have no other; drop it",
    "data": "give the train folder with --calib-data and the val folder with --eval-data",
    "imgsz": "the preprocessing spec has it: --preprocess FILE.yaml with letterbox or resize",
    "format": "--target cpu, tensorrt or tensorrt-rtx; the ONNX comes from your exporter",
    "model": "export it to ONNX and give --onnx model.onnx",
    "half": "give --precision fp16",
    "int8": "give --precision int8",
    "dynamic": "export it so; " + BATCH,
    "workspace": "give --workspace MiB",
    "device": "give --target cpu, tensorrt or tensorrt-rtx",
}


def from_trtexec(argv: Sequence[str]) -> list[str]:
    """The same command in our flags.

    ``--fp16`` beside ``--int8`` is what INT8 engines have in their other layers.

    Raises:
        InputError: a flag means something else here, or nothing; the message says what to give.
    """
    names = {word.partition("=")[0] for word in argv}
    quantizes = names & {"--int8", "--best"}
    ours: list[str] = []
    words, before = iter(argv), ""
    for word in words:
        is_value = before.startswith("--") and "=" not in before  # of an input called data, say
        before = word
        name, equals, value = word.partition("=")
        if name == "--fp16" and quantizes:
            ours += ["--float-part", "fp16"]
        elif name in SAME:
            takes = "{}" in SAME[name]
            if takes and not equals:
                value = next(words, "")
            ours += [part.format(value) for part in SAME[name]]
        elif name in ANSWERS and (name.startswith("--") or (equals and not is_value)):
            raise InputError(f"{word} is no flag of this command; {ANSWERS[name]}")
        else:
            ours.append(word)
    return ours
