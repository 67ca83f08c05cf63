"""The tables of a report that go into layers: where the time goes, what INT8 does to each."""

from __future__ import annotations

from benchmarks.report.document import Report, SystemReport
from benchmarks.report.tables import NONE, Section
from benchmarks.report.timings import side_by_side

__all__ = ["NOISE", "TIMES", "layers_section", "tensors_section", "times_section"]

READER_ERROR = (
    " Ranges by reader error: of many, the one with the smallest error in the results of the "
    "layers that read the tensor."
)
TIMES, NOISE = "Where the time goes", "Signal to noise"  # first words of titles


def times_section(report: Report, candidate: str) -> Section:
    """Kernels of the baseline and of one other system; no rows where one has no profiler."""
    pair = report.systems[0], report.system(candidate)
    return Section(
        title=f"{TIMES}: {pair[0].name} and {candidate}",
        text=(
            "Medians by the runtimes' profilers, layers that lost the most first. A kernel that "
            "fuses several weighted layers counts for its first. Profilers slow kernels down: "
            "compare the two columns, not their sums with the latency."
        ),
        rows=side_by_side(*pair) if all(system.kernels for system in pair) else [],
    )


def tensors_section(system: SystemReport) -> Section:
    """What INT8 does to each tensor, worst first."""
    tensors = sorted(system.tensors, key=lambda t: (t.sqnr_db is None, t.sqnr_db or 0.0))
    return Section(
        title=f"{NOISE}: {system.name}",
        text=(
            "The Q/DQ graph against the float graph it was made from, on the timed queries, as "
            "ONNX defines Q/DQ. SQNR: signal to quantization noise with all errors that reach a "
            "tensor; own: by rounding and clipping this tensor alone."
        ),
        rows=[
            ["tensor", "made by", "op", "SQNR dB", "own dB"],
            *(
                [
                    tensor.tensor,
                    tensor.node or "input",
                    tensor.op_type,
                    "equal" if tensor.sqnr_db is None else f"{tensor.sqnr_db:.1f}",
                    NONE if tensor.own_sqnr_db is None else f"{tensor.own_sqnr_db:.1f}",
                ]
                for tensor in tensors
            ),
        ],
    )


def layers_section(report: Report) -> Section:
    """Every layer of the systems whose precisions are known, with each system's time."""
    known = [s for s in report.systems if any(x.precision != "unknown" for x in s.layers)]
    timed = [s for s in report.systems if any(x.time_ms is not None for x in s.layers)]
    noisy = [s for s in report.systems if any(x.sqnr_db is not None for x in s.layers)]
    header = ["layer", "op", "MMAC", *(f"{s.name} runs" for s in known)]
    header += [f"{s.name} ms" for s in timed] + [f"{s.name} SQNR dB" for s in noisy]
    header.append("why not INT8")
    return Section(
        title="Layers",
        text=(
            "Weighted layers: the precision that the runtime executes, as the manifests say, and "
            "where a runtime has a profiler its time per layer (profiling slows layers down). SQNR "
            "is that of the layer's output in the Q/DQ graph."
            + READER_ERROR
            * any(entry.method == "reader error" for entry in report.ranges)
        ),
        rows=[
            header,
            *(
                _layer_row(x.name, known, timed, noisy)
                for system in known[-1:]
                for x in system.layers
            ),
        ],
    )


def _layer_row(
    name: str, known: list[SystemReport], timed: list[SystemReport], noisy: list[SystemReport]
) -> list[str]:
    """One layer in all systems."""
    found = [next((x for x in s.layers if x.name == name), None) for s in known]
    times = [next((x.time_ms for x in s.layers if x.name == name), None) for s in timed]
    noise = [next((x.sqnr_db for x in s.layers if x.name == name), None) for s in noisy]
    last = found[-1]
    return [
        name,
        last.op_type if last else NONE,
        f"{last.macs / 1e6:.2f}" if last else NONE,
        *(layer.precision if layer else NONE for layer in found),
        *(NONE if time is None else f"{time:.4f}" for time in times),
        *(NONE if value is None else f"{value:.1f}" for value in noise),
        next((layer.why for layer in found if layer and layer.why), NONE),
    ]
