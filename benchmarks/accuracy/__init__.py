"""Accuracy of callables on samples: task metrics, and agreement with a reference.

In: ``{name: callable}`` and samples. Out: figures with what each sample contributed.
May import: numpy, benchmarks.statistics; pycocotools in one file; the runtime is unknown here.
"""

from __future__ import annotations

from benchmarks.accuracy.evaluation import AccuracyResult, evaluate, evaluate_all

__all__ = ["AccuracyResult", "evaluate", "evaluate_all"]
