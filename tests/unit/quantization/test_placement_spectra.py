"""Filter banks in front of a logarithm stay in float; other layers do not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from quantization.placement import Placement, Profile, place
from tests.networks import Builder


def spectrogram(*, decimated: bool = False, mel: bool = False, log: str = "Log") -> onnx.ModelProto:
    """An STFT as two convolutions, its power, maybe a mel matrix, a logarithm, a network."""
    net = Builder()
    x = net.input("x", ("N", 1, 1024))
    if decimated:
        x = net.op("Pad", x, net.ints(0, 0, 8, 0, 0, 8))
        net.channels[x] = 1
        x = net.op("Conv", x, net.weight((1, 1, 17), 17), strides=[2])
        net.channels[x] = 1
    parts = [net.op("Conv", x, net.weight((32, 1, 64), 64), strides=[16]) for _ in range(2)]
    parts[1] = net.op("Neg", parts[1])
    power = net.op("Add", *(net.op("Mul", part, part) for part in parts))
    if mel:
        power = net.op("MatMul", net.constant(np.ones((32, 32), np.float32)), power)
    level = net.op(log, net.op("Clip", power, net.scalar(1e-6)))
    net.channels[level] = 32
    hidden = net.relu(net.op("Conv", level, net.weight((64, 32, 3), 96)))
    return net.build("spectrogram", net.op("Conv", hidden, net.weight((16, 64, 1), 64)))


def spectra(placement: Placement) -> set[str]:
    return {layer.node for layer in placement.floating if layer.rule == "log_spectrum"}


@pytest.mark.parametrize("profile", ["tensorrt", "cpu", "dla"])
def test_filters_before_a_logarithm(profile: Profile) -> None:
    bank = {"n_Conv_0", "n_Conv_1"}
    plain = place(spectrogram(), profile=profile)
    assert spectra(plain) == bank
    assert "n_Conv_2" in plain.int8_nodes
    assert spectra(place(spectrogram(decimated=True), profile=profile)) == bank | {"n_Conv_2"}
    assert spectra(place(spectrogram(log="Sqrt"), profile=profile)) == set()


def test_a_mel_matrix_is_a_filter_bank_too() -> None:
    assert {"n_Conv_0", "n_Conv_1"} <= spectra(place(spectrogram(mel=True), profile="cpu"))


@pytest.mark.parametrize("activation", ["Relu", "Softmax", "Exp", "Sigmoid", "Relu6"])
def test_not_behind_an_activation(activation: str) -> None:
    """Log-probabilities, softplus, and networks that end in a logarithm."""
    net = Builder()
    x = net.relu(net.conv(net.input("x", ("N", 16, 8, 8)), 32))
    x = net.conv(x, 32)
    x = net.relu6(x) if activation == "Relu6" else net.op(activation, x)
    model = net.build("ending", net.op("Log", net.op("Add", x, net.scalar(1.0))))
    placement = place(model, profile="cpu")
    assert spectra(placement) == set()
    assert placement.int8_nodes == ("n_Conv_0", "n_Conv_1")
