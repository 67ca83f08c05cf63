"""The tables of ``make bench-accuracy``, as Markdown, and what they say in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.peers.engine_verdicts import decibels, of_engine

__all__ = ["Results", "engine_table", "engine_verdicts", "table", "verdicts"]

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Network → system → figures."""
CONTROLLED = "nncf-control"  # gives layers up: no whole INT8 model
OURS, PEERS = "ours-cpu", ("nncf-default", "nncf-overflow")  # whose engines are compared


def table(results: Results) -> list[str]:
    """Every graph as it is written."""
    lines = [
        "| network | system | SQNR dB | agreement % | accuracy % | drop, points | layers in INT8 % "
        "| TensorRT |",
        "|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for name, systems in results.items():
        plain = systems["fp32"]["value"]
        for system, found in systems.items():
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
        plain = systems["fp32"]["value"]
        for system, found in systems.items():
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
            for system, found in systems.items()
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
