"""Accuracy of callables on samples: task metrics, and agreement with a reference.

In: ``{name: callable}`` and samples. Out: figures with what each sample contributed.
May import: numpy, benchmarks.statistics, calibrators.samples, calibrators.preprocessing;
pycocotools in one file; the runtime is unknown here.
"""

from __future__ import annotations

from benchmarks.accuracy.classification import ClassificationTask
from benchmarks.accuracy.custom import CustomTask
from benchmarks.accuracy.detection import DetectionTask
from benchmarks.accuracy.drop import AccuracyComparison, compare_accuracy
from benchmarks.accuracy.evaluation import evaluate, evaluate_all
from benchmarks.accuracy.regression import RegressionTask
from benchmarks.accuracy.result import AccuracyResult
from benchmarks.accuracy.segmentation import SegmentationTask
from benchmarks.accuracy.task import Task, read_task

__all__ = [
    "AccuracyComparison",
    "AccuracyResult",
    "ClassificationTask",
    "CustomTask",
    "DetectionTask",
    "RegressionTask",
    "SegmentationTask",
    "Task",
    "compare_accuracy",
    "evaluate",
    "evaluate_all",
    "read_task",
]
