"""Two copies of a network, float and INT8, run side by side, layer by layer, over all samples.

In: a prepared graph, samples, the decisions of whoever is shown each layer. Out: its activations in
both copies, and what biases gain.
May import: itself, quantization.arithmetic, quantization.measure, graphs, artefacts; onnx, numpy.
"""
