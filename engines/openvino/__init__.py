"""OpenVINO: the one room that knows it.

In: an ONNX file. Out: a compiled blob or network, and a runner for it.
May import: itself, engines, graphs, artefacts; openvino.
"""
