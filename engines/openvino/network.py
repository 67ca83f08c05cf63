"""An ONNX model as the network that OpenVINO compiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from artefacts.errors import ModelError
from engines.openvino.cpu_isa import cpu_isa
from engines.openvino.library import core, openvino
from engines.openvino.rewrites.branches import await_branches
from engines.openvino.rewrites.channel_constants import separate_channel_constants
from engines.openvino.rewrites.fake_quantize import fuse_qdq
from engines.openvino.rewrites.joined_constants import keep_joined_constants
from engines.openvino.rewrites.layer_bias import add_missing_biases, hide_sizes
from engines.openvino.rewrites.permuted_channels import keep_permutations
from engines.openvino.rewrites.reductions import separate_reductions
from engines.openvino.rewrites.sliced_stems import join_sliced_stems
from engines.openvino.rewrites.strided_points import separate_strides
from engines.openvino.rewrites.swapped_heads import separate_swapped_heads
from engines.openvino.rewrites.unsigned_codes import use_unsigned_codes
from engines.options import BuildOptions
from graphs.tensor_data import weight_bytes
from graphs.walk import nodes, subgraphs

__all__ = ["narrow_shapes", "read_network", "safe_source"]

MOST_BYTES = 1 << 30  # of weights: protobuf writes no message of 2 GiB


def safe_source(path: Path, model: onnx.ModelProto) -> Path | bytes:
    """What to read a model from: its file, or its bytes where the file is read wrong.

    OpenVINO 2026.4.1 reads a file itself, and gives a branch whose body reads an output of the
    network that output for a result (-6 dB); of bytes it makes the right network, in twice the
    memory.
    """
    branches = any(any(subgraphs(node)) for node in nodes(model))
    return model.SerializeToString() if branches and weight_bytes(model) < MOST_BYTES else path


def read_network(source: Path | bytes, options: BuildOptions) -> Any:
    """A network as it is compiled: shapes narrowed, Q/DQ in OpenVINO's own operators.

    Args:
        source: an ONNX file, or its bytes.
        options: the profiles say which sizes there are.

    Raises:
        ModelError: a profile names what is no input.
        RuntimeError: OpenVINO cannot read the model.
    """
    network = core().read_model(source)
    narrow_shapes(network, options)
    fuse_qdq(openvino(), network)
    await_branches(openvino(), network)
    keep_permutations(openvino(), network)
    separate_swapped_heads(openvino(), network)
    separate_channel_constants(openvino(), network)
    join_sliced_stems(openvino(), network)
    separate_reductions(openvino(), network)
    keep_joined_constants(openvino(), network)
    use_unsigned_codes(openvino(), network)
    if cpu_isa() == "portable":
        separate_strides(openvino(), network)
    add_missing_biases(openvino(), network)
    hide_sizes(openvino(), network)
    return network


def narrow_shapes(network: Any, options: BuildOptions) -> None:
    """Narrow dynamic dimensions to what the profiles span: a static shape makes faster code.

    ``network`` was read for this build and belongs to it.
    """
    if not options.profiles:
        return
    known = {name for port in network.inputs for name in port.get_names()}
    bounds: dict[str, Any] = {}
    for name in options.profiles[0].min:
        if name not in known:
            raise ModelError(
                f"profile names input {name!r}, expected one of {sorted(known)}; correct it"
            )
        low = np.min([profile.min[name] for profile in options.profiles], axis=0)
        high = np.max([profile.max[name] for profile in options.profiles], axis=0)
        dims = [openvino().Dimension(int(a), int(b)) for a, b in zip(low, high, strict=True)]
        bounds[name] = openvino().PartialShape(dims)
    network.reshape(bounds)
