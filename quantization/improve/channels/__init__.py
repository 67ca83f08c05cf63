"""Channels of activations brought to like ranges, where that changes nothing else.

In: a prepared model, its placement, ranges, samples. Out: a model that computes the same, ranges.
May import: itself, improve.walk, improve.range_choice, improve.weights, placement, measure,
calibrators.ranges, graphs, artefacts; onnx, numpy.
"""
