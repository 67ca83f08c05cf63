"""Signed codes of tensors that are never negative as unsigned ones, for OpenVINO's faster kernels.

On a CPU with VNNI, OpenVINO multiplies unsigned by signed bytes; signed activations cost a shift
and its compensation in every layer. Behind a ReLU the codes -128 to -1 never occur, and

    FakeQuantize(x; -128 s, 127 s, 256 levels) = FakeQuantize(min(x, 127 s); 0, 255 s, 256 levels)

for x >= 0: the same 128 values, as uint8. What limits x (a ReLU, a ReLU6, that minimum) becomes
one Clamp, and a layer that nothing else reads gives codes out itself (layer_scale): either step
that is left out saves an instruction or two for each result, MobileNetV2 some 3 % of its time.
ResNet-50's shape took 1.10 to 1.14 times NNCF's time with signed codes (OpenVINO 2026.4,
AVX512-VNNI, one thread).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engines.openvino.rewrites.layer_scale import divide_layer, is_layer_result
from engines.openvino.rewrites.ports import readers

__all__ = ["MOVES_VALUES", "use_unsigned_codes"]

LEVELS = 256
MOVED_AXES = 2  # behind the batch: what four axes were moved to
UNSIGNED, SIGNED = (0.0, 255.0), (-128.0, 127.0)
NEVER_NEGATIVE = ("Abs", "Exp", "HardSigmoid", "Sigmoid", "Softmax", "SoftPlus")
AT_MOST_ONE = ("HardSigmoid", "Sigmoid", "Softmax")
MOVES_VALUES = (
    *("Concat", "Gather", "Reshape", "Slice", "Split", "Squeeze", "StridedSlice", "Transpose"),
    *("Unsqueeze", "VariadicSplit"),
)
_COPIES = (  # what else hands on some of the values it reads, and no others
    *("BatchToSpace", "Broadcast", "DepthToSpace", "GatherElements", "GatherND", "MaxPool"),
    *("ReduceMax", "ReduceMin", "Reverse", "ReverseSequence", "Roll", "ShuffleChannels"),
    *("SpaceToDepth", "Tile"),
)
_HANDS_ON = (*MOVES_VALUES, *_COPIES, "Interpolate", "Pad", "SpaceToBatch")
"""What OpenVINO moves a scale across; values of their own lie between those that they read, or are
zero."""
Limits = tuple[float, float]


def use_unsigned_codes(openvino: Any, network: Any) -> int:
    """Replace the FakeQuantize of each tensor that is never negative, in ``network`` itself.

    Those of other tensors that limits are in front of (a ReLU6 that was centred) stay signed, and
    get the single Clamp and the layer that gives codes out as well.

    Args:
        openvino: the module.
        network: an ``openvino.Model`` that belongs to the caller, its Q/DQ pairs fused.

    Returns:
        The number that are unsigned now.
    """
    found = network.get_ordered_ops()
    tops = {op.get_name(): (op, top) for op in found if (top := _symmetric_top(op)) is not None}
    signed = _signed({name: op for name, (op, _) in tops.items()}, found)
    for name, (quantizer, top) in tops.items():
        _replace(openvino.opset13, quantizer, top, SIGNED if name in signed else UNSIGNED)
    network.validate_nodes_and_infer_types()
    return len(tops) - len(signed)


def _signed(quantizers: Mapping[str, Any], ops: Sequence[Any]) -> set[str]:
    """Names of those that stay signed.

    Beside what may be negative that is what a Concat joins with it. OpenVINO makes all of a Concat
    unsigned, half of it with a zero point of 128, and sums of a depthwise layer of more outputs
    than inputs that reads it saturate, on CPUs with VNNI, too (24 dB).
    """
    found = {
        name
        for name, op in quantizers.items()
        if _limits(op.input_value(0))[0] < 0 or _is_factor(op)
    }
    joins = [op for op in ops if op.get_type_name() == "Concat"]
    groups = [_above(join) & quantizers.keys() for join in joins]
    while more := set().union(*(group for group in groups if group & found)) - found:
        found |= more
    return found


def _above(join: Any) -> set[str]:
    """Names of the nearest quantizers whose codes a Concat joins, through what moves them."""
    found, seen, pending = set(), set(), [join]
    while pending:
        op = pending.pop()
        name, kind = op.get_name(), op.get_type_name()
        if kind == "FakeQuantize":
            found.add(name)
        elif name not in seen and kind in _HANDS_ON:
            ports = op.input_values() if kind == "Concat" else [op.input_value(0)]
            pending += [port.get_node() for port in ports]
        seen.add(name)
    return found


def _replace(ops: Any, quantizer: Any, top: float, codes: Limits) -> None:
    port, scale = quantizer.input_value(0), top / 127
    least, most = codes[0] * scale, min(codes[1], 127) * scale
    low, high = _limits(port)
    x = _before_limits(port)
    if x == port and codes == SIGNED:
        return
    unit = scale if divide_layer(ops, x, scale) else 1.0
    if x != port or high > most:
        x = limited(ops, x, *(min(max(bound, least), most) / unit for bound in (low, high)))
    low, high, out_low, out_high = (
        ops.constant(np.float32(code * step)) for step in (scale / unit, scale) for code in codes
    )
    other = ops.fake_quantize(x, low, high, out_low, out_high, LEVELS)
    other.set_friendly_name(quantizer.get_friendly_name())
    quantizer.output(0).replace(other.output(0))


def _symmetric_top(op: Any) -> float | None:
    """127 s of a FakeQuantize to the signed codes -128 to 127 and back; None for anything else."""
    if op.get_type_name() != "FakeQuantize" or op.get_attributes()["levels"] != LEVELS:
        return None
    limits = [_scalar(op.input_value(index)) for index in (1, 2, 3, 4)]
    if any(limit is None for limit in limits):
        return None
    low, high, out_low, out_high = (float(limit) for limit in limits if limit is not None)
    signed = high > 0 and abs(low * 127 + high * 128) <= 1e-5 * high * 128
    same = np.isclose(low, out_low, rtol=1e-6) and np.isclose(high, out_high, rtol=1e-6)
    return high if signed and same else None


def limited(ops: Any, port: Any, low: float, high: float) -> Any:
    """``min(max(x, low), high)`` in a form that OpenVINO computes right.

    Behind an INT8 layer whose result is moved to another number of axes (Keras' convolutions of
    sequences: Squeeze, and maybe a bias), OpenVINO 2026.4 computes a Clamp in front of a
    FakeQuantize wrong, 6 to 20 dB from the right values, where shapes are free. With a bound for
    each channel, of which one is a rounding step away, it is no Clamp to it.
    """
    shape = port.get_partial_shape()
    axes = range(1, shape.rank.get_length()) if shape.rank.is_static else ()
    wide = [axis for axis in axes if shape[axis].is_static and shape[axis].get_length() > 1]
    if is_layer_result(port) or len(axes) != MOVED_AXES or not wide:
        return ops.clamp(port, low, high).output(0)
    bounds = [np.full([1] * (len(axes) + 1), bound, np.float32) for bound in (low, high)]
    lows, highs = (np.repeat(b, shape[wide[0]].get_length(), axis=wide[0]) for b in bounds)
    for values in (lows, highs):
        values.reshape(-1)[0] = np.nextafter(values.reshape(-1)[0], np.float32(np.inf))
    return ops.minimum(ops.maximum(port, lows), highs).output(0)


def _limits(port: Any) -> Limits:
    """Bounds of a tensor's values, as far as the operators that make it have them."""
    op = port.get_node()
    kind = op.get_type_name()
    if kind in NEVER_NEGATIVE:
        return 0.0, 1.0 if kind in AT_MOST_ONE else np.inf
    if kind in _COPIES or (kind in MOVES_VALUES and kind != "Concat"):
        return _limits(op.input_value(0))
    found = _limited(op)
    if found is None:
        return -np.inf, np.inf
    inner, (low, high) = found
    least, most = _limits(inner)
    return min(max(least, low), high), min(max(most, low), high)


def _limited(op: Any) -> tuple[Any, Limits] | None:
    """What an operator limits, and to what; None where it does something else."""
    kind = op.get_type_name()
    if kind == "Relu":
        return op.input_value(0), (0.0, np.inf)
    if kind == "Clamp":
        attributes = op.get_attributes()
        return op.input_value(0), (float(attributes["min"]), float(attributes["max"]))
    if kind in ("Maximum", "Minimum"):
        for index in (0, 1):
            bound = _scalar(op.input_value(index))
            if bound is not None:
                limits = (bound, np.inf) if kind == "Maximum" else (-np.inf, bound)
                return op.input_value(1 - index), limits
    return None


def _before_limits(port: Any) -> Any:
    """The output that is limited to what ``port`` is, where nothing else reads what is between."""
    found = _limited(port.get_node())
    if found is None or len(readers(port)) != 1:
        return port
    inner, _ = found
    for entry in port.get_target_inputs():
        if entry.get_node().get_type_name() == "ShapeOf":
            entry.replace_source_output(inner)
    return _before_limits(inner)


def _is_factor(op: Any) -> bool:
    """Whether a product of two activations reads it on the right, where codes must be signed."""
    for entry in op.output(0).get_target_inputs():
        reader = entry.get_node()
        if reader.get_type_name() == "MatMul" and entry.get_index() == 1:
            return True
        if reader.get_type_name() in MOVES_VALUES and _is_factor(reader):
            return True
    return False


def _scalar(port: Any) -> float | None:
    """The value of a constant of one element."""
    op = port.get_node()
    if op.get_type_name() != "Constant" or op.data.size != 1:
        return None
    return float(op.data.reshape(-1)[0])
