"""What each operator means, in one table: every list of operators of the project is read from it.

What a runtime lacks or fuses stays with that runtime; what an operator *is* stands here. A new
operator is a line, a new meaning a column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

__all__ = [
    "ACTIVATION_OPS", "ALWAYS_FLOAT_OPS", "AVERAGE_OPS", "CODE_COPYING_OPS", "CONTROL_OPS",
    "CONVOLUTION_OPS", "CONV_FUSED_OPS", "EXACT_OPS", "HALF_RISKS", "INT8_KEEPING_OPS",
    "INTEGER_OPS", "MAC_OPS", "MIXING_OPS", "OPERATORS", "ORDERING_OPS", "PAIR_OPS", "PARTIAL_OPS",
    "POINTWISE_OPS", "POSITIVE_OPS", "POWER_OPS", "PRODUCT_OPS", "RANGE_KEEPING_OPS",
    "REARRANGING_OPS", "RECURRENT_OPS", "RESIZE_OPS", "ROUNDED_OPS", "SCALE_KEEPING_OPS",
    "SCORE_OPS", "SELF_GATED_OPS", "SHAPE_MAKING_OPS", "SHIFT_KEEPING_OPS", "SIZE_OPS", "TYPED_OPS",
    "WEIGHTED_OPS", "Operator",
]  # fmt: skip

Family = Literal[
    "average", "control", "convolution", "pair", "product", "recurrent", "resize", "size"
]
HalfRisk = Literal["growth", "index", "sum", "vanishing"]


@dataclass(frozen=True, kw_only=True)
class Operator:
    """The meanings of one operator.

    Attributes:
        family: operators that a rule treats alike.
        weighted: a layer with a weight for each output channel, which placement can make INT8.
        counts_macs: its multiply-accumulates count in the work that a share of INT8 is said of.
        always_float: it multiplies, and no runtime here has an explicit INT8 kernel for it.
        rearranges: every value of its one tensor is in its result, once, at another place.
        copies_codes: it moves numbers without computing on them, so INT8 codes as well.
        keeps_range: its values are among those of its first input, or zero: one scale fits both, Q
            and DQ commute with it (placement guide, rule 9). Resize, Pad, Split have conditions.
        stays_int8: runtimes leave it INT8 between a DequantizeLinear and the layer that reads it.
        partial: its result holds a part of what it reads, or several tensors.
        mixes: its result holds values of several of its inputs.
        keeps_shift: what it makes of x - c is what it makes of x, less c.
        keeps_scale: f(s x) = s f(x) for s > 0, channel by channel.
        never_negative: no value of its result is below zero.
        pointwise: each value depends on one value of each input.
        activation: a non-linearity that runtimes compute in the kernel of the layer before it.
        fuses_behind_conv: what TensorRT computes in the kernel of a convolution before it.
        self_gated: x times a gate of x: it dips a little below zero.
        makes_power: stands between a filter bank and the logarithm of its power or magnitude.
        scales_scores: stands between Q·Kᵀ and the Softmax of an attention.
        shape_from_values: the shape of its result depends on values.
        orders: its result depends on which of its values are larger than others.
        typed_by_attribute: the type of its result is written in an attribute.
        computes_codes: the QOperator format, one node that computes on codes.
        folds: "exact" where IEEE 754 rounds in one way, so that a folded constant is the same on
            every machine; "rounded" where libraries differ in the last place.
        half_risk: why float16 is too little: "sum", "growth", "vanishing" inputs, a long "index".
    """

    family: Family | None = None
    weighted: bool = False
    counts_macs: bool = False
    always_float: bool = False
    rearranges: bool = False
    copies_codes: bool = False
    keeps_range: bool = False
    stays_int8: bool = False
    partial: bool = False
    mixes: bool = False
    keeps_shift: bool = False
    keeps_scale: bool = False
    never_negative: bool = False
    pointwise: bool = False
    activation: bool = False
    fuses_behind_conv: bool = False
    self_gated: bool = False
    makes_power: bool = False
    scales_scores: bool = False
    shape_from_values: bool = False
    orders: bool = False
    typed_by_attribute: bool = False
    computes_codes: bool = False
    folds: Literal["exact", "rounded"] | None = None
    half_risk: HalfRisk | None = None


_EXACT = Operator(folds="exact")
_ROUNDED = Operator(folds="rounded")
_INTEGER = Operator(computes_codes=True)
_MOVING = Operator(copies_codes=True, keeps_range=True, stays_int8=True)
_PICKING = replace(_MOVING, partial=True, folds="exact")
_REARRANGING = replace(_MOVING, rearranges=True, keeps_shift=True, folds="exact")

OPERATORS: dict[str, Operator] = {
    "Abs": Operator(never_negative=True, makes_power=True, folds="exact"),
    "Acos": _ROUNDED,
    "Acosh": _ROUNDED,
    "Add": Operator(pointwise=True, makes_power=True, scales_scores=True, folds="exact"),
    "And": _EXACT,
    "ArgMax": Operator(orders=True),
    "ArgMin": Operator(orders=True),
    "Asin": _ROUNDED,
    "Asinh": _ROUNDED,
    "Atan": _ROUNDED,
    "Atanh": _ROUNDED,
    "Attention": Operator(always_float=True),
    "AveragePool": Operator(family="average", keeps_scale=True),
    "BatchNormalization": Operator(fuses_behind_conv=True, folds="rounded"),
    "BlackmanWindow": _ROUNDED,
    "Cast": Operator(scales_scores=True, folds="exact"),
    "CastLike": _EXACT,
    "Ceil": _EXACT,
    "Clip": Operator(pointwise=True, activation=True, fuses_behind_conv=True, folds="exact"),
    "com.microsoft.DynamicQuantizeMatMul": _INTEGER,
    "com.microsoft.MatMulIntegerToFloat": _INTEGER,
    "com.microsoft.QAttention": _INTEGER,
    "com.microsoft.QGemm": _INTEGER,
    "com.microsoft.QLinearAdd": _INTEGER,
    "com.microsoft.QLinearAveragePool": _INTEGER,
    "com.microsoft.QLinearConcat": _INTEGER,
    "com.microsoft.QLinearConv": _INTEGER,
    "com.microsoft.QLinearGlobalAveragePool": _INTEGER,
    "com.microsoft.QLinearLeakyRelu": _INTEGER,
    "com.microsoft.QLinearMatMul": _INTEGER,
    "com.microsoft.QLinearMul": _INTEGER,
    "com.microsoft.QLinearReduceMean": _INTEGER,
    "com.microsoft.QLinearSigmoid": _INTEGER,
    "com.microsoft.QLinearSoftmax": _INTEGER,
    "com.microsoft.QLinearWhere": _INTEGER,
    "Compress": Operator(shape_from_values=True),
    "Concat": replace(_EXACT, copies_codes=True, partial=True, mixes=True, makes_power=True),
    "ConstantOfShape": Operator(typed_by_attribute=True, folds="exact"),
    "Conv": Operator(family="convolution", weighted=True, counts_macs=True),
    "ConvInteger": _INTEGER,
    "ConvTranspose": Operator(family="convolution", weighted=True, counts_macs=True),
    "Cos": _ROUNDED,
    "Cosh": _ROUNDED,
    "CumSum": Operator(half_risk="sum"),
    "DeformConv": Operator(always_float=True),
    "DepthToSpace": _MOVING,
    "DequantizeLinear": Operator(family="pair"),
    "Div": Operator(pointwise=True, makes_power=True, scales_scores=True, folds="exact"),
    "Dropout": Operator(keeps_range=True, keeps_shift=True, keeps_scale=True),
    "DynamicQuantizeLinear": _INTEGER,
    "Einsum": Operator(counts_macs=True, always_float=True, folds="rounded"),
    "Elu": Operator(pointwise=True, folds="rounded"),
    "Equal": _EXACT,
    "Erf": Operator(pointwise=True, folds="rounded"),
    "Exp": Operator(never_negative=True, pointwise=True, folds="rounded", half_risk="growth"),
    "Expand": Operator(copies_codes=True, keeps_range=True, folds="exact"),
    "EyeLike": Operator(typed_by_attribute=True, folds="exact"),
    "Flatten": _REARRANGING,
    "Floor": _EXACT,
    "Gather": _PICKING,
    "GatherElements": Operator(keeps_range=True, folds="exact"),
    "GatherND": Operator(keeps_range=True, folds="exact"),
    "Gelu": Operator(pointwise=True, self_gated=True),
    "Gemm": Operator(family="product", weighted=True, counts_macs=True, folds="rounded"),
    "GlobalAveragePool": Operator(family="average", keeps_shift=True, keeps_scale=True),
    "GlobalMaxPool": Operator(keeps_shift=True, keeps_scale=True),
    "Greater": _EXACT,
    "GreaterOrEqual": _EXACT,
    "GridSample": Operator(half_risk="index"),
    "GRU": Operator(family="recurrent", counts_macs=True, always_float=True),
    "HammingWindow": _ROUNDED,
    "HannWindow": _ROUNDED,
    "HardSigmoid": Operator(never_negative=True, pointwise=True, folds="rounded"),
    "HardSwish": Operator(pointwise=True, activation=True, self_gated=True),
    "Identity": replace(_REARRANGING, keeps_scale=True, folds=None),
    "If": Operator(family="control"),
    "LeakyRelu": Operator(
        keeps_scale=True, pointwise=True, activation=True, fuses_behind_conv=True, folds="rounded"
    ),
    "Less": _EXACT,
    "LessOrEqual": _EXACT,
    "Log": Operator(folds="rounded", half_risk="vanishing"),
    "LogSoftmax": _ROUNDED,
    "Loop": Operator(family="control"),
    "LSTM": Operator(family="recurrent", counts_macs=True, always_float=True),
    "MatMul": Operator(family="product", weighted=True, counts_macs=True, folds="rounded"),
    "MatMulInteger": _INTEGER,
    "Max": replace(_EXACT, mixes=True, makes_power=True),
    "MaxPool": replace(_MOVING, keeps_shift=True, keeps_scale=True, fuses_behind_conv=True),
    "MelWeightMatrix": _ROUNDED,
    "Min": replace(_EXACT, mixes=True),
    "Mish": Operator(pointwise=True, self_gated=True),
    "Mod": _EXACT,
    "Mul": Operator(pointwise=True, makes_power=True, scales_scores=True, folds="exact"),
    "Neg": Operator(pointwise=True, makes_power=True, folds="exact"),
    "NonMaxSuppression": Operator(shape_from_values=True, half_risk="index"),
    "NonZero": Operator(shape_from_values=True),
    "Not": _EXACT,
    "Or": _EXACT,
    "Pad": Operator(keeps_range=True, stays_int8=True, makes_power=True, folds="exact"),
    "Pow": Operator(pointwise=True, makes_power=True, folds="rounded", half_risk="growth"),
    "PRelu": Operator(keeps_scale=True, pointwise=True, activation=True, fuses_behind_conv=True),
    "QLinearConv": _INTEGER,
    "QLinearMatMul": _INTEGER,
    "QuantizeLinear": Operator(family="pair"),
    "RandomNormal": Operator(typed_by_attribute=True),
    "RandomUniform": Operator(typed_by_attribute=True),
    "Range": Operator(folds="exact", half_risk="index"),
    "Reciprocal": Operator(folds="exact", half_risk="growth"),
    "ReduceL1": Operator(folds="rounded", half_risk="sum"),
    "ReduceL2": Operator(makes_power=True, folds="rounded", half_risk="growth"),
    "ReduceLogSum": Operator(folds="rounded", half_risk="sum"),
    "ReduceLogSumExp": Operator(folds="rounded", half_risk="growth"),
    "ReduceMax": _EXACT,
    "ReduceMean": Operator(family="average", folds="rounded"),
    "ReduceMin": _EXACT,
    "ReduceProd": Operator(folds="exact", half_risk="growth"),
    "ReduceSum": Operator(makes_power=True, folds="rounded", half_risk="sum"),
    "ReduceSumSquare": Operator(makes_power=True, folds="rounded", half_risk="growth"),
    "Relu": Operator(
        keeps_scale=True,
        never_negative=True,
        pointwise=True,
        activation=True,
        fuses_behind_conv=True,
        folds="exact",
    ),
    "Reshape": _REARRANGING,
    "Resize": Operator(family="resize", keeps_range=True, stays_int8=True),
    "RNN": Operator(family="recurrent", counts_macs=True, always_float=True),
    "RoiAlign": Operator(half_risk="index"),
    "Scan": Operator(family="control"),
    "ScatterND": replace(_EXACT, mixes=True),
    "Selu": Operator(pointwise=True, folds="rounded"),
    "Shape": Operator(family="size", folds="exact"),
    "Sigmoid": Operator(never_negative=True, pointwise=True, activation=True, folds="rounded"),
    "Sign": _EXACT,
    "Sin": _ROUNDED,
    "Sinh": _ROUNDED,
    "Size": Operator(family="size", folds="exact"),
    "Slice": _PICKING,
    "Softmax": Operator(never_negative=True, folds="rounded"),
    "Softplus": Operator(never_negative=True, pointwise=True, folds="rounded"),
    "Softsign": _ROUNDED,
    "SpaceToDepth": _MOVING,
    "Split": _PICKING,
    "Sqrt": Operator(pointwise=True, makes_power=True, folds="exact"),
    "Squeeze": _REARRANGING,
    "Sub": Operator(pointwise=True, makes_power=True, scales_scores=True, folds="exact"),
    "Swish": Operator(self_gated=True),
    "Tan": _ROUNDED,
    "Tanh": Operator(pointwise=True, activation=True, folds="rounded"),
    "ThresholdedRelu": Operator(pointwise=True),
    "Tile": Operator(copies_codes=True, keeps_range=True, folds="exact"),
    "TopK": Operator(orders=True),
    "Transpose": _REARRANGING,
    "Trilu": _EXACT,
    "Unique": Operator(shape_from_values=True),
    "Unsqueeze": _REARRANGING,
    "Upsample": Operator(family="resize", keeps_range=True, stays_int8=True),
    "Where": Operator(mixes=True, makes_power=True, scales_scores=True, folds="exact"),
    "Xor": _EXACT,
}
"""By name, with the domain in front where it is not ONNX's own, as ``graphs.view.Node`` says it."""


def _all(meaning: Callable[[Operator], object]) -> frozenset[str]:
    return frozenset(name for name, operator in OPERATORS.items() if meaning(operator))


AVERAGE_OPS = _all(lambda o: o.family == "average")
CONTROL_OPS = _all(lambda o: o.family == "control")
CONVOLUTION_OPS = _all(lambda o: o.family == "convolution")
PAIR_OPS = _all(lambda o: o.family == "pair")
PRODUCT_OPS = _all(lambda o: o.family == "product")
RECURRENT_OPS = _all(lambda o: o.family == "recurrent")
RESIZE_OPS = _all(lambda o: o.family == "resize")
SIZE_OPS = _all(lambda o: o.family == "size")
WEIGHTED_OPS = _all(lambda o: o.weighted)
MAC_OPS = _all(lambda o: o.counts_macs)
ALWAYS_FLOAT_OPS = _all(lambda o: o.always_float)
REARRANGING_OPS = _all(lambda o: o.rearranges)
CODE_COPYING_OPS = _all(lambda o: o.copies_codes)
RANGE_KEEPING_OPS = _all(lambda o: o.keeps_range)
INT8_KEEPING_OPS = _all(lambda o: o.stays_int8)
PARTIAL_OPS = _all(lambda o: o.partial)
MIXING_OPS = _all(lambda o: o.mixes)
SHIFT_KEEPING_OPS = _all(lambda o: o.keeps_shift)
SCALE_KEEPING_OPS = _all(lambda o: o.keeps_scale)
POSITIVE_OPS = _all(lambda o: o.never_negative)
POINTWISE_OPS = _all(lambda o: o.pointwise)
ACTIVATION_OPS = _all(lambda o: o.activation)
CONV_FUSED_OPS = _all(lambda o: o.fuses_behind_conv)
SELF_GATED_OPS = _all(lambda o: o.self_gated)
POWER_OPS = _all(lambda o: o.makes_power)
SCORE_OPS = _all(lambda o: o.scales_scores)
SHAPE_MAKING_OPS = _all(lambda o: o.shape_from_values)
ORDERING_OPS = _all(lambda o: o.orders)
TYPED_OPS = _all(lambda o: o.typed_by_attribute)
INTEGER_OPS = _all(lambda o: o.computes_codes)
EXACT_OPS = _all(lambda o: o.folds == "exact")
ROUNDED_OPS = _all(lambda o: o.folds == "rounded")
HALF_RISKS = {name: o.half_risk for name, o in OPERATORS.items() if o.half_risk}
