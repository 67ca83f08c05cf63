"""The layers that make the outputs: classifier logits, detection and segmentation heads."""

from __future__ import annotations

from graphs.macs import macs
from graphs.operators import WEIGHTED_OPS
from graphs.view import GraphView, Node
from quantization.placement.draft import Draft
from quantization.placement.walk import is_pass_through

__all__ = ["output_layers"]

_BUDGET = 0.05


def output_layers(draft: Draft) -> None:
    """The last weighted layers before the outputs stay in floating point.

    Those from which no other weighted layer is reached: the classifier, each head of a detector
    before its sigmoid, DFL or box decode, the last Conv of a segmentation. All of them, or none if
    together they hold more than 5 % of the multiply-accumulates; DFL's mean always.

    Why: their rounding error reaches the output unsmoothed, and they are cheap. Implicit
    quantization keeps the last layer before an FP32 output in FP32 for the same reason, and every
    detection project excludes its heads by name.
    Source: [implicit], [modelopt]
    """
    view = draft.view
    layers = [node for node in view.nodes if node.op_type in WEIGHTED_OPS]
    for node in layers:
        if _is_expectation(view, node):
            draft.leave(node, "output_layers", "the mean of a distribution, as in DFL box decode")
    ahead = _layers_ahead(view)
    last = [node for node in layers if not ahead[node.position]]
    work = {node.name: macs(node, view.nominal_shape) for node in layers}
    total = sum(work.values())
    share = sum(work[node.name] for node in last) / total if total else 1.0
    if share > _BUDGET:
        return
    for node in last:
        draft.leave(
            node,
            "output_layers",
            f"no weighted layer follows; all such hold {share:.1%} of the work",
        )


def _layers_ahead(view: GraphView) -> list[bool]:
    """For each node, whether a weighted layer can be reached from its outputs."""
    ahead = [False] * len(view.nodes)
    for node in reversed(view.nodes):
        for name in node.outputs:
            users = [use.node for use in view.uses(name)] if name else []
            if any(_is_layer(view, user) or ahead[user.position] for user in users):
                ahead[node.position] = True
    return ahead


def _is_layer(view: GraphView, node: Node) -> bool:
    """Whether ``node`` is a weighted layer, not the fixed expectation of a DFL box decode."""
    return node.op_type in WEIGHTED_OPS and not _is_expectation(view, node)


def _is_expectation(view: GraphView, node: Node) -> bool:
    """A 1×1 Conv to one channel over Softmax probabilities: DFL's mean of a distribution."""
    if node.op_type != "Conv" or (view.shape(node.inputs[1]) or (0,))[0] != 1:
        return False
    maker = view.producer(node.inputs[0])
    while maker is not None and is_pass_through(view, maker):
        maker = view.producer(maker.inputs[0])
    return maker is not None and maker.op_type == "Softmax"
