"""Improve: better INT8 of the same layers.

In: a prepared model, its placement, ranges, samples. Out: the network with other ranges, weights
and biases. May import: itself, placement, write, measure, arithmetic, calibrators.ranges, graphs,
artefacts; onnx, numpy.
"""
