"""What chance does to a network's numbers: the same graph with scales that differ by a rounding.

Runtimes add the same products in different orders, so a sum differs in its last digits, and where
it lies by the border of two codes, another is taken. In most networks that stays little; some make
a different answer of it, deep ones with weights that nothing has trained above all. A relative
change of 1e-6 of each scale moves values across borders in every layer, as another order does.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from graphs.edit import copy_model
from graphs.qdq import DEQUANTIZE, QUANTIZE
from graphs.walk import walk

__all__ = ["jitter_scales"]

_SHARE = 1e-6  # of a scale: what float32 leaves of a sum of some hundred products


def jitter_scales(model: ModelProto, *, seed: int = 0) -> ModelProto:
    """A new model whose float32 scales of Q and DQ are off by about a millionth.

    Args:
        model: a Q/DQ model with its data loaded; it is not changed.
        seed: of the differences.
    """
    rng = np.random.default_rng(seed)
    result = copy_model(model)
    scales = {node.input[1] for node in walk(result) if node.op_type in (QUANTIZE, DEQUANTIZE)}
    for tensor in result.graph.initializer:
        if tensor.name in scales and tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            moved = values * (1 + _SHARE * rng.standard_normal(values.shape))
            tensor.CopyFrom(numpy_helper.from_array(moved.astype(np.float32), tensor.name))
    return result
