"""The table of docs/models.md, made from the stored results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report.tables import NONE, to_markdown

__all__ = ["render_zoo"]

Found = Mapping[str, Any]
HEADER = ["network", "does", "target", "INT8 said / run", "graph dB", "engine dB", "CPU s", "MB"]
HEADER.append("notes")
PEERS = {"modelopt-max": "ModelOpt", "onnxruntime-minmax": "onnxruntime", "nncf-default": "NNCF"}
BESIDE = """### Beside other tools

Trained networks: SQNR in dB as above, and the share of the multiply-accumulates whose layers read
INT8 on both sides. Ours is the default build for TensorRT-RTX; ModelOpt with the ranges of its
`max`, onnxruntime with min-max, symmetric and per channel; NNCF with its defaults, unsigned. All
have the same samples.
"""


def render_zoo(document: Found) -> str:
    """A Markdown table: trained networks first, one row for each target, and what it ran on."""
    networks = [one for one in document["networks"] if "targets" in one]
    ordered = sorted(networks, key=lambda one: not one["trained"])
    rows = [HEADER]
    for network in ordered:
        for number, (target, found) in enumerate(network["targets"].items()):
            rows.append([*_names(network, number), target, *_cells(found), _notes(network, found)])
    days = sorted({one["day"] for one in networks})
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    versions = ", ".join(document["environment"].values())
    counts = _counts(networks)
    both = [one for one in ordered if _is_compared(one)]
    beside = to_markdown([["network", "ours", *PEERS.values()], *map(_beside, both)])
    first = f"Ours is the nearest to FP32 on {sum(map(_is_first, both))} of {len(both)}."
    return (
        f"{to_markdown(rows)}\n{counts}\n\n{BESIDE}\n{beside}\n{first}\n\n"
        f"Measured {span}: {versions}.\n"
    )


def _is_compared(network: Found) -> bool:
    built = network["targets"]["tensorrt-rtx"]["outcome"] == "built"
    return bool(network["trained"] and network.get("peers") and built)


def _beside(network: Found) -> list[str]:
    """Ours and what others make of the same network: SQNR, and how much of it is INT8."""
    ours, peers = network["targets"]["tensorrt-rtx"], network["peers"]
    shown = [_level_and_share(ours["graph"], ours["said_share"])]
    for name in PEERS:
        peer = peers.get(name, {"outcome": "not installed"})
        shown.append(
            _level_and_share(peer, peer.get("int8_share")) if _is_judged(peer) else _peer(peer)
        )
    return [network["name"], *shown]


def _is_first(network: Found) -> bool:
    """Whether no other is as near to FP32: by SQNR, or equal answers where integers come out."""
    ours, *others = (
        side["same"] if side["sqnr_db"] is None else side["sqnr_db"]
        for side in (
            network["targets"]["tensorrt-rtx"]["graph"],
            *(peer for peer in network["peers"].values() if _is_judged(peer)),
        )
    )
    return all(ours > other for other in others)


def _is_judged(peer: Found) -> bool:
    return peer["outcome"] == "built" and "error" not in peer


def _level_and_share(side: Found, share: float | None) -> str:
    return f"{_level(side)}, {NONE if share is None else f'{100 * share:.0f} %'}"


def _names(network: Found, number: int) -> list[str]:
    if number:
        return ["", ""]
    weights = "" if network["trained"] else ", random weights"
    return [f"{network['name']} ({network['from']}{weights})", network["kind"]]


def _cells(found: Found) -> list[str]:
    if found["outcome"] not in ("built", "differs"):
        return [found["outcome"], NONE, NONE, _seconds(found), _memory(found)]
    said, run = (found.get(key) for key in ("said_share", "run_share"))
    shares = " / ".join(NONE if share is None else f"{100 * share:.1f} %" for share in (said, run))
    levels = [_level(found.get(side)) for side in ("graph", "engine")]
    return [shares, *levels, _seconds(found), _memory(found)]


def _seconds(found: Found) -> str:
    """Of the processor, where a build ended by itself: the clock also counts what else ran."""
    return f"{found.get('cpu_seconds', found['seconds']):.0f}"


def _memory(found: Found) -> str:
    return f"{found['peak_mb']:,}"


def _level(side: Found | None) -> str:
    """SQNR in decibels; equal answers where integers come out; a dash where nothing compares."""
    if side is None or "error" in side:
        return NONE
    if side["sqnr_db"] is not None:
        return "equal" if side["sqnr_db"] >= 150 else f"{side['sqnr_db']:.1f}"
    return NONE if side["same"] is None else f"{100 * side['same']:.0f} % same"


def _notes(network: Found, found: Found) -> str:
    notes = []
    if found["outcome"] != "built":
        notes.append(found["reason"])
    if found.get("engine_is_graph") is False:
        notes.append("engine and graph differ")
    if found.get("lint_built"):
        notes.append(f"lint: {found['lint_built'][0]}")
    peers = network.get("peers", {})
    if peers and found["outcome"] == "built" and _poor(found):
        notes.append("; ".join(f"{name} {_peer(peer)}" for name, peer in peers.items()))
    return ". ".join(notes).replace("|", "/").replace("\n", " ") or NONE


def _poor(found: Found) -> bool:
    from benchmarks.zoo.campaign import enough

    return not enough(dict(found))


def _peer(peer: Found) -> str:
    if not _is_judged(peer):
        return "fails" if peer["outcome"] != "not installed" else "not installed"
    return f"{_level(peer)} dB"


def _counts(networks: list[Any]) -> str:
    """How it ended, in a sentence."""
    found = [one for network in networks for one in network["targets"].values()]
    kinds = sorted({one["outcome"] for one in found})
    said = ", ".join(f"{sum(one['outcome'] == k for one in found)} {k}" for k in kinds)
    return f"{len(networks)} networks on {len(found) // max(len(networks), 1)} targets: {said}."
