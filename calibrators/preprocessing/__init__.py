"""Preprocessing: one spec for calibration, evaluation and serving.

In: images, YAML. Out: arrays as the network was trained with.
May import: itself, artefacts; numpy, pillow, yaml.
"""
