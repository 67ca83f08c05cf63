"""Ranges: pure functions of statistics, so that changing the method costs milliseconds.

In: statistics. Out: tensor → amax, method, and why.
May import: itself, statistics, samples, artefacts; numpy.
"""
