"""The linter's rules: what finds them, why they matter, what mends them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from graphs.view import GraphView, Node
from quantization.lint import fatal as lint_fatal
from quantization.lint import operators as lint_operators
from quantization.lint import speed as lint_speed
from quantization.lint import unbuilt as lint_unbuilt

__all__ = ["RULES", "Rule", "Severity"]

Severity = Literal["fatal", "slow", "accuracy"]
_DOCS = "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library"
_QDQ = f"{_DOCS}/quantized-types-explicit-quantization.html"
_TYPES = f"{_DOCS}/work-quantized-types.html"
_OPERATORS = "https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        severity: what happens where it is broken.
        find: yields the nodes that break it and what was found there.
        why: why it matters, a sentence.
        mend: what to do, a sentence.
        link: where it is documented.
        target: the only one that it holds for; empty for all of NVIDIA's.
        unsaid: whether the parser takes it, so that the end of a build would be the first to say.
    """

    severity: Severity
    find: Callable[[GraphView], Iterator[tuple[Node, str]]]
    why: str
    mend: str
    link: str
    target: str = ""
    unsaid: bool = False


RULES: dict[str, Rule] = {
    "zero-point": Rule(
        severity="fatal",
        find=lint_fatal.zero_point,
        why="TensorRT's INT8 is symmetric: the parser refuses a zero point other than 0.",
        mend="Convert the model with `import` where that is exact, else strip and calibrate again.",
        link=_TYPES,
    ),
    "uint8": Rule(
        severity="fatal",
        find=lint_fatal.uint8,
        why="The parser warns and reads uint8 as int8, so codes 128 to 255 become 127.",
        mend="Convert the model with `import` where that is exact, else strip and calibrate again.",
        link=_TYPES,
    ),
    "int16": Rule(
        severity="fatal",
        find=lint_fatal.int16,
        why="TensorRT has no 16-bit quantized type.",
        mend="Quantize to int8, or leave the tensor in floating point.",
        link=_TYPES,
    ),
    "int32-dequantize": Rule(
        severity="fatal",
        find=lint_fatal.int32_dequantize,
        why="DequantizeLinear takes INT8, FP8, INT4 or FP4 codes; a bias stays in floating point.",
        mend="Fold the bias to float32 with `import` (exact).",
        link=_QDQ,
    ),
    "code-constant": Rule(
        severity="fatal",
        find=lint_fatal.code_constant,
        why="The builder takes an INT8 constant in front of DequantizeLinear only.",
        mend="Apply the operator to the constant: `prepare` and `import` do.",
        link=_QDQ,
    ),
    "integer-operator": Rule(
        severity="fatal",
        find=lint_operators.integer_operator,
        why="The parser knows no operators that compute on codes.",
        mend="Convert QLinear operators to Q/DQ with `import`; `prepare` and `build_engine.py` "
        "write dynamic quantization in floating point, to be calibrated.",
        link=_OPERATORS,
    ),
    "scale-value": Rule(
        severity="fatal",
        find=lint_fatal.scale_value,
        why="The parser refuses scales that are zero, negative or NaN.",
        mend="Give dead channels any positive scale, e.g. 1.",
        link=_QDQ,
    ),
    "scale-constant": Rule(
        severity="fatal",
        find=lint_fatal.scale_constant,
        why="Scales and zero points are read when the engine is built.",
        mend="Store them as initializers; quantize statically, not dynamically.",
        link=_QDQ,
    ),
    "scale-count": Rule(
        severity="fatal",
        find=lint_fatal.scale_count,
        why="Per-channel quantization needs one scale for each channel.",
        mend="Export the scales again, with the axis they belong to.",
        link=_QDQ,
    ),
    "weight-axis": Rule(
        severity="slow",
        find=lint_speed.weight_axis,
        why="Scales along a summed axis cannot leave the sum: the layer runs in floating point.",
        mend="Quantize Conv on axis 0, ConvTranspose on 1, Gemm on 0 with transB else 1, "
        "MatMul on the last.",
        link=_QDQ,
    ),
    "custom-operator": Rule(
        severity="fatal",
        find=lint_operators.custom_operator,
        why="The parser looks for a plugin of this name and fails without it.",
        mend="Load the plugin library when building, or export the model without the operator.",
        link=_OPERATORS,
    ),
    "unsupported-operator": Rule(
        severity="fatal",
        find=lint_operators.unsupported_operator,
        why="The parser does not know this operator.",
        mend="Export the model without it, or write a plugin.",
        link=_OPERATORS,
    ),
    "unsupported-setting": Rule(
        severity="fatal",
        find=lint_operators.unsupported_setting,
        why="The parser knows this operator, and refuses it as it is set here.",
        mend="Export the model with what the parser takes, or end it before this node; `prepare` "
        "names the sizes of all axes of a Resize.",
        link=_OPERATORS,
    ),
    "unsupported-type": Rule(
        severity="fatal",
        find=lint_operators.unsupported_type,
        why="The parser casts uint8 inputs and outputs, and knows none of 16 bits, nor strings.",
        mend="Cast to float or int32 in front of this node; `prepare` does so behind a uint8 input "
        "that is only moved.",
        link=_OPERATORS,
    ),
    "missing-plugin": Rule(
        severity="fatal",
        find=lint_operators.missing_plugin,
        why="TensorRT reads it with a plugin of its own, which TensorRT-RTX does not have.",
        mend="Export the model without it, or build for `tensorrt`.",
        link=_OPERATORS,
        target="tensorrt-rtx",
    ),
    "missing-kernel": Rule(
        severity="fatal",
        find=lint_unbuilt.missing_kernel,
        why="The parser of TensorRT-RTX takes this operator and its builder has no kernel for it.",
        mend="End the model before it and compute the rest outside, or build for `tensorrt`.",
        link=_OPERATORS,
        target="tensorrt-rtx",
        unsaid=True,
    ),
    "many-chosen": Rule(
        severity="fatal",
        find=lint_unbuilt.many_chosen,
        why="The builder sorts at most 3,840 values of a TopK.",
        mend="Choose fewer, or end the model before it and sort outside.",
        link=_OPERATORS,
        unsaid=True,
    ),
    "changing-rank": Rule(
        severity="fatal",
        find=lint_unbuilt.changing_rank,
        why="An engine's tensors have one number of axes, whatever the sizes of its inputs.",
        mend="Give Squeeze its axes, and branches and states one rank; `prepare` does where the "
        "rest of the graph tells which, `build` where `--minShapes` are `--maxShapes`.",
        link=_OPERATORS,
        unsaid=True,
    ),
    "growing-state": Rule(
        severity="fatal",
        find=lint_unbuilt.growing_state,
        why="A state of a Loop keeps its shape in TensorRT.",
        mend="Write into a state of the final size, or let the Loop stack what each turn makes.",
        link=_OPERATORS,
        unsaid=True,
    ),
    "training-mode": Rule(
        severity="fatal",
        find=lint_operators.training_mode,
        why="The parser refuses layers in training mode.",
        mend="Export the model in evaluation mode.",
        link=_OPERATORS,
    ),
    "scale-shape": Rule(
        severity="slow",
        find=lint_speed.scale_shape,
        why="A per-tensor scale stored as a list of one leaves the layer behind it in floating "
        "point (TensorRT-RTX 1.7).",
        mend="Store it as a scalar: `import` does.",
        link=_QDQ,
    ),
    "unpaired": Rule(
        severity="slow",
        find=lint_speed.unpaired,
        why="A Q or DQ without its partner fuses with nothing and is a kernel of its own.",
        mend="Put QuantizeLinear and DequantizeLinear in pairs.",
        link=_QDQ,
    ),
    "half-quantized": Rule(
        severity="slow",
        find=lint_speed.half_quantized,
        why="One input in floating point keeps the whole layer in floating point.",
        mend="Quantize data and weight, or neither.",
        link=_QDQ,
    ),
    "float-island": Rule(
        severity="slow",
        find=lint_speed.float_island,
        why="A layer in floating point between INT8 layers costs a conversion on each side.",
        mend="Quantize it too, unless a measurement says that its accuracy is worth it.",
        link=_QDQ,
    ),
    "pair-before-add": Rule(
        severity="slow",
        find=lint_speed.pair_before_add,
        why="A Q/DQ pair between Conv and Add keeps the two from fusing.",
        mend="Quantize the other input of the Add, the skip, instead.",
        link=_QDQ,
    ),
    "skip-float": Rule(
        severity="slow",
        find=lint_speed.skip_float,
        why="A fused Conv and Add runs in the type of the skip: in floating point.",
        mend="Put a Q/DQ pair on the skip input of the Add.",
        link=_QDQ,
    ),
    "pair-before-activation": Rule(
        severity="slow",
        find=lint_speed.pair_before_activation,
        why="A Q/DQ pair between a layer and its activation keeps the two from fusing.",
        mend="Move the pair behind the activation.",
        link=_QDQ,
    ),
    "concat-scales": Rule(
        severity="slow",
        find=lint_speed.concat_scales,
        why="Inputs of a Concat with unequal scales are requantized one by one.",
        mend="Give all inputs and the output the largest range among them.",
        link=_QDQ,
    ),
    "output-pair": Rule(
        severity="slow",
        find=lint_speed.output_pair,
        why="A Q/DQ pair on a graph output has nothing to fuse with and rounds the result.",
        mend="Remove the pair.",
        link=_QDQ,
    ),
    "per-channel-activation": Rule(
        severity="accuracy",
        find=lint_speed.per_channel_activation,
        why="Documented as unsupported for activations; some parsers accept it all the same.",
        mend="Use one scale for each activation tensor.",
        link=_TYPES,
    ),
    "mismatched-pair": Rule(
        severity="accuracy",
        find=lint_speed.mismatched_pair,
        why="Quantizing with one scale and back with another multiplies the tensor.",
        mend="Give both nodes of a pair the same scale.",
        link=_QDQ,
    ),
    "minimum-code": Rule(
        severity="accuracy",
        find=lint_speed.minimum_code,
        why="Symmetric weights are -127 to 127; -128 has no positive counterpart.",
        mend="Clip weights to 127 scales before quantizing them.",
        link=_TYPES,
    ),
    "per-tensor-weight": Rule(
        severity="accuracy",
        find=lint_speed.per_tensor_weight,
        why="One scale for all output channels rounds small channels away; one each costs nothing.",
        mend="Quantize weights per output channel.",
        link=_QDQ,
    ),
    "scale-range": Rule(
        severity="accuracy",
        find=lint_speed.scale_range,
        why="Below the smallest normal float32 a scale is flushed to zero; infinite it is noise.",
        mend="Calibrate again with samples that reach this tensor.",
        link=_TYPES,
    ),
}
