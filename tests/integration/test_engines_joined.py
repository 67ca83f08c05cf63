"""What is joined with a constant, in front of an INT8 layer: the layer is INT8 all the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import engines
from engines import BuildOptions, Profile
from quantization.placement import place
from quantization.prepare.prepare import prepare
from quantization.write.insert import insert_qdq
from tests.networks import Builder
from tests.networks.running import minmax_ranges, run, sqnr_db

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

SIDE = 16


def joined(
    channels: int, low: float, *, batch: int | str = 1, between: str = ""
) -> onnx.ModelProto:
    """Convolutions that are told where they look: maps of constants beside what they read."""
    net = Builder(4)
    x = net.input("x", (batch, 8, SIDE, SIDE))
    first = net.op("Shape", x, end=1) if isinstance(batch, str) else ""
    for _ in range(2):
        x = net.relu(net.conv(x, 24))
        told = net.rng.uniform(low, 1.0, (1, channels, SIDE, SIDE)).astype(np.float32)
        maps = net.constant(told)
        if first:
            size = net.op("Concat", first, net.ints(channels, SIDE, SIDE), axis=0)
            maps = net.op("Expand", maps, size)
        x = net.op("Concat", x, maps, axis=1)
        if between:
            x = net.max_pool(x, 3)
        net.channels[x] = 24 + channels
    return net.build("joined", net.conv(x, 16))


@pytest.mark.parametrize(
    ("model", "sizes"),
    {
        "one map": (joined(1, -1.0), ()),
        "many, never negative": (joined(24, 0.0), ()),
        "behind a pool": (joined(3, -1.0, between="MaxPool"), ()),
        "any batch": (joined(2, -1.0, batch="N"), (1, 3)),
        "a batch of three": (joined(2, -1.0, batch="N"), (3, 3)),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layers_behind_joined_constants_are_int8(
    model: str, sizes: tuple[onnx.ModelProto, tuple[int, ...]], tmp_path: Path,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    network, batches = sizes
    prepared = prepare(network)
    rows = batches[-1] if batches else 1
    feeds = {"x": rng.standard_normal((rows, 8, SIDE, SIDE)).astype(np.float32)}
    placement = place(prepared, profile="cpu", portable=True)
    int8 = insert_qdq(prepared, placement, minmax_ranges(prepared, placement.tensors, feeds))
    onnx.save(int8, tmp_path / "m.onnx")
    shapes = [{"x": (n, 8, SIDE, SIDE)} for n in batches]
    profiles = (Profile(min=shapes[0], opt=shapes[1], max=shapes[1]),) if shapes else ()
    options = BuildOptions(target="cpu", threads=1, precision="int8", profiles=profiles)
    manifest = engines.build(tmp_path / "m.onnx", tmp_path / "m.engine", options)
    assert manifest.coverage is not None
    assert manifest.coverage.int8_mac_share == 1.0
    with engines.load(tmp_path / "m.engine") as engine:
        found = engine(feeds)
    for name, values in run(int8, feeds, optimize=False).items():
        assert sqnr_db(values, found[name]) > 35
