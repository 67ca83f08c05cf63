"""An engine built again with the ranges of new data, and held against the one before.

In: an engine with the files of its build, statistics or samples of production. Out: a new engine
beside it, and a decision that a person can read; the old engine is never touched.
May import: all that the pipeline may; nothing imports it.
"""
