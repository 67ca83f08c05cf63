"""ONNX → engine file and manifest → running engine.

In: an ONNX model. Out: ``*.engine`` and ``*.engine.json``; ``load(path)`` gives a callable.
May import: itself, artefacts; one file per runtime imports tensorrt / tensorrt_rtx,
pycuda, openvino.
"""
