"""AMD Quark's INT8 model of an ONNX file: ``python quark_quantize.py SYSTEM MODEL SAMPLES OUT``.

Runs under Quark's own environment, so it imports nothing of the project but the script beside it.
Signed symmetric codes, weights per channel, activations by Quark's default of calibration
(percentile), cross-layer equalization, then AdaRound or AdaQuant with the settings of Quark's own
presets: 1,000 steps a layer, batches of two. A softmax that ends the model stays in float, as
TensorRT's users leave it; Quark's default costs it codes of 1/127.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
from accuracy_systems import Feeds, ending_softmax, read_feeds, tool_parser, with_opset
from onnxruntime.quantization import CalibrationDataReader
from quark.onnx import (
    AdaQuantConfig,
    AdaRoundConfig,
    CLEConfig,
    Int8Spec,
    ModelQuantizer,
    QConfig,
    QLayerConfig,
)
from quark.onnx.quantization.config.spec import CalibMethod, QuantGranularity

PRESET = {"num_iterations": 1000, "batch_size": 2, "data_size": 1000, "early_stop": True}
ALGORITHMS = {
    "cle": [],
    "adaround": [AdaRoundConfig(learning_rate=0.1, **PRESET)],
    "adaquant": [AdaQuantConfig(learning_rate=1e-5, **PRESET)],
}


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Samples as Quark asks for them, again and again."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds
        self._rows: Iterator[dict[str, Any]] = iter(feeds)

    def __len__(self) -> int:
        return len(self._feeds)

    def get_next(self) -> dict[str, Any] | None:
        """The next sample; None behind the last."""
        return next(self._rows, None)

    def reset_iter(self) -> None:
        """Begin again."""
        self._rows = iter(self._feeds)


def main() -> None:
    """Quantize and save."""
    systems = "quark-cle, quark-adaround or quark-adaquant"
    arguments = tool_parser(__doc__, help=systems).parse_args()
    model = with_opset(onnx.load(arguments.model), 17)
    for number, node in enumerate(model.graph.node):  # what stays in float is told by name
        node.name = node.name or f"node_{number}"
    weight = Int8Spec(
        calibration_method=CalibMethod.MinMax, quant_granularity=QuantGranularity.Channel
    )
    config = QConfig(
        global_config=QLayerConfig(activation=Int8Spec(), weight=weight),
        algo_config=[CLEConfig(), *ALGORITHMS[arguments.system.partition("-")[2]]],
        exclude=[node.name for node in ending_softmax(model)],
        QuantizeBias=False,  # TensorRT refuses INT32 biases
    )
    reader = Reader(read_feeds(arguments.samples, arguments.model))
    ModelQuantizer(config).quantize_model(model, str(arguments.output), reader)


if __name__ == "__main__":
    main()
