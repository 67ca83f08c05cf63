"""CUDA graphs of the shapes that came last, a bounded number of them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from engines.cuda import Graph

__all__ = ["Captured", "GraphCache", "Shapes"]

Shapes = tuple[tuple[int, ...], ...]
LIMIT = 4  # each keeps activation memory of its own


@dataclass(frozen=True)
class Captured:
    """A graph, and the execution context whose memory and addresses it has baked in."""

    graph: Graph
    context: Any


class GraphCache:
    """Least recently used shapes go first. A shape is captured when it comes twice in a row."""

    def __init__(self) -> None:
        """Start empty and switched on."""
        self.enabled = True
        self._captured: OrderedDict[Shapes, Captured] = OrderedDict()
        self._last: Shapes | None = None

    def get(self, shapes: Shapes) -> Captured | None:
        """The graph of these shapes."""
        found = self._captured.get(shapes)
        if found is not None:
            self._captured.move_to_end(shapes)
        return found

    def worth_capturing(self, shapes: Shapes) -> bool:
        """Whether these shapes came twice in a row and are not captured yet."""
        again, self._last = shapes == self._last, shapes
        return self.enabled and again and shapes not in self._captured

    def add(self, shapes: Shapes, captured: Captured) -> None:
        """Keep a graph; the one used longest ago is destroyed above the limit."""
        self._captured[shapes] = captured
        if len(self._captured) > LIMIT:
            self._captured.popitem(last=False)[1].graph.destroy()

    def drop(self) -> None:
        """Destroy all: an address that they have baked in has changed."""
        while self._captured:
            self._captured.popitem()[1].graph.destroy()

    def __len__(self) -> int:
        return len(self._captured)
