"""Engines → latency, accuracy, report.

In: callables and labelled samples. Out: ``report.json``, ``report.html``, tables.
May import: itself, artefacts, calibrators.data, calibrators.preprocess;
engines in ``__main__`` only.
"""
