"""A network that was improved: everything that INT8 is made of, beside a placement."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from calibrators.ranges.ranges import Ranges
from graphs.amend import add_bias
from graphs.identity import graph_hash
from quantization.improve.methods import NOTHING, Methods
from quantization.placement import Placement
from quantization.write.insert import QuantizedTensor, insert_qdq

__all__ = ["Improved", "as_calibrated"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Improved:
    """A prepared graph and everything ``insert_qdq`` needs beside a placement.

    Attributes:
        model: the graph with scaled channels, moved activations and corrected biases; node and
            tensor names are as before, so the placement still fits.
        ranges: of that graph.
        weights: constant → its codes and scale; constants that are missing are rounded to
            nearest.
        methods: what was done.
        released: node → what its bias gains where the layer stays in float after all: its bias
            was corrected for the errors of its INT8 weight.
        floating: the same of layers that were never INT8, whose bias makes up for the errors of
            those before: where no layer is left in INT8, nothing is to be made up for.
        elsewhere: constant → itself, of those that have no data in ``model``: their codes are in
            ``weights``, and a variant that is only tried needs no more.
    """

    model: onnx.ModelProto
    ranges: Ranges
    weights: Mapping[str, QuantizedTensor]
    methods: Methods
    released: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    floating: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    elsewhere: Mapping[str, onnx.TensorProto] = field(default_factory=dict)

    def whole(self) -> Improved:
        """The same with all data in its model, which is filled in."""
        if not self.elsewhere:
            return self
        for tensor in self.model.graph.initializer:
            if tensor.name in self.elsewhere:
                tensor.CopyFrom(self.elsewhere[tensor.name])
        return dataclasses.replace(
            self,
            ranges=dataclasses.replace(self.ranges, graph_hash=graph_hash(self.model)),
            elsewhere={},
        )

    def quantized(
        self,
        placement: Placement,
        *,
        weights: Literal["int8", "float"] = "int8",
    ) -> onnx.ModelProto:
        """The INT8 model.

        Args:
            placement: the one that was improved, or one that leaves more layers in float.
            weights: how weights are stored, see ``insert_qdq``.
        """
        fitting = self.leaving(placement)
        return insert_qdq(
            fitting.model,
            placement,
            fitting.ranges,
            weights=weights,
            weight_overrides=fitting.weights,
        )

    def leaving(self, placement: Placement) -> Improved:
        """The same for a placement that leaves more layers in float."""
        kept = {weight.node for weight in placement.weights}
        left = {name: shift for name, shift in self.released.items() if name not in kept}
        left |= {} if placement.activations else self.floating
        tensors = {weight.tensor for weight in placement.weights}
        weights = {name: value for name, value in self.weights.items() if name in tensors}
        if not left:
            return dataclasses.replace(self, weights=weights)
        model = add_bias(self.model, left)
        return dataclasses.replace(
            self,
            model=model,
            ranges=dataclasses.replace(self.ranges, graph_hash=graph_hash(model)),
            weights=weights,
            released={name: self.released[name] for name in self.released.keys() - left.keys()},
            floating=self.floating if placement.activations else {},
        )


def as_calibrated(model: onnx.ModelProto, ranges: Ranges) -> Improved:
    """A network with nothing done to it: INT8 as calibration alone gives it."""
    return Improved(model=model, ranges=ranges, weights={}, methods=NOTHING)
