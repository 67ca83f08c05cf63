"""Prepare: the graph that every artefact refers to.

In: any ONNX model. Out: the same network, checked, folded, uniquely named, of a known opset.
May import: itself, graphs, artefacts; onnx, numpy.
"""
