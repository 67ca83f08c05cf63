"""Search: which layers stay in float so that a promise is kept, and which cost most.

In: an improved network, a score. Out: a placement, a recipe, sensitivities.
May import: itself, improve, write, measure, placement, arithmetic, calibrators.ranges, graphs,
artefacts; numpy, yaml, matplotlib.
"""
