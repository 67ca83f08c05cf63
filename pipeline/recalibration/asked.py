"""What one recalibration is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from artefacts.errors import InputError

__all__ = ["Asked"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One recalibration.

    Attributes:
        engine: to be recalibrated; it stays as it is.
        statistics: of production, ``*.stats.npz``.
        calib_data: samples of production, e.g. what a recorder kept.
        replace: leave the data out that the engine was calibrated with.
        eval_data: labelled samples to compare both engines on.
        task: what their labels mean; None for classification.
        output: the new engine; None for a name beside the old one.
        force: whether ``output`` may be replaced.
    """

    engine: Path
    statistics: Path | None = None
    calib_data: Path | None = None
    replace: bool = False
    eval_data: Path | None = None
    task: Path | None = None
    output: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse to recalibrate with nothing."""
        if self.statistics is None and self.calib_data is None:
            raise InputError(
                f"recalibration of {self.engine} has no new data, expected --calib-data with the "
                "folder that a recorder filled, or --statistics with a *.stats.npz of production; "
                "give one"
            )
        if self.task is not None and self.eval_data is None:
            raise InputError(
                f"--task {self.task} without --eval-data, expected labelled samples that it is "
                "about; give them or drop the flag"
            )

    @property
    def how(self) -> str:
        """For the manifest."""
        return "replaced" if self.replace else "merged"

    @property
    def source(self) -> str:
        """Where the new data lies."""
        return str(self.statistics if self.statistics is not None else self.calib_data)
