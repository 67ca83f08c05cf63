"""The PT2E quantizer: tells torchao which edges of a network get which fake quantizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from artefacts.libraries import require
from quantization.qat.edges import ActivationEdge, WeightEdge
from quantization.qat.modules import EXTRA, activation_quantizer, batch_norm, weight_quantizer

if TYPE_CHECKING:
    import torch

__all__ = ["insert_fake_quantizers", "quantizer_class"]


def insert_fake_quantizers(
    network: torch.fx.GraphModule,
    activations: Sequence[ActivationEdge],
    weights: Sequence[WeightEdge],
) -> tuple[torch.fx.GraphModule, dict[str, str]]:
    """A captured network whose edges go through fake quantizers, ready for training.

    Returns:
        The network, and for each ``ActivationEdge.scale`` the name of its fake quantizer.
    """
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    quantizer = quantizer_class()(activations, weights)
    prepared = prepare_qat_pt2e(network, quantizer)
    # torchao forbids train() and eval() on captured graphs. Here they mean what they say, because
    # BatchNorm and Dropout are modules again.
    for name in ("train", "eval"):
        vars(prepared).pop(name, None)
    called = [node.target for node in prepared.graph.find_nodes(op="call_module")]
    modules = {target: prepared.get_submodule(target) for target in called}
    calls = Counter(id(modules[target]) for target in called)
    names = {id(module): target for target, module in reversed(modules.items())}
    for fake in quantizer.scales.values():
        fake.calls = calls[id(fake)]
    return prepared, {scale: names[id(fake)] for scale, fake in quantizer.scales.items()}


@cache
def quantizer_class() -> type[Any]:
    """The class of PT2E quantizers; made at first use, as torchao is optional."""
    require("torchao.quantization.pt2e", extra=EXTRA)
    import torch
    from torchao.quantization.pt2e.quantizer import (
        QuantizationAnnotation,
        QuantizationSpec,
        Quantizer,
        SharedQuantizationSpec,
    )

    class TensorRTQuantizer(Quantizer):  # type: ignore[misc] # no types
        """Annotates exactly the edges it is given.

        Attributes:
            scales: the fake quantizer of each scale, once torchao has made them.
        """

        def __init__(
            self, activations: Sequence[ActivationEdge], weights: Sequence[WeightEdge]
        ) -> None:
            super().__init__()
            self._activations, self._weights = activations, weights
            self.scales: dict[str, Any] = {}

        def transform_for_annotation(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            """Layers that differ between training and evaluation become modules again.

            BatchNorm stays behind its layer and is folded at export: a scale per output channel
            moves freely between a weight and what follows, ``Q(s w) = s Q(w)`` when each channel
            is quantized by its own largest magnitude. So training sees the folded layer's codes,
            with none of the divisions by gamma that folding in the graph needs.
            """
            restore_modes(model)
            return model

        def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            nodes = {node.name: node for node in model.graph.nodes}
            first: dict[str, tuple[torch.fx.Node, torch.fx.Node]] = {}
            for edge in self._activations:
                pair = (nodes[edge.argument], nodes[edge.reader])
                root = first.setdefault(edge.scale, pair)
                _annotate(
                    pair, _activation_spec() if root == pair else SharedQuantizationSpec(root)
                )
            for weight in self._weights:
                _annotate((nodes[weight.argument], nodes[weight.reader]), _weight_spec(weight))
            self._first = first
            return model

        def validate(self, model: torch.fx.GraphModule) -> None:
            """Nothing to check: placement has."""

        def prepare_obs_or_fq_callback(
            self, model: torch.fx.GraphModule, edge_or_node_to_obs_or_fq: dict[Any, Any]
        ) -> None:
            """Note which fake quantizer torchao made for which scale."""
            self.scales = {
                scale: edge_or_node_to_obs_or_fq[pair] for scale, pair in self._first.items()
            }

    def _annotate(pair: tuple[torch.fx.Node, torch.fx.Node], spec: Any) -> None:
        argument, reader = pair
        annotation = reader.meta.setdefault(
            "quantization_annotation",
            # Which edges share a scale is placement's business, not torchao's.
            QuantizationAnnotation(allow_implicit_sharing=False, _annotated=True),
        )
        annotation.input_qspec_map[argument] = spec

    def _activation_spec() -> Any:
        return QuantizationSpec(
            dtype=torch.int8,
            observer_or_fake_quant_ctr=activation_quantizer().with_args(),
            qscheme=torch.per_tensor_symmetric,
        )

    def _weight_spec(weight: WeightEdge) -> Any:
        whole = weight.axis is None
        return QuantizationSpec(
            dtype=torch.int8,
            observer_or_fake_quant_ctr=weight_quantizer().with_args(
                axis=weight.axis, pairs=weight.pairs
            ),
            qscheme=torch.per_tensor_symmetric if whole else torch.per_channel_symmetric,
        )

    return TensorRTQuantizer


def restore_modes(network: torch.fx.GraphModule) -> None:
    """Replace BatchNorm and dropout operators by modules that ``train()`` switches, in place."""
    import torch

    aten = torch.ops.aten
    dropouts = {
        aten.dropout.default: torch.nn.Dropout,
        aten.feature_dropout.default: torch.nn.Dropout2d,
        aten.alpha_dropout.default: torch.nn.AlphaDropout,
    }
    for node in list(network.graph.find_nodes(op="call_function", target=aten.batch_norm.default)):
        if node.args[3] is not None:  # without running statistics there is but one mode
            momentum, epsilon = node.args[6:8]
            _call_module(network, node, batch_norm()(momentum, epsilon), 5)
    for target, module in dropouts.items():
        for node in list(network.graph.find_nodes(op="call_function", target=target)):
            _call_module(network, node, module(node.args[1]), 1)
    network.recompile()


def _call_module(
    network: torch.fx.GraphModule, node: torch.fx.Node, module: torch.nn.Module, inputs: int
) -> None:
    """Let ``module`` do what ``node`` did, with the first ``inputs`` of its arguments."""
    name = f"{node.name}_layer"
    network.add_submodule(name, module)
    node.op, node.target, node.args = "call_module", name, node.args[:inputs]
