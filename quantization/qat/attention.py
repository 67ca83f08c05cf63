"""Attention written out: the products inside it are layers that placement decides on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["decompose_attention"]


def decompose_attention(network: torch.fx.GraphModule) -> None:
    """Replace scaled_dot_product_attention by ``softmax(q √s · (k √s)ᵀ + mask) v``, in place.

    The scale goes half to each side, as PyTorch's own ONNX export writes it, so that both graphs
    have the same tensors. Causal, grouped-query and dropping attention is left as it is.
    Source: https://docs.pytorch.org/docs/stable/generated/
    torch.nn.functional.scaled_dot_product_attention.html
    """
    import torch

    target = torch.ops.aten.scaled_dot_product_attention.default
    for node in list(network.graph.find_nodes(op="call_function", target=target)):
        given = _arguments(node)
        if given is not None:
            with network.graph.inserting_before(node):
                node.replace_all_uses_with(_written_out(network.graph, given))
            network.graph.erase_node(node)
    network.graph.lint()
    network.recompile()


def _arguments(node: torch.fx.Node) -> dict[str, Any] | None:
    """The call's arguments by name; None where it is not plain attention."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    plain = not (given.get("dropout_p") or given.get("is_causal") or given.get("enable_gqa"))
    return given if plain else None


def _written_out(graph: torch.fx.Graph, given: dict[str, Any]) -> torch.fx.Node:
    import torch

    aten = torch.ops.aten
    depth = given["query"].meta["val"].shape[-1]
    scale = given.get("scale")
    root = math.sqrt(depth**-0.5 if scale is None else scale)
    query = graph.call_function(aten.mul.Tensor, (given["query"], root))
    turned = graph.call_function(aten.transpose.int, (given["key"], -2, -1))
    key = graph.call_function(aten.mul.Tensor, (turned, root))
    scores = graph.call_function(aten.matmul.default, (query, key))
    mask = given.get("attn_mask")
    if mask is not None and mask.meta["val"].dtype == torch.bool:
        hidden = graph.call_function(aten.logical_not.default, (mask,))
        scores = graph.call_function(aten.masked_fill.Scalar, (scores, hidden, -math.inf))
    elif mask is not None:
        scores = graph.call_function(aten.add.Tensor, (scores, mask))
    weights = graph.call_function(aten.softmax.int, (scores, -1))
    return graph.call_function(aten.matmul.default, (weights, given["value"]))
