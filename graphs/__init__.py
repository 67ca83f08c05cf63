"""The ground floor: what is true of an ONNX graph whoever reads it.

In: arrays and attributes of ONNX nodes. Out: rules that quantization and engines both follow.
May import: itself, artefacts; numpy and onnx.
"""
