"""AIMET's INT8 model of an ONNX file: ``python aimet_quantize.py SYSTEM MODEL SAMPLES OUT``.

Runs under AIMET's own environment, so it imports nothing of the project but the script beside it.
BatchNormalization is folded, codes are signed and symmetric, weights per channel. Other constants
and a softmax that ends the model stay in float: AIMET would clip a division by 64 to one by 0.64,
and TensorRT refuses the unsigned codes that it gives a normalization. Ranges are those
with the best SQNR (``tf_enhanced``); SeqMSE takes min-max only. AdaRound has batches of 32 where
the model takes them, and as many steps a layer as Quark's default, or AIMET's own: ten times those.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import aimet_onnx
import numpy as np
import onnx
from accuracy_systems import Feeds, ending_softmax, read_feeds, tool_parser, with_opset
from aimet_onnx.batch_norm_fold import fold_all_batch_norms_to_weight

BATCH = 32
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
STEPS = {"adaround": 1_000, "adaround10k": 10_000}
PER_CHANNEL = "common/quantsim_config/default_config_per_channel.json"


def symmetric_rules() -> dict[str, Any]:
    """AIMET's rules with weights per channel, and activations symmetric, too."""
    path = Path(aimet_onnx.__file__).parent / PER_CHANNEL
    rules: dict[str, Any] = json.loads(path.read_text())
    rules["defaults"]["ops"]["is_symmetric"] = "True"
    return rules


def batches(feeds: Feeds, size: int) -> Feeds:
    """Several samples at a time; what is left over is a batch, too."""
    return [
        {name: np.concatenate([feed[name] for feed in some]) for name in some[0]}
        for some in (feeds[start : start + size] for start in range(0, len(feeds), size))
    ]


def quantize(model: onnx.ModelProto, feeds: Feeds, method: str) -> onnx.ModelProto:
    """The Q/DQ graph by SeqMSE or AdaRound."""
    fold_all_batch_norms_to_weight(model)
    weights = {
        name for node in model.graph.node if node.op_type in WEIGHTED for name in node.input[1:2]
    }
    constants = {tensor.name for tensor in model.graph.initializer} - weights
    ending = {name for node in ending_softmax(model) for name in node.output}
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "rules.json"
        rules.write_text(json.dumps(symmetric_rules()))
        sim = aimet_onnx.QuantizationSimModel(
            model,
            param_type="int8",
            activation_type="int8",
            quant_scheme="min_max" if method == "seqmse" else "tf_enhanced",
            config_file=str(rules),
        )
    for name, quantizer in sim.qc_quantize_op_dict.items():
        if name in ending | constants:
            quantizer.enabled = False
    if method == "seqmse":
        aimet_onnx.apply_seq_mse(sim, feeds)
    elif method in STEPS:
        aimet_onnx.apply_adaround(sim, feeds, num_iterations=STEPS[method])
    sim.compute_encodings(feeds)
    written: onnx.ModelProto = sim.to_onnx_qdq(
        prequantize_constants=True, force_activation_as="signed"
    )
    return written


def main() -> None:
    """Quantize and save."""
    systems = "aimet-seqmse, aimet-adaround or aimet-adaround10k"
    arguments = tool_parser(__doc__, help=systems).parse_args()
    model = with_opset(onnx.load(arguments.model), 17)
    first = model.graph.input[0].type.tensor_type.shape.dim[0]
    feeds = read_feeds(arguments.samples, arguments.model)
    grouped = batches(feeds, 1 if first.HasField("dim_value") else BATCH)
    onnx.save(quantize(model, grouped, arguments.system.partition("-")[2]), arguments.output)


if __name__ == "__main__":
    main()
