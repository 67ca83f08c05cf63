"""TensorRT: its calibration cache, and its own calibrators fed with our batches.

In: ranges, samples. Out: cache files, calibrator objects.
May import: itself, ranges, samples, artefacts; tensorrt in one file, pycuda in one.
"""
