"""The codes of a layer's weight: fitted to its INT8 input, rounded with error feedback.

In: a weight as a matrix, columns of what the layer reads. Out: its INT8 codes.
May import: artefacts, graphs, quantization.arithmetic, quantization.placement; numpy.
"""
