"""TensorRT and TensorRT-RTX: the one room that knows them and CUDA.

In: an ONNX file. Out: a plan, and a runner for it.
May import: itself, engines, graphs, artefacts; tensorrt, tensorrt_rtx, pycuda.
"""
