"""Measure: what a graph computes as it is written, and where its error is.

In: models and feeds. Out: outputs, decibels, plots.
May import: itself, write, prepare, graphs, artefacts; onnx, numpy, onnxruntime, matplotlib.
"""
