"""Ranks that change with the input: OpenVINO reads such networks, its CPU plugin refuses them."""

from __future__ import annotations

from typing import Any

from artefacts.errors import ModelError
from engines.openvino.library import DEVICE, core, reason

__all__ = ["refuse_changing_ranks"]


def refuse_changing_ranks(network: Any, name: str) -> None:
    """Refuse a network that has tensors of no fixed number of axes and does not compile.

    The plugin removes some of them, so it has the last word; networks without are not compiled.

    Args:
        network: as OpenVINO read it, its shapes narrowed.
        name: of the graph.

    Raises:
        ModelError: the plugin does not take it.
    """
    for operation in network.get_ordered_ops():
        if any(port.get_partial_shape().rank.is_dynamic for port in operation.outputs()):
            break
    else:
        return
    try:
        core().compile_model(network, DEVICE)
    except RuntimeError as err:
        raise ModelError(
            f"node {operation.get_friendly_name()} ({operation.get_type_name()}) of graph {name!r} "
            f"has another number of axes for other inputs ({reason(err)}), expected one that is "
            "fixed; give a Squeeze its axes, the branches of an If and the states of a Loop one "
            "rank, the target of a Reshape a fixed length, or fix the sizes of the inputs"
        ) from err
