"""The tables of a report, once for every rendering."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.accuracy import AccuracyResult
from benchmarks.latency import Figure
from benchmarks.report.document import Comparison, Report, SystemReport
from benchmarks.report.tables import Rows, format_score, three_digits
from benchmarks.report.timings import side_by_side

__all__ = ["NOISE", "TIMES", "Section", "sections", "times_section"]

NONE = "–"
TIMES, NOISE = "Where the time goes", "Signal to noise"  # first words of titles


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, what to know before reading the table, and the table.

    Attributes:
        title: of the section.
        text: one or two sentences.
        rows: header row first; empty for none.
    """

    title: str
    text: str
    rows: Rows


def sections(report: Report) -> tuple[Section, ...]:
    """Every section that the report has something for, in reading order."""
    found = (
        _latency(report),
        _device(report),
        _settings(report),
        _accuracy(report),
        _agreement(report),
        _scenarios(report),
        _sweeps(report),
        _energy(report),
        _memory(report),
        _layers(report),
        *(
            times_section(report, c.candidate)
            for c in report.comparisons
            if not _explained(report, c)
        ),
        *map(_tensors, report.systems),
        _gate(report),
    )
    return tuple(section for section in found if len(section.rows) > 1)


def _latency(report: Report) -> Section:
    names = ("p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms", "mean_ms")
    header = ["system", *(name.replace("_", " ") for name in names), "samples"]
    return Section(
        title="Latency on the host, end to end",
        text=(
            f"From the call to its return, batch {report.batch}: what a caller waits, copies to "
            "and from a device included. 95 % bootstrap intervals over "
            f"{len(report.systems[0].latency.rounds_ms)} rounds; nothing is clipped. The harness "
            f"itself costs {report.overhead_us:.2f} µs a query, which is in every figure."
        ),
        rows=[
            header,
            *(
                [
                    system.name,
                    *(_with_interval(system.latency.figures[name]) for name in names),
                    f"{system.latency.samples_ms.size:,}",
                ]
                for system in report.systems
            ),
        ],
    )


def _device(report: Report) -> Section:
    names = ("h2d_ms", "compute_ms", "d2h_ms")
    return Section(
        title="On the device",
        text=(
            "Medians between CUDA events: copy in, kernels, copy out. trtexec calls their sum "
            "latency; queueing is not in it."
        ),
        rows=[
            ["system", "H2D ms", "compute ms", "D2H ms"],
            *(
                [s.name, *(_with_interval(s.device[n]) if n in s.device else NONE for n in names)]
                for s in report.systems
                if s.device
            ),
        ],
    )


def _settings(report: Report) -> Section:
    names = list(dict.fromkeys(name for s in report.systems for name in s.settings))
    gpu = any(s.target.startswith("tensorrt") for s in report.systems)
    flips = (
        " To compare with trtexec: up to 10.16 it includes transfers, launches kernels one by one "
        "and blocks while it waits; from 11.0 its defaults are no transfers, a CUDA graph and "
        "spinning. TF32 is allowed by both unless --noTF32."
    )
    return Section(
        title="Settings",
        text="What makes latencies comparable or not." + (flips if gpu else ""),
        rows=[
            ["system", "target", "precision", *names],
            *(
                [s.name, s.target, s.precision, *(s.settings.get(name, NONE) for name in names)]
                for s in report.systems
            ),
        ],
    )


def _accuracy(report: Report) -> Section:
    found = [(s.name, s.accuracy) for s in report.systems if s.accuracy and s.accuracy.metric]
    names = list(dict.fromkeys(name for _, result in found for name in result.figures))
    drops = {c.candidate: c.accuracy for c in report.comparisons}
    rows = [["system", *names, "drop", "95 % interval", "McNemar p", "verdict"]]
    for system, result in found:
        drop = drops.get(system)
        cells = [_score(result, name) for name in names]
        if drop is None:
            rows.append([system, *cells, "baseline", NONE, NONE, NONE])
            continue
        test = drop.mcnemar
        rows.append(
            [
                system,
                *cells,
                f"{drop.drop:.2f} {drop.unit}",
                f"{drop.interval.low:.2f} to {drop.interval.high:.2f}",
                f"{test.p_value:.2g} ({test.only_first} : {test.only_second})" if test else NONE,
                drop.verdict,
            ]
        )
    return Section(
        title="Accuracy",
        text=(
            f"On {report.data}. Drops are paired: both systems answered the same samples. "
            "McNemar's exact test counts the samples that only one of the two got right."
        ),
        rows=rows,
    )


def _score(result: AccuracyResult, name: str) -> str:
    """A figure in percent where it is a share."""
    if name not in result.figures:
        return NONE
    value = result.figures[name]
    return format_score(value) if result.unit == "share" else f"{value:.4g}"


def _agreement(report: Report) -> Section:
    rows = [["system", "output", "SQNR dB", "cosine", "largest error", "same top-1"]]
    for system in report.systems:
        agreement = system.accuracy.agreement if system.accuracy else None
        if agreement is None:
            continue
        same = NONE if agreement.top1 is None else format_score(agreement.top1)
        if not agreement.outputs:
            rows.append([system.name, *[NONE] * 4, same])
        for name, output in agreement.outputs.items():
            rows.append(
                [
                    system.name,
                    name,
                    "equal" if output.sqnr_db is None else f"{output.sqnr_db:.1f}",
                    f"{output.cosine:.6f}",
                    f"{output.max_abs_error:.4g}",
                    same,
                ]
            )
    return Section(
        title=f"Likeness to {report.systems[0].name}",
        text="Outputs compared without labels: signal to quantization noise, cosine, same class.",
        rows=rows,
    )


def _scenarios(report: Report) -> Section:
    header = ["system", "scenario", "p50 ms", "p90 ms", "p99 ms", "images/s", "load", "LoadGen"]
    rows = [header]
    for result in report.scenarios:
        load = NONE
        if result.rate_per_s is not None:
            load = f"{result.rate_per_s:,.0f}/s, p99 ≤ {result.bound_ms:g} ms"
        rows.append(
            [
                result.system,
                result.scenario,
                *(three_digits(result.figures[f"p{p}_ms"]) for p in (50, 90, 99)),
                f"{result.figures['throughput_per_s']:,.0f}",
                load,
                "valid" if result.valid else "not valid: " + "; ".join(result.reasons),
            ]
        )
    return Section(
        title="Load scenarios",
        text=(
            "Driven and judged by MLPerf LoadGen. Runs are shorter than MLPerf's 600 s and are no "
            "MLPerf results. Server: queries arrive at random, latency counts from the arrival."
        ),
        rows=rows,
    )


def _sweeps(report: Report) -> Section:
    return Section(
        title="Throughput against batch and threads",
        text="Systems side by side at each size. With several threads trust throughput.",
        rows=[
            ["system", "varied", "size", "p50 ms", "p99 ms", "images/s"],
            *(
                [
                    point.system,
                    point.kind,
                    str(point.size),
                    three_digits(point.p50_ms),
                    three_digits(point.p99_ms),
                    _rate(point.throughput_per_s) + ("" if point.stable else " unstable"),
                ]
                for point in report.sweeps
            ),
        ],
    )


def _energy(report: Report) -> Section:
    found = [(s.name, s.energy) for s in report.systems if s.energy]
    return Section(
        title="Energy",
        text=(
            f"Read from {found[0][1].meter}; idle power is measured before the run and subtracted."
            if found
            else ""
        ),
        rows=[
            ["system", "mJ per image", "with idle, mJ", "mean W", "idle W", "images", "seconds"],
            *(
                [
                    name,
                    three_digits(1e3 * energy.per_image_j),
                    three_digits(1e3 * energy.gross_per_image_j),
                    f"{energy.mean_w:.1f}",
                    f"{energy.idle_w:.1f}",
                    f"{energy.images:,}",
                    f"{energy.seconds:.1f}",
                ]
                for name, energy in found
            ),
        ],
    )


def _memory(report: Report) -> Section:
    return Section(
        title="Memory and cold start",
        text=(
            "Each engine loaded and run once in a fresh process, as a service starts: loading "
            "imports the runtime's library, and the growth of memory includes it."
        ),
        rows=[
            ["system", "file MB", "load ms", "first run ms", "host MB", "growth MB", "device MB"],
            *(
                [
                    s.name,
                    f"{s.size_bytes / 1e6:.2f}",
                    f"{s.memory.load_ms:.0f}",
                    f"{s.memory.first_ms:.1f}",
                    f"{s.memory.host_peak_bytes / 1e6:.0f}",
                    f"{s.memory.host_growth_bytes / 1e6:.0f}",
                    NONE if s.memory.device_bytes is None else f"{s.memory.device_bytes / 1e6:.0f}",
                ]
                for s in report.systems
                if s.memory
            ),
        ],
    )


def _explained(report: Report, comparison: Comparison) -> bool:
    """Whether "Why is it not faster?" shows the times already."""
    return any(entry.candidate == comparison.candidate for entry in report.explanations)


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


def _tensors(system: SystemReport) -> Section:
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


def _layers(report: Report) -> Section:
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


def _gate(report: Report) -> Section:
    return Section(
        title="Limits",
        text="What was demanded with this run.",
        rows=[
            ["limit on", "demanded", "found", "kept"],
            *(
                [check.what, check.limit, check.found, "yes" if check.passed else "no"]
                for check in report.gate
            ),
        ],
    )


def _with_interval(figure: Figure) -> str:
    """E.g. ``1.23 (1.21–1.25)``."""
    if figure.interval is None:
        return three_digits(figure.value)
    low, high = three_digits(figure.interval.low), three_digits(figure.interval.high)
    return f"{three_digits(figure.value)} ({low}–{high})"


def _rate(figure: Figure) -> str:
    """E.g. ``1,234 (1,200–1,260)``."""
    if figure.interval is None:
        return f"{figure.value:,.0f}"
    return f"{figure.value:,.0f} ({figure.interval.low:,.0f}–{figure.interval.high:,.0f})"
