"""The ground floor: how an ONNX graph is read, walked, edited, named and identified.

In: ONNX files and models. Out: views, new models, hashes, rules that hold for every reader.
May import: itself, artefacts; onnx, numpy.
"""
