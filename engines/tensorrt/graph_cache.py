"""CUDA graphs of the shapes that come most, a bounded number of them."""

from __future__ import annotations

from dataclasses import dataclass

from engines.cuda.graphs import Graph
from engines.tensorrt.execution_context import Execution

__all__ = ["Captured", "GraphCache", "Shapes"]

Shapes = tuple[tuple[int, ...], ...]
LIMIT = 4  # each keeps an execution context of its own
SIGHTS = 2  # a shape that comes again is worth a capture
FADING = 64  # sights at which all counts are halved: what came long ago counts less


@dataclass(frozen=True)
class Captured:
    """A graph, and the execution whose addresses it has baked in."""

    graph: Graph
    execution: Execution


class GraphCache:
    """Captures what comes again; replaces a graph only by one of a shape that comes twice as often.

    So shapes that take turns do not push each other out, however many they are.
    """

    def __init__(self) -> None:
        """Start empty and switched on."""
        self.enabled = True
        self._captured: dict[Shapes, Captured] = {}
        self._sights: dict[Shapes, int] = {}

    def get(self, shapes: Shapes) -> Captured | None:
        """The graph of these shapes; counts that they came."""
        self._sights[shapes] = self._sights.get(shapes, 0) + 1
        if self._sights[shapes] >= FADING:
            halved = {key: count // 2 for key, count in self._sights.items()}
            self._sights = {k: n for k, n in halved.items() if n or k in self._captured}
        return self._captured.get(shapes)

    def worth_capturing(self, shapes: Shapes) -> bool:
        """Whether these shapes came often enough and are not captured yet."""
        sights = self._sights.get(shapes, 0)
        if not self.enabled or shapes in self._captured or sights < SIGHTS:
            return False
        return len(self._captured) < LIMIT or sights >= 2 * max(1, self._sights[self._rarest()])

    def add(self, shapes: Shapes, captured: Captured) -> None:
        """Keep a graph; the one of the rarest shape is destroyed above the limit."""
        if len(self._captured) >= LIMIT:
            self._captured.pop(self._rarest()).graph.destroy()
        self._captured[shapes] = captured

    def drop(self) -> None:
        """Destroy all: an address that they have baked in is about to change."""
        while self._captured:
            self._captured.popitem()[1].graph.destroy()

    def __len__(self) -> int:
        return len(self._captured)

    def _rarest(self) -> Shapes:
        return min(self._captured, key=lambda shapes: self._sights.get(shapes, 0))
