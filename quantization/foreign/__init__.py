"""Foreign: quantized models of other tools, made what TensorRT and any CPU compute rightly.

In: Q/DQ and QOperator models. Out: symmetric Q/DQ models, and what was changed.
May import: itself, prepare, write, improve, lint, measure, graphs, artefacts; onnx, numpy.
"""
