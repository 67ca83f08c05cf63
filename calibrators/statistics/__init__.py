"""Statistics: one pass over the samples, memory independent of their number.

In: a prepared model and samples. Out: histograms that merge exactly.
May import: itself, samples, graphs, artefacts; numpy, onnx, onnxruntime, ray.
"""
