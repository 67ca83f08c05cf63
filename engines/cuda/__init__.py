"""CUDA: contexts, streams, events, graphs and memory, with errors in our words.

In: sizes and addresses. Out: buffers and streams that a runner uses.
May import: itself, artefacts; pycuda.
"""
