"""The ground floor: what every stage needs to hand a file to the next one.

In: bytes and paths. Out: files that are whole or absent, hashes, decibels, the errors a user reads.
May import: itself; the standard library, numpy, onnx, yaml; pycuda,
onnxruntime and threadpoolctl in a file each.
"""
