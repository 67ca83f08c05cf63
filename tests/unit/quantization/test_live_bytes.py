"""What a walk will hold, told without running it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from graphs.view import GraphView
from quantization.improve.walk.float_and_int8 import FloatAndInt8, LayerVisit
from quantization.improve.walk.live import live_bytes
from quantization.measure.execution import Run, load_onnxruntime
from tests.accuracy_models import samples_of
from tests.networks import Builder, mobilenet_v2, resnet, vit


def chosen() -> onnx.ModelProto:
    """How many values pass depends on the values."""
    net = Builder(3)
    x = net.input("x", (1, 32))
    values = net.op("Reshape", x, net.constant(np.array([32])))
    kept = net.op("Greater", values, net.constant(np.zeros(1, np.float32)))
    found = net.op("Compress", values, kept)
    return net.build("chosen", net.op("ReduceSum", found, keepdims=0))


def held(model: onnx.ModelProto, sample: dict[str, np.ndarray]) -> int:
    """By a walk over all values."""
    both = FloatAndInt8(
        view=GraphView(model), load=load_onnxruntime, samples=[sample], correct=False
    )
    seen = [0]

    def look(visit: LayerVisit) -> tuple[dict, dict]:  # type: ignore[type-arg]
        seen.append(sum(x.nbytes for arrays in both.exact.values() for x in arrays))
        return {}, {}

    both.walk(look)
    return max(seen)


@pytest.mark.parametrize("build", [lambda: resnet(size=16), lambda: mobilenet_v2(size=16), vit])
def test_sizes_are_those_of_a_walk(
    build: Callable[[], onnx.ModelProto], rng: np.random.Generator
) -> None:
    model = build()
    (sample,) = samples_of(model, rng, 1)

    def never(model: onnx.ModelProto) -> Run:
        raise AssertionError(model.graph.name)

    assert live_bytes(GraphView(model), never, sample) == held(model, sample)


def test_a_size_that_depends_on_values_is_found_by_running(rng: np.random.Generator) -> None:
    (sample,) = samples_of(chosen(), rng, 1)
    found = live_bytes(GraphView(chosen()), load_onnxruntime, sample)
    assert found == held(chosen(), sample) > 0
