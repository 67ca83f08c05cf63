"""The parts of ``build_engine.py``: its flags, its screen, and the steps that need several rooms.

In: the command line. Out: calls of the stages in order; lines a person reads.
May import: all; the stages know nothing of it.
"""
