"""Col2Im of patches side by side as the Reshapes and the Transpose that it is.

TensorRT has no Col2Im, which ``torch.nn.functional.fold`` becomes (MobileViT v2). Of patches that
do not overlap nothing is summed: x of (N, C b1 b2, n1 n2) is (N, C, b1, b2, n1, n2), its image

    (N, C, n1 b1, n2 b2) = Transpose(x; 0, 1, 4, 2, 5, 3), and zeros behind where patches end early
"""

from __future__ import annotations

import math

from onnx import NodeProto, numpy_helper

from graphs.walk import attributes
from quantization.prepare.writer import Steps, Writer

__all__ = ["write_col2im"]


def write_col2im(writer: Writer, node: NodeProto) -> list[NodeProto]:
    """The nodes that take the place of a Col2Im; none where patches overlap or are not known."""
    image, block = (_numbers(writer, name) for name in node.input[1:3])
    if not image or not block or len(image) != len(block) or min(*image, *block) < 1:
        return []
    given, axes = attributes(node), len(block)
    strides = list(given.get("strides", [1] * axes))
    spread = [each for each in given.get("dilations", ()) if each != 1]
    if strides != block or any(given.get("pads", ())) or spread:
        return []
    counts = [size // side for size, side in zip(image, block, strict=True)]
    if writer.size(node.input[0], -1) not in (None, math.prod(counts)):
        return []
    covered = [count * side for count, side in zip(counts, block, strict=True)]
    step = Steps(writer, node)
    parted = step("Reshape", node.input[0], step.constant("parts", [0, -1, *block, *counts]))
    order = [0, 1, *(axis for i in range(axes) for axis in (2 + axes + i, 2 + i))]
    moved = step("Transpose", parted, perm=order)
    joined = step("Reshape", moved, step.constant("covered", [0, -1, *covered]))
    if covered != image:
        behind = [size - done for size, done in zip(image, covered, strict=True)]
        step("Pad", joined, step.constant("behind", [0] * (2 + axes) + [0, 0, *behind]))
    return step.finish()


def _numbers(writer: Writer, name: str) -> list[int]:
    tensor = writer.constants.get(name)
    return [] if tensor is None else [int(n) for n in numpy_helper.to_array(tensor).reshape(-1)]
