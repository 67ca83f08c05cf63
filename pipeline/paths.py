"""The model, the engine, and the names of everything that lies beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from artefacts.errors import InputError

__all__ = ["Paths"]

SUFFIXES = (
    ".prepared.onnx",
    ".stats.npz",
    ".ranges.json",
    ".walks.npz",
    ".improved.onnx",
    ".search.json",
    ".recipe.yaml",
    ".pareto.png",
    ".int8.onnx",
    ".portable.onnx",
    ".fp16.onnx",
)


@dataclass(frozen=True, kw_only=True)
class Paths:
    """The model, and the engine with everything beside it.

    Attributes:
        onnx: the model.
        engine: to be written.
        force: whether it may replace another model's.
    """

    onnx: Path
    engine: Path
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse to overwrite the model."""
        taken = [self.engine, *map(self.beside, SUFFIXES)]
        if self.onnx.resolve() in [path.resolve() for path in taken]:
            raise InputError(
                f"--engine {self.engine} would overwrite the model {self.onnx} (artefacts lie "
                "beside the engine), expected another name or folder; change --engine"
            )

    def beside(self, suffix: str) -> Path:
        """An artefact beside the engine, ``out/m.int8.engine`` → ``out/m.ranges.json``.

        The precision is not in the name: one calibration serves engines of every precision.
        """
        stem = self.engine.name
        for ending in (".engine", ".plan", ".int8", ".fp16", ".fp32"):
            stem = stem.removesuffix(ending)
        return self.engine.with_name(stem + suffix)

    def written(self, *, since_s: float) -> list[Path]:
        """The files of this run, in the order of the steps; none that an earlier one left there."""
        paths = [*map(self.beside, SUFFIXES), self.engine, Path(f"{self.engine}.json")]
        return [path for path in paths if path.is_file() and path.stat().st_mtime >= since_s]
