"""Results of branches whose shapes are free, in front of INT8 layers.

OpenVINO 2026.4.1 prepares what stands behind an If before the If has made its result, and what
reads an INT8 dense layer there reads the memory that the layer had before: the first request of
every larger shape is noise (-7 to 0 dB), later ones are right. A Broadcast to the shape that the
result turns out to have waits for it, and is not taken out as a Reshape is.
"""

from __future__ import annotations

from typing import Any

from engines.openvino.rewrites.ports import put_behind

__all__ = ["await_branches"]


def await_branches(openvino: Any, network: Any) -> int:
    """Put a Broadcast behind each result of an If, in ``network`` itself.

    Args:
        openvino: the module.
        network: an ``openvino.Model`` that belongs to the caller.

    Returns:
        The number of results; 0 where all shapes are fixed.
    """
    if not network.is_dynamic():
        return 0
    ops, found = openvino.opset13, network.get_ordered_ops()
    branches = [end for op in found if op.get_type_name() == "If" for end in op.outputs()]
    for output in branches:
        put_behind(output, lambda port: ops.broadcast(port, ops.shape_of(port)).output(0))
    network.validate_nodes_and_infer_types()
    return len(branches)
