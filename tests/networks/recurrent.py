"""A recurrent network: the LSTM is left alone, the layers around it are not."""

from __future__ import annotations

import numpy as np
import onnx

from tests.networks.builder import Builder


def lstm(*, steps: int = 12, width: int = 32, seed: int = 9) -> onnx.ModelProto:
    """Features (steps, N, width) through a MatMul, an LSTM and a classifier of every step."""
    net = Builder(seed)
    x = net.relu(net.linear(net.input("features", (steps, 4, width)), width, 64))
    inputs = [net.weight((1, 4 * 64, 64), 64, 1, 1.0) for _ in range(2)]
    bias = net.constant(np.zeros((1, 8 * 64), np.float32), "bias")
    states = net.op("LSTM", x, *inputs, bias, hidden_size=64, outputs=3)
    hidden = net.op("Squeeze", states, net.ints(1))
    hidden = net.relu(net.linear(hidden, 64, 64))
    return net.build("lstm", net.linear(hidden, 64, 20))
