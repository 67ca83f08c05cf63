"""Top-1 and top-5 of classifiers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from artefacts.errors import DataError

__all__ = ["ClassificationScorer"]

Floats = npt.NDArray[np.float64]


class ClassificationScorer:
    """Counts right answers, one sample at a time."""

    metric = "top1"

    def __init__(self) -> None:
        self._top1: list[float] = []
        self._top5: list[float] = []

    def add(self, scores: npt.NDArray[np.generic], label: object, name: str) -> None:
        """Score one sample.

        Args:
            scores: one number per class, e.g. (1000,) or (1, 1000).
            label: the right class, an integer.
            name: of the sample, for errors.

        Raises:
            DataError: no label, or one that the model has no class for.
        """
        flat = np.asarray(scores, dtype=np.float64).reshape(-1)
        right = _class_of(label, flat.size, name)
        # Ties count against the model: a network that answers all zeros knows nothing.
        rank = int(np.sum(flat >= flat[right])) - 1
        finite = bool(np.isfinite(flat[right]))
        self._top1.append(float(finite and rank < 1))
        self._top5.append(float(finite and rank < 5))

    def figures(self) -> dict[str, float]:
        """Shares in [0, 1]."""
        return {"top1": float(np.mean(self._top1)), "top5": float(np.mean(self._top5))}

    def per_sample(self) -> Floats:
        """1.0 where top-1 was right (n,)."""
        return np.array(self._top1)


def _class_of(label: object, classes: int, name: str) -> int:
    """The label as an index that the model has."""
    if label is None:
        raise DataError(
            f"sample {name} has no label, expected a class number; give labelled data, or leave "
            "the task out to compare outputs only"
        )
    try:
        right = int(np.asarray(label).reshape(()))
    except (TypeError, ValueError) as err:
        raise DataError(
            f"sample {name} has label {label!r}, expected one class number; check the labels"
        ) from err
    if not 0 <= right < classes:
        raise DataError(
            f"sample {name} has label {right}, expected 0 to {classes - 1} for a model with "
            f"{classes} classes; check labels and model (is there a background class?)"
        )
    return right
