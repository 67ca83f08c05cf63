"""Lint: will TensorRT take this model, and run it fast?

In: a model. Out: findings.
May import: itself, graphs, artefacts; onnx, numpy.
"""
