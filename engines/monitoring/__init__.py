"""Monitoring: a sample of real requests, and whether they still look like the calibration data.

In: checked requests of a running engine. Out: samples to calibrate with, reports of drift.
May import: itself, engines, artefacts.
"""
