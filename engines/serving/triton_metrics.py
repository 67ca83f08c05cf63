"""Families of metrics shown by Triton's own endpoint, through its Python backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from engines.serving.metrics import Family

__all__ = ["TritonMetrics"]


class TritonMetrics:
    """Keeps Triton's metrics at the values of ours.

    Args:
        backend: the module ``triton_python_backend_utils``.
        labels: that every metric carries, e.g. the model's name.
    """

    def __init__(self, backend: Any, labels: Mapping[str, str]) -> None:
        self._kinds = backend.MetricFamily
        self._labels = labels
        self._families: dict[str, Any] = {}
        self._metrics: dict[tuple[str, ...], Any] = {}

    def update(self, families: Iterable[Family]) -> None:
        """Set gauges, and move counters by what they have grown."""
        for family in families:
            for labels, value in family.samples:
                metric = self._metric(family, labels)
                if family.kind == "gauge":
                    metric.set(value)
                else:
                    metric.increment(value - metric.value())

    def _metric(self, family: Family, labels: Mapping[str, str]) -> Any:
        key = (family.name, *labels.values())
        if key not in self._metrics:
            known = self._families.get(family.name) or self._new(family)
            self._metrics[key] = known.Metric(labels={**self._labels, **labels})
        return self._metrics[key]

    def _new(self, family: Family) -> Any:
        kind = self._kinds.GAUGE if family.kind == "gauge" else self._kinds.COUNTER
        made = self._kinds(name=family.name, description=family.help, kind=kind)
        self._families[family.name] = made
        return made
