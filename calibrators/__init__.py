"""Samples → statistics → ranges, and TensorRT's own calibrators and cache.

In: a prepared ONNX model and samples. Out: ``*.stats.npz``, ``*.ranges.json``, ``*.calib.cache``.
May import: itself, artefacts; numpy, onnx; onnxruntime in one file, tensorrt + pycuda in one file.
"""
