"""What the choice of calibration samples does to a comparison: ``python -m …accuracy_choices``.

One set of samples is chance, and where two tools are a dB apart it decides which is ahead. Here
every tool gets the same random rows of what there is to calibrate with, several times over.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.peers.accuracy import ROOT, cached, measure
from benchmarks.peers.accuracy_cases import CASES, Case
from benchmarks.peers.cpu_engines import cpu

NETWORKS = ("CIFAR ResNet-20", "ResNet-8", "DS-CNN keywords", "text CNN", "MobileNetV2")
SYSTEMS = ("ours", "modelopt-max", "modelopt-entropy", "quark-adaround", "aimet-adaround")
_SHARE = 0.8  # of the pool at most, or there would be one choice only


def chosen_rows(case: Case, assets: Path, folder: Path, choice: int) -> Path:
    """Random samples of those that are not for evaluation, as tools are handed them.

    Args:
        case: the network.
        assets: where its data lies.
        folder: of the file.
        choice: which; the same number, the same samples.
    """
    model = case.model(assets)
    path, rows = case.calibration
    same = path == case.evaluation[0]
    pool = slice(0, case.evaluation[1].start) if same else slice(0, None)
    everything = replace(case, calibration=(path, pool)).samples(assets, model, "calibration")
    inputs = [next(iter(sample.inputs.values())) for sample in everything]
    count = min(rows.stop - rows.start, int(_SHARE * len(inputs)))
    order = np.random.default_rng(choice).permutation(len(inputs))[:count]
    chosen = folder / f"{case.file}.{choice}.npy"
    np.save(chosen, np.concatenate([inputs[number] for number in order]))
    return chosen


def table(
    results: Mapping[str, Mapping[str, Sequence[float]]], systems: Sequence[str]
) -> list[str]:
    """Systems down, networks across: mean SQNR in dB over the choices (smallest to largest)."""
    lines = [f"| dB, mean (from to) | {' | '.join(results)} |", f"|---{'|--:' * len(results)}|"]
    for system in systems:
        cells = [_cell(found.get(system, ())) for found in results.values()]
        lines.append(f"| {system} | {' | '.join(cells)} |")
    return lines


def _cell(levels: Sequence[float]) -> str:
    if not levels:
        return ""
    return f"{np.mean(levels):.1f} ({min(levels):.1f} to {max(levels):.1f})"


def main() -> None:
    """Measure what is not measured yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, default=ROOT.parent / "shared" / "assets")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/bench-accuracy")
    parser.add_argument("--only", nargs="+", choices=CASES, default=NETWORKS, metavar="NETWORK")
    parser.add_argument("--systems", nargs="+", default=SYSTEMS)
    parser.add_argument("--choices", type=int, default=3)
    parser.add_argument("--limit", type=int, default=3600, help="processor seconds of a tool")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    graphs = folder / "choices"  # those of the comparison itself stay
    graphs.mkdir(parents=True, exist_ok=True)
    levels: dict[str, dict[str, list[float]]] = {}
    for name in arguments.only:
        case, path = CASES[name], folder / f"{CASES[name].file}.choices.json"
        assets = case.home(arguments.assets.resolve(), folder)
        known = cached(path)
        for choice in map(str, range(1, arguments.choices + 1)):
            done = [known["systems"].setdefault(system, {}) for system in arguments.systems]
            if all(choice in found for found in done):
                continue
            rows = chosen_rows(case, assets, graphs, int(choice))
            for system, found in zip(arguments.systems, done, strict=True):
                if choice not in found:
                    made = measure(case, assets, graphs, system, arguments.limit, rows)
                    found[choice] = made.get(system, {})
                    print(f"  {name}: {system}, {choice}: {found[choice]}", file=sys.stderr)
                    path.write_text(json.dumps(known, indent=1))
        levels[name] = {
            system: [one["sqnr_db"] for one in found.values() if "sqnr_db" in one]
            for system, found in known["systems"].items()
        }
    print(cpu())
    print("\n".join(table(levels, arguments.systems)))


if __name__ == "__main__":
    main()
