"""Fourier transforms become products with the results of numpy's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from graphs.identity import graph_hash
from graphs.view import GraphView
from quantization import prepare
from tests.networks import Builder
from tests.odd_models import run


def dft(
    shape: list[int | str],
    *,
    opset: int,
    axis: int | None,
    points: int | None = None,
    **attributes: Any,
) -> onnx.ModelProto:
    net = Builder(opset=opset)
    inputs = [net.input("x", shape)]
    if points is not None:
        inputs.append(net.constant(np.int64(points)))
    if axis is not None and opset >= 20:
        inputs += [""] * (2 - len(inputs)) + [net.constant(np.int64(axis))]
    elif axis is not None:
        attributes["axis"] = axis
    return net.build("dft", net.op("DFT", *inputs, **attributes))


def told(x: np.ndarray, *, axis: int, points: int | None, inverse: int, onesided: int) -> Any:
    """By numpy, in float64: real and imaginary part on the last axis."""
    values = x[..., 0] + (1j * x[..., 1] if x.shape[-1] == 2 else 0)
    axis = axis % x.ndim
    found = (np.fft.ifft if inverse else np.fft.fft)(values, n=points, axis=axis)
    if onesided:
        found = found.take(range(found.shape[axis] // 2 + 1), axis=axis)
    return np.stack([found.real, found.imag], axis=-1)


def left(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in GraphView(model).nodes}


@pytest.mark.parametrize("points", [None, 8, 27])
@pytest.mark.parametrize(
    ("parts", "inverse", "onesided"), [(1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0), (2, 1, 0)]
)
@pytest.mark.parametrize(("opset", "axis"), [(17, None), (17, 2), (20, None), (20, 1), (20, -3)])
def test_a_transform_is_a_product(
    opset: int,
    axis: int | None,
    parts: int,
    inverse: int,
    onesided: int,
    points: int | None,
    rng: np.random.Generator,
) -> None:
    shape: list[int | str] = ["N", 12, 15, parts]
    given = {"inverse": inverse, "onesided": onesided}
    model = dft(shape, opset=opset, axis=axis, points=points, **given)
    prepared = prepare(model)
    assert left(prepared) <= {"Transpose", "Reshape", "MatMul"}
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)
    x = rng.standard_normal((3, 12, 15, parts)).astype(np.float32)
    used = axis if axis is not None else {17: 1, 20: -2}[opset]
    wanted = told(x.astype(np.float64), axis=used, points=points, **given)
    np.testing.assert_allclose(run(prepared, {"x": x})[0], wanted, atol=1e-4)


def stft(
    shape: list[int | str], *, step: int, window: np.ndarray | None, points: int | None, **more: Any
) -> onnx.ModelProto:
    net = Builder(opset=17)
    inputs = [net.input("x", shape), net.constant(np.int64(step))]
    inputs.append("" if window is None else net.constant(window.astype(np.float32)))
    inputs.append("" if points is None else net.constant(np.int64(points)))
    size = points or (0 if window is None else len(window))
    bins = size // 2 + 1 if more.get("onesided", 1) else size
    # ONNX infers no shape of frames whose number is free; exporters state one.
    frames = net.op("STFT", *inputs, **{"onesided": 1, **more})
    model = net.build("stft", net.op("Reshape", frames, net.ints(0, -1, bins, 2)))
    if "onesided" not in more:  # its default, which ONNX's inference has wrong
        del model.graph.node[0].attribute[:], model.graph.value_info[:]
    return model


@pytest.mark.parametrize("shape", [["N", "samples", 1], [3, 100, 1]])
@pytest.mark.parametrize("onesided", [None, 0])
@pytest.mark.parametrize("kind", ["window", "points", "both"])
def test_frames_are_a_convolution(
    kind: str, onesided: int | None, shape: list[int | str], rng: np.random.Generator
) -> None:
    size, step = 20, 7
    window = rng.uniform(0.1, 1, size) if kind != "points" else None
    more = {} if onesided is None else {"onesided": onesided}
    points = size if kind != "window" else None
    model = stft(shape, step=step, window=window, points=points, **more)
    prepared = prepare(model)
    assert left(prepared) <= {"Transpose", "Reshape", "Conv", "Unsqueeze"}
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)
    x = rng.standard_normal((3, 100, 1)).astype(np.float32)
    starts = range(0, 100 - size + 1, step)
    weights = np.ones(size) if window is None else window
    frames = np.stack([x[:, start : start + size, 0] * weights for start in starts], axis=1)
    wanted = told(
        frames[..., None], axis=2, points=None, inverse=0, onesided=1 if onesided is None else 0
    )
    np.testing.assert_allclose(run(prepared, {"x": x})[0], wanted, atol=1e-4)


def test_a_window_that_is_computed_from_constants() -> None:
    net = Builder(opset=17)
    window = net.op("HannWindow", net.constant(np.int64(16)))
    model = net.build(
        "hann", net.op("STFT", net.input("x", (1, 64, 1)), net.constant(np.int64(4)), window)
    )
    assert "STFT" not in left(prepare(model))


def test_what_is_no_product_stays() -> None:
    free = dft(["N", "samples", 1], opset=17, axis=None)
    wide = dft(["N", 2**14, 1], opset=17, axis=None, onesided=1)
    assert left(prepare(free)) == left(prepare(wide)) == {"DFT"}
    net = Builder(opset=17)
    window = net.op("Relu", net.input("window", (16,)))
    moving = net.op("STFT", net.input("x", (1, 64, 1)), net.constant(np.int64(4)), window)
    prepared = prepare(net.build("moving", moving))
    (kept,) = (node for node in GraphView(prepared).nodes if node.op_type == "STFT")
    # ONNX's inference takes the default of ``onesided`` for 0, so it is stated.
    assert kept.integer("onesided", 0) == 1
