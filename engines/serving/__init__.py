"""Serving: engines lent to threads, exported to Triton, signed.

In: engine files. Out: pools, model repositories, signatures.
May import: itself, engines, artefacts.
"""
