"""A map that is resized to computed sizes, or by named axes: INT8 in every library, any batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import engines
from engines import BuildOptions
from quantization.placement import place
from quantization.prepare.prepare import prepare
from quantization.write.insert import insert_qdq
from tests.integration.rtx_compiler import compile_model
from tests.networks import Builder
from tests.networks.running import minmax_ranges, random_feeds, run, sqnr_db


def decoder(target: str, size: int | None) -> onnx.ModelProto:
    """A level of a U-Net: the small map resized to the size of the large one, joined, convolved.

    Args:
        target: how that is said: sizes of named "axes", of all axes "computed" from the batch.
        size: of the image; None leaves it free, and the large map says it.
    """
    net = Builder(5, opset=18)
    image = ("H", "W") if size is None else (size, size)
    large = net.relu(net.conv(net.input("x", ("N", 8, *image)), 16))
    small = net.relu(net.conv(large, 16, stride=2))
    if size is None:
        sizes = net.op("Slice", net.op("Shape", large), net.ints(2), net.ints(4), net.ints(0))
    else:
        sizes = net.ints(size, size)
    ways: dict[str, Any] = {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    if target == "axes":
        ways["axes"] = [2, 3]
    else:
        kept = net.op("Slice", net.op("Shape", small), net.ints(0), net.ints(2), net.ints(0))
        sizes = net.op("Concat", kept, sizes, axis=0)
    up = net.op("Resize", small, "", "", sizes, **ways)
    return net.build("decoder", net.conv(net.concat(up, large), 8))


def int8_graph(
    profile: str, model: onnx.ModelProto, feeds: dict[str, np.ndarray]
) -> onnx.ModelProto:
    placement = place(model, profile=profile, portable=engines.cpu_isa() == "portable")
    return insert_qdq(model, placement, minmax_ranges(model, placement.tensors, feeds))


def assert_runs_as_promised(
    graph: onnx.ModelProto, feeds: dict[str, np.ndarray], folder: Path
) -> None:
    onnx.save(graph, folder / "m.onnx")
    options = BuildOptions(target="cpu", threads=1)
    manifest = engines.build(folder / "m.onnx", folder / "m.engine", options)
    assert manifest.coverage is not None
    assert manifest.coverage.int8_mac_share == 1.0
    with engines.load(folder / "m.engine") as engine:
        found = engine(feeds)
    wanted = run(graph, feeds, optimize=False)
    assert min(sqnr_db(values, found[name]) for name, values in wanted.items()) > 30


@pytest.mark.parametrize("size", [16, 13], ids=["twice", "13/7"])
@pytest.mark.parametrize("target", ["axes", "computed"])
def test_the_decoder_runs_int8_on_the_cpu(
    target: str, size: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")
    model = decoder(target, size)
    feeds = random_feeds(model, rng, dynamic=2)
    assert_runs_as_promised(int8_graph("cpu", prepare(model), feeds), feeds, tmp_path)


@pytest.mark.parametrize("target", ["axes", "computed"])
def test_the_decoder_of_any_size_of_image_runs_int8_on_the_cpu(
    target: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")
    feeds = {"x": rng.standard_normal((2, 8, 12, 13)).astype(np.float32)}
    graph = int8_graph("cpu", prepare(decoder(target, None)), feeds)
    assert_runs_as_promised(graph, feeds, tmp_path)


@pytest.mark.parametrize("size", [16, 13], ids=["twice", "13/7"])
@pytest.mark.parametrize("target", ["axes", "computed"])
def test_the_decoder_compiles_for_tensorrt(
    target: str, size: int, rng: np.random.Generator
) -> None:
    model = decoder(target, size)
    graph = int8_graph("tensorrt", prepare(model), random_feeds(model, rng, dynamic=2))
    assert compile_model(graph.SerializeToString(), parse_only=True).errors == ()
