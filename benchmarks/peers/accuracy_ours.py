"""Our Q/DQ model of an ONNX file: ``python -m benchmarks.peers.accuracy_ours SYSTEM MODEL …``.

In a process of its own, as the peers are, so that what it costs is measured like theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

import quantization
from benchmarks.peers.accuracy_systems import read_feeds, tool_parser
from benchmarks.peers.cpu_engines import our_int8
from calibrators import Sample

__all__ = ["OURS", "make_ours"]

OURS = ("ours", "ours-thorough", "ours-calibrated", "ours-unsigned", "ours-cpu")
_EFFORTS: Mapping[str, str | int] = {
    "ours": "default",
    "ours-thorough": "thorough",
    "ours-calibrated": 0,
}


def make_ours(model: onnx.ModelProto, samples: Sequence[Sample], system: str) -> onnx.ModelProto:
    """A graph for TensorRT: the command's default, with ``--improve thorough``, or with 0.

    Or one for CPUs: with ``--cpu-unsigned`` and fitted to all samples, or the default here.
    """
    if system == "ours-cpu":
        return our_int8(model, samples)
    if system == "ours-unsigned":
        return our_int8(model, samples, unsigned=True, effort=len(samples))
    return our_int8(model, samples, profile="tensorrt", portable=False, effort=_EFFORTS[system])


def main() -> None:
    """Quantize and save."""
    arguments = tool_parser(__doc__, choices=OURS).parse_args()
    model = quantization.prepare(quantization.load_model(arguments.model))
    feeds = read_feeds(arguments.samples, arguments.model)
    samples = [Sample(inputs=feed, name=str(number)) for number, feed in enumerate(feeds)]
    onnx.save(make_ours(model, samples, arguments.system), arguments.output)


if __name__ == "__main__":
    main()
