"""``python -m benchmarks.zoo run`` measures networks; ``table`` writes the results into a page."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from artefacts.files import write_atomic
from artefacts.litter import job_lock
from benchmarks.peers.cpu_engines import cpu
from benchmarks.report.results import insert_results
from benchmarks.zoo.campaign import ROOT, Campaign
from benchmarks.zoo.networks import NETWORKS
from benchmarks.zoo.page import render_zoo

STORED = ROOT / "benchmarks/results/zoo/networks.json"
PAGE = ROOT / "docs/models.md"
LIBRARIES = ("onnxruntime", "openvino", "tensorrt_rtx")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 1 where a network ended with a fault of the tool."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "table":
        document = json.loads(STORED.read_text(encoding="utf-8"))
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(insert_results(page, render_zoo(document)), encoding="utf-8")
        return 0
    return _run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure; results of other networks stay")
    run.add_argument("names", nargs="*", metavar="NAME", help="networks; default all")
    run.add_argument("--missing", action="store_true", help="only those without a result")
    run.add_argument("--peers", action="store_true", help="only what other tools make of them")
    run.add_argument("--cache", type=Path, default=Path.home() / ".cache/int8-zoo")
    run.add_argument("--work", type=Path, default=ROOT / "build/zoo")
    run.add_argument("--limit-s", type=float, default=300.0, help="processor seconds of one step")
    run.add_argument("--limit-gb", type=float, default=8.0, help="memory of one step")
    commands.add_parser("table", help="the stored results into docs/models.md")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    results = _stored()
    wrong = sorted(set(arguments.names) - set(NETWORKS))
    if wrong:
        print(f"no network {', '.join(wrong)}, expected of {', '.join(NETWORKS)}", file=sys.stderr)
        return 2
    campaign = Campaign(
        cache=arguments.cache.resolve(),
        work=arguments.work.resolve(),
        limit_s=arguments.limit_s,
        limit_bytes=int(arguments.limit_gb * 1e9),
    )
    broken = 0
    for name in arguments.names or NETWORKS:
        known = results.get(name, {})
        if arguments.missing and known:
            continue
        if arguments.peers and not (known.get("trained") or "peers" in known):
            continue
        network = NETWORKS[name]
        if arguments.peers:
            found = known | {"peers": campaign.peers(network)}
        else:
            found = campaign.run(network)
        broken += any(one["outcome"] == "broken" for one in found.get("targets", {}).values())
        print(_line(found), flush=True)
        _keep(found)
    return int(broken > 0)


def _line(found: dict[str, Any]) -> str:
    parts = [found["name"], found.get("missing", "")]
    for target, one in found.get("targets", {}).items():
        levels = [one.get(side, {}).get("sqnr_db") for side in ("graph", "engine")]
        shown = f"{target}: {one['outcome']} {levels} {one['seconds']} s {one['peak_mb']} MB"
        parts.append(
            f"{shown} {one.get('said_share')} {one.get('run_share')} {one['reason'][:200]}"
        )
    for name, peer in found.get("peers", {}).items():
        parts.append(f"{name}: {peer['outcome']} {peer.get('sqnr_db')} {peer.get('int8_share')}")
    return "\n    ".join(part for part in parts if part)


def _stored() -> dict[str, Any]:
    stored = json.loads(STORED.read_text(encoding="utf-8")) if STORED.is_file() else {}
    return {one["name"]: one for one in stored.get("networks", ())}


def _keep(found: dict[str, Any]) -> None:
    """Put a network's result beside those of all runs, also of one that ends in this moment."""
    STORED.parent.mkdir(parents=True, exist_ok=True)
    with job_lock(STORED, lambda: None):
        _store(_stored() | {found["name"]: found})


def _store(results: dict[str, Any]) -> None:
    document = {
        "environment": {
            "processor": cpu(),
            **{name: f"{name} {version(name)}" for name in LIBRARIES},
        },
        "networks": [results[name] for name in NETWORKS if name in results],
    }
    text = json.dumps(document, indent=1, ensure_ascii=False)
    write_atomic(STORED, f"{text}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
