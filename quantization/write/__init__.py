"""Write: a placement and its ranges become a graph with Q/DQ, INT8 weights and FP16.

In: a prepared model, a placement, ranges. Out: a Q/DQ model.
May import: itself, placement, arithmetic, calibrators.ranges, graphs, artefacts; onnx, numpy.
"""
