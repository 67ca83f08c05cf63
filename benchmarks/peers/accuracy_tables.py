"""The tables of ``make bench-accuracy``, as Markdown, and what they say in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.peers.engine_verdicts import decibels, of_engine

__all__ = [
    "Results",
    "engine_table",
    "engine_verdicts",
    "strong_verdicts",
    "summary",
    "table",
    "verdicts",
]

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Network → system → figures."""
CONTROLLED = "nncf-control"  # gives layers up: no whole INT8 model
STRONG = ("quark", "aimet")  # gradient descent, or a search, in every layer
LEAST_GAIN_DB, MOST_TIME = 1.0, 0.1  # of ours over each of those, and of its processor seconds
OURS, PEERS = "ours-cpu", ("nncf-default", "nncf-overflow")  # whose engines are compared


def summary(results: Results) -> list[str]:
    """Systems down, networks across: SQNR in dB / drop in points; processor seconds; peak MB."""
    systems = dict.fromkeys(name for found in results.values() for name in found)
    lines = [f"| dB / drop; s; MB | {' | '.join(results)} |", f"|---{'|--:' * len(results)}|"]
    for system in systems:
        cells = [_cell(found, system) for found in results.values()]
        lines.append(f"| {system} | {' | '.join(cells)} |")
    return lines


def _cell(systems: Mapping[str, Mapping[str, Any]], system: str) -> str:
    found = systems.get(system)
    if found is None:
        return "not run"
    cost = f"{found['processor_s']:.0f} s; {found['peak_mb']:.0f} MB" if "peak_mb" in found else ""
    if "failure" in found:
        return f"failed: {found['failure']}; {cost}"
    if system == "fp32":
        return f"{100 * found['value']:.2f} %"
    drop = 100 * (systems["fp32"]["value"] - found["value"])
    return f"{decibels(found['sqnr_db'])} / {drop:+.2f}; {cost}"


def _measured(systems: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {system: found for system, found in systems.items() if "failure" not in found}


def strong_verdicts(results: Results) -> list[str]:
    """Ours against each of the strong methods, in accuracy and in time; one line each."""
    lines = []
    for name, systems in results.items():
        found = _measured(systems)
        for system in found:
            if "ours" not in found or system.partition("-")[0] not in STRONG:
                continue
            gain = found["ours"]["sqnr_db"] - found[system]["sqnr_db"]
            share = found["ours"]["processor_s"] / found[system]["processor_s"]
            kept = gain >= LEAST_GAIN_DB and share <= MOST_TIME
            lines.append(
                f"{name}: {gain:+.2f} dB over {system} in {share:.2f} of its processor seconds, "
                f"expected {LEAST_GAIN_DB:+g} dB in {MOST_TIME:g}: {'kept' if kept else 'MISSED'}"
            )
    return lines


def table(results: Results) -> list[str]:
    """Every graph as it is written."""
    lines = [
        "| network | system | SQNR dB | agreement % | accuracy % | drop, points | layers in INT8 % "
        "| TensorRT |",
        "|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for name, systems in results.items():
        measured = _measured(systems)
        plain = systems["fp32"]["value"]
        for system, found in measured.items():
            sqnr, same = found.get("sqnr_db"), found.get("agreement")
            lines.append(
                f"| {name} | {system} | {'' if sqnr is None else f'{sqnr:.2f}'} "
                f"| {'' if same is None else f'{100 * same:.1f}'} | {100 * found['value']:.2f} "
                f"| {100 * (plain - found['value']):+.2f} | {100 * found['int8_share']:.0f} "
                f"| {'yes' if found['accepted'] else 'no: unsigned codes'} |"
            )
    return lines


def engine_table(results: Results) -> list[str]:
    """Graphs beside what OpenVINO makes of them on the CPU that each row names."""
    lines = [
        "| network | system | graph SQNR dB | engine SQNR dB | graph drop, points "
        "| engine drop, points | CPU |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    for name, systems in results.items():
        measured = _measured(systems)
        plain = systems["fp32"]["value"]
        for system, found in measured.items():
            if engine := found.get("engine"):
                lines.append(
                    f"| {name} | {system} | {decibels(found['sqnr_db'])} "
                    f"| {decibels(engine['sqnr_db'])} | {100 * (plain - found['value']):+.2f} "
                    f"| {100 * (plain - engine['value']):+.2f} | {engine['cpu']} |"
                )
    return lines


def verdicts(results: Results) -> list[str]:
    """Ours against the best peer that TensorRT takes, network by network."""
    lines = []
    for name, systems in results.items():
        peers = {
            system: found
            for system, found in _measured(systems).items()
            if system != "fp32" and not system.startswith("ours") and system != CONTROLLED
        }
        peers = {system: found for system, found in peers.items() if found["accepted"]}
        if "ours" in systems and peers:
            best = max(peers, key=lambda system: peers[system]["sqnr_db"])
            gain = systems["ours"]["sqnr_db"] - peers[best]["sqnr_db"]
            lines.append(f"{name}: {gain:+.2f} dB over the best accepted peer, {best}")
    return lines


def engine_verdicts(results: Results, cpu: str) -> list[str]:
    """Our engine against its graph and NNCF's engines, of those measured on ``cpu``."""
    lines = []
    for name, systems in results.items():
        levels = {
            system: found["engine"]["sqnr_db"]
            for system, found in systems.items()
            if found.get("engine", {}).get("cpu") == cpu
        }
        if OURS in levels:
            peers = {peer: levels[peer] for peer in PEERS if peer in levels}
            lines += of_engine(name, systems[OURS]["sqnr_db"], levels[OURS], peers)
    return lines
