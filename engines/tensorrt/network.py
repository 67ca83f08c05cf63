"""ONNX → a TensorRT network: how it is typed, and every parser error in one message."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import onnx

from artefacts.errors import ModelError, UnsupportedError
from engines.onnx_layers import graph_names, has_float16, has_qdq
from engines.options import BuildOptions
from engines.tensorrt.library import is_strongly_typed, title
from engines.tensors import TensorSpec
from graphs.opset import opset_of

__all__ = [
    "Typing",
    "choose_typing",
    "network_specs",
    "parse_network",
    "refuse_opset",
    "refuse_passed_inputs",
]

Typing = Literal["strong", "weak"]

# The newest opset that the parser of a release without strong typing knows; what later ones moved
# (axes of a ReduceMean became an input) it does not look for.
WEAK_OPSET = 17

_NO_GPU = "catchCudaError"
_QUANTIZER = "uantizeLinear"
_PLUGIN_WITHOUT_GPU = "Cuda Error in "

# DataType member → numpy name; trt.nptype knows no BF16, FP8 or INT4.
DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "FP8": "float8_e4m3fn",
}


def choose_typing(trt: Any, model: onnx.ModelProto, options: BuildOptions) -> Typing:
    """Whether tensor types come from the graph (strong) or the builder may choose (weak).

    Strong where the library has it and the graph says what is asked for: Q/DQ for INT8, float16
    tensors for FP16. Weak for implicit quantization, for FP16 of a float32 graph, and on
    releases before strong typing.

    Raises:
        UnsupportedError: the route was removed from this release.
        ModelError: Q/DQ for a DLA, or an opset that is too new.
    """
    refuse_opset(trt, model)
    flags = trt.BuilderFlag
    version = title(trt)
    if options.dla_core is not None and has_qdq(model):
        raise ModelError(
            f"model has QuantizeLinear nodes with DLA core {options.dla_core}, expected a model "
            "without: a DLA takes its INT8 from calibration only; give the float model and its "
            "cache (--implicit --calib m.calib.cache)"
        )
    if options.implicit and not hasattr(trt, "IInt8EntropyCalibrator2"):
        raise UnsupportedError(
            f"{version} has no calibrators, expected TensorRT 8.6 to 10.16 for implicit "
            "quantization; build from the Q/DQ model instead, or install 'tensorrt<11'"
        )
    cast_by_builder = options.precision == "fp16" and not has_float16(model)
    if cast_by_builder and not hasattr(flags, "FP16"):
        raise UnsupportedError(
            f"{version} takes types from the graph only and the model has no float16 tensor, "
            "expected a float16 model for --precision fp16; convert it first"
        )
    strong = is_strongly_typed(trt) and not options.implicit and not cast_by_builder
    return "strong" if strong else "weak"


def refuse_opset(trt: Any, model: onnx.ModelProto) -> None:
    """Refuse what the parser is too old for, before hours of work go into it.

    Raises:
        ModelError: the opset is too new.
    """
    found = opset_of(model)
    if found > WEAK_OPSET and not is_strongly_typed(trt):
        raise ModelError(
            f"model has opset {found}, expected at most {WEAK_OPSET} for the parser of "
            f"{title(trt)}; export it again with opset_version={WEAK_OPSET}, convert it with "
            "onnx.version_converter, or build with TensorRT 10"
        )


def refuse_passed_inputs(model: onnx.ModelProto) -> None:
    """Refuse inputs that are outputs as they are: the parser gives the input another name.

    Raises:
        ModelError: there is one.
    """
    inputs, outputs = graph_names(model)
    both = [name for name in inputs if name in outputs]
    if both:
        raise ModelError(
            f"tensor {both[0]!r} is an input and an output of the model, which are two tensors to "
            "TensorRT, expected outputs that a node makes; drop the output, or give it a name of "
            "its own behind an Identity"
        )


def parse_network(trt: Any, builder: Any, log: Any, source: Path | bytes, typing: Typing) -> Any:
    """Parse an ONNX model, a file or its bytes, into a new network.

    Raises:
        ModelError: the parser refuses it; the message has every error with its node.
        UnsupportedError: it asks for a plugin that does not start without a GPU.
    """
    network = builder.create_network(_creation_flags(trt, builder, typing))
    parser = trt.OnnxParser(network, log)
    if isinstance(source, Path):  # the parser then finds external data beside the model
        read, name = parser.parse_from_file(str(source)), f"model {source}"
    else:
        read, name = parser.parse(source), "the model"
    if not read:
        found = [_sentence(parser.get_error(i), log.parsing) for i in range(parser.num_errors)]
        logged = log.take_errors()
        without = [_one_line(text) for text in logged if _PLUGIN_WITHOUT_GPU in text]
        if without:
            raise UnsupportedError(
                f"{name} cannot be parsed by {title(trt)} on this machine: {'; '.join(found)}, as "
                f"a plugin of its own does not start ({without[0]}), expected a GPU with its "
                "driver; build there, or end the model before this node"
            )
        found = found or logged
        codes = any(_QUANTIZER in text for text in found)
        remedy = "leave these unquantized" if codes else "end the model before them"
        raise ModelError(
            f"{name} is refused by the parser of {title(trt)}: {'; '.join(found)}; expected "
            f"operators that it supports: write these nodes in others, or {remedy}"
        )
    return network


def network_specs(network: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a network.

    Raises:
        ModelError: one of them is what a plan cannot be asked for here.
    """
    inputs = tuple(_spec(network.get_input(i)) for i in range(network.num_inputs))
    outputs = tuple(_spec(network.get_output(i)) for i in range(network.num_outputs))
    fixed = all(None not in spec.shape for spec in inputs)
    for spec in outputs:
        if fixed and None in spec.shape:
            raise ModelError(
                f"output {spec.name!r} has shape {spec.shape} although every input is fixed: its "
                "size depends on the data (NonMaxSuppression, NonZero), expected one that follows "
                "from the inputs; end the model before that node"
            )
    return inputs, outputs


def _creation_flags(trt: Any, builder: Any, typing: Typing) -> int:
    creation = trt.NetworkDefinitionCreationFlag
    if typing == "strong":
        return 1 << int(creation.STRONGLY_TYPED)
    # TensorRT 8 and 9 still have implicit batch, whose mark is this property; the ONNX parser
    # wants explicit batch. From 10.0 on there is nothing else and the flag is deprecated.
    return 1 << int(creation.EXPLICIT_BATCH) if hasattr(builder, "max_batch_size") else 0


def _spec(tensor: Any) -> TensorSpec:
    if tensor.is_shape_tensor:
        raise ModelError(
            f"tensor {tensor.name!r} is an input or output that holds sizes of other tensors, "
            "expected inputs and outputs of data only; make the sizes constants of the model"
        )
    return TensorSpec(
        name=tensor.name,
        dtype=DTYPES[tensor.dtype.name],
        shape=tuple(None if size < 0 else size for size in tuple(tensor.shape)),
    )


def _sentence(error: Any, last: str) -> str:
    """``node 3 (Conv conv1): reason``; releases before 10 know the node's index only.

    Args:
        error: of the parser.
        last: the node that it read last: some of its importers end it without naming theirs.
    """
    reason = _one_line(error.desc())
    if error.node() < 0:
        return f"node {last}: {reason}" if last else reason
    if not hasattr(error, "node_name"):
        return f"node {error.node()}: {reason}"
    return f"node {error.node()} ({error.node_operator()} {error.node_name()}): {reason}"


def _one_line(text: str) -> str:
    """Without what the library says of a machine that has no GPU: it needs none to parse."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if _NO_GPU not in line]
    return ", ".join(told or lines)
