"""INT8 for this CPU as its users make and call it: ours by the command's defaults, NNCF's by its.

An engine's SQNR is that of what OpenVINO computes, beside that of the graph as it is written: on
a CPU without VNNI the two differ by what saturates.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

import calibrators
import engines
import quantization
from calibrators import Sample
from engines.openvino.library import DEVICE, core, cpu_facts, settings
from graphs.macs import network_macs
from graphs.view import GraphView
from quantization.improve.improve import improve
from quantization.improve.methods import EFFORTS
from quantization.measure.execution import Array, Arrays, Run

__all__ = ["compiled_peer", "cpu", "our_engine", "our_int8"]


def cpu() -> str:
    """This CPU by name, and the INT8 arithmetic that OpenVINO has on it."""
    return f"{cpu_facts()['name']}, cpu_isa {engines.cpu_isa()}"


def our_int8(
    model: onnx.ModelProto,
    samples: Sequence[Sample],
    *,
    profile: quantization.Profile = "cpu",
    portable: bool | None = None,
    unsigned: bool = False,
    effort: str | int = "default",
) -> onnx.ModelProto:
    """By default the graph that ``build_engine.py --target cpu`` makes here.

    Args:
        model: prepared.
        samples: all are calibrated on.
        profile: of the placement.
        portable: whether it is right without VNNI; None for what this CPU needs.
        unsigned: as ``--cpu-unsigned``.
        effort: as ``--improve``: a word, or how many of the samples are fitted to; 0 for none.
    """
    if portable is None:
        portable = engines.resolve_cpu_isa("auto") == "portable"
    placement = quantization.place(model, profile=profile, unsigned=unsigned, portable=portable)
    statistics = calibrators.observe(model, placement.tensors, samples)
    ranges = calibrators.compute_ranges(statistics, method="mse")
    if not effort:
        return quantization.insert_qdq(model, placement, ranges)
    most = EFFORTS[effort] if isinstance(effort, str) else EFFORTS["default"]
    macs = network_macs(GraphView(model))
    count = effort if isinstance(effort, int) else most.samples_for(macs)
    improved, _ = improve(
        model,
        placement,
        ranges,
        [sample.inputs for sample in samples[:count]],
        variants=most.variants(macs),
    )
    return improved.quantized(placement)


def our_engine(path: Path, threads: int) -> engines.Engine:
    """An engine of this project beside its ONNX file, loaded again."""
    built = path.with_suffix(".engine")
    engines.build(path, built, engines.BuildOptions(target="cpu", threads=threads))
    return engines.load(built)


def compiled_peer(path: Path, threads: int) -> Run:
    """Another tool's ONNX file, compiled and called as OpenVINO's users do."""
    names = [output.name for output in onnx.load(path, load_external_data=False).graph.output]
    request = core().compile_model(path, DEVICE, settings(threads, "f32")).create_infer_request()

    def run(feeds: Arrays) -> dict[str, Array]:
        found = request.infer(dict(feeds))
        return {name: found[name] for name in names}

    return run
