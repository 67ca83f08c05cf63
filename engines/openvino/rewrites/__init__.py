"""What is changed in a network before OpenVINO compiles it, so that it is right there, and fast.

In: a network as OpenVINO read it. Out: the same network, rewritten in place.
May import: itself, graphs.pairs; numpy. The module ``openvino`` is handed in.
"""
