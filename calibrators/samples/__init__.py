"""Samples: where data comes from, and how it becomes what a model is fed with.

In: folders, arrays, loaders. Out: samples and batches.
May import: itself, preprocessing, artefacts; numpy.
"""
