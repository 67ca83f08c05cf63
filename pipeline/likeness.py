"""Outputs of an INT8 model beside those of FP32, sample by sample, without labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import calibrators
from artefacts.errors import DataError
from graphs.comparable import chosen_places, chosen_shapes
from graphs.view import GraphView

__all__ = ["Comparison", "Likeness"]

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """One sample.

    Attributes:
        signal: energy of each float output of FP32.
        noise: energy of its error.
        same: share of the answers that are the same, 0 to 1; None without class scores or classes.
    """

    signal: tuple[float, ...]
    noise: tuple[float, ...]
    same: float | None


class Comparison:
    """What of a model's outputs can be compared, and the comparison.

    Args:
        model: the prepared FP32 model.
        flag: the promise, for messages, e.g. "--min-sqnr 25".
        levels: whether the float outputs themselves are compared, not only the answers.

    Raises:
        DataError: the shape or the order of a float output depends on what INT8 changes, or there
            is none.
    """

    def __init__(self, model: onnx.ModelProto, flag: str, *, levels: bool) -> None:
        view = GraphView(model)
        shaped, placed = chosen_shapes(view), chosen_places(view)
        moved = shaped | {name for name in placed if view.is_float(name)}
        fixed = [name for name in view.outputs if name not in moved]
        self._flag = flag
        self._outputs = tuple(view.outputs)
        self._chosen = [name for name in view.outputs if name in moved and view.is_float(name)]
        self._floats, self._classes = (
            tuple(name for name in fixed if view.is_float(name) == wanted)
            for wanted in (True, False)
        )
        if levels and (self._chosen or not self._floats):
            same_shapes = shaped.isdisjoint(self._chosen)
            what, behind = ("order", "TopK") if same_shapes else ("shape", "NMS")
            found = (
                f"the {what} of {', '.join(self._chosen)} depends on the data (as behind {behind})"
                if self._chosen
                else f"{', '.join(view.outputs)} hold no floats"
            )
            raise DataError(
                f"{flag} with a model whose outputs cannot be compared value by value ({found}), "
                "expected float outputs of a fixed shape and order; use --max-drop with labels and "
                "a --task, or give the model without the last step"
            )

    def rows(self, batch: calibrators.Batch, exact: Arrays, found: Arrays) -> Iterator[Likeness]:
        """Each sample of a batch; the padding of a fixed batch is left out."""
        alone = len(batch.samples) == 1 and not batch.padding
        for row in range(len(batch.samples)):
            part: Any = ... if alone else slice(row, row + 1)
            pairs = [
                (exact[name][part].astype(np.float64), found[name][part].astype(np.float64))
                for name in self._floats
            ]
            yield Likeness(
                signal=tuple(float((y**2).sum()) for y, _ in pairs),
                noise=tuple(float(((y - x) ** 2).sum()) for y, x in pairs),
                same=self._same(pairs, exact, found, part),
            )

    def _same(
        self,
        pairs: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
        exact: Arrays,
        found: Arrays,
        part: Any,
    ) -> float | None:
        """By the first class scores, (N, classes), else by the first classes, e.g. (N, H, W)."""
        for y, x in pairs:
            if y.ndim == 2 and y.shape[1] > 1:
                return float((y.argmax(axis=1) == x.argmax(axis=1)).all())
        for name in self._classes:
            return float((exact[name][part] == found[name][part]).mean())
        return None

    def require_answers(self, found: Likeness) -> float:
        """The share of equal answers.

        Raises:
            DataError: the model has no class scores and no classes.
        """
        if found.same is None:
            raise DataError(
                f"{self._flag} with a model whose outputs {', '.join(self._outputs)} hold no "
                "scores of classes, expected one of shape (N, classes); use --max-drop with labels"
                f"{'' if self._chosen else ', or --min-sqnr'}"
            )
        return found.same
