"""Observing real models with onnxruntime: right values, blind to order, bounded, resumable."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from artefacts.errors import DataError, InputError, ModelError
from calibrators.samples.samples import Sample
from calibrators.statistics.observe import observe
from calibrators.statistics.statistics import TensorStatistics
from graphs.identity import graph_hash
from tests.networks import resnet
from tests.networks.builder import Builder


def activations(model: onnx.ModelProto) -> list[str]:
    """Every float activation and input of a network without odd operators."""
    inputs = [entry.name for entry in model.graph.input]
    return inputs + [name for node in model.graph.node for name in node.output]


def images(count: int, side: int = 32, seed: int = 0) -> list[Sample]:
    rng = np.random.default_rng(seed)
    return [
        Sample(inputs={"images": rng.standard_normal((1, 3, side, side), np.float32)}, name=f"{i}")
        for i in range(count)
    ]


def small(batch: int | str = "N", side: int | str = "S") -> onnx.ModelProto:
    """Two convolutions, a pool over any image size, and a classifier."""
    net = Builder()
    x = net.relu(net.conv(net.input("images", [batch, 3, side, side]), 8, stride=2))
    x = net.op("Flatten", net.op("GlobalAveragePool", net.relu(net.conv(x, 8))))
    return net.build("small", net.gemm(x, 8, 4))


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    return resnet()


def test_values_are_the_models(network: onnx.ModelProto) -> None:
    """Against a session of our own that returns every activation."""
    name = network.graph.input[0].name
    shape = [d.dim_value or 1 for d in network.graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(1)
    feeds = [rng.standard_normal(shape).astype(np.float32) for _ in range(3)]
    samples = [Sample(inputs={name: x}, name=str(i)) for i, x in enumerate(feeds)]
    names = activations(network)
    before = network.SerializeToString()
    found = observe(network, names, samples)
    assert network.SerializeToString() == before
    assert found.graph_hash == graph_hash(network)
    whole = onnx.ModelProto()
    whole.CopyFrom(network)
    del whole.graph.output[:]
    whole.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n != name)
    session = onnxruntime.InferenceSession(whole.SerializeToString())
    fetched = [session.run(None, {name: x}) for x in feeds]
    for place, entry in enumerate(whole.graph.output):
        values = np.concatenate([arrays[place].ravel() for arrays in fetched])
        assert found.tensors[entry.name] == TensorStatistics.of(values), entry.name
    assert found.tensors[name] == TensorStatistics.of(np.stack(feeds))


def test_order_batches_and_shards_do_not_show() -> None:
    model, samples = small(), images(13)
    names = activations(model)
    whole = observe(model, names, samples, batch_size=4)
    assert len(whole.samples) == 13
    for other in (
        observe(model, names, samples[::-1], batch_size=4),
        observe(model, names[::-1], samples, batch_size=1),
        observe(model, names, samples, batch_size=100),
        observe(model, names, samples[0::3]).merge(
            observe(model, names, samples[2::3], batch_size=3),
            observe(model, names, samples[1::3], batch_size=2),
        ),
    ):
        assert other == whole
        assert other.digest == whole.digest


@pytest.mark.parametrize("count", [1, 6, 8])
def test_fixed_batches_count_what_dynamic_ones_do(count: int) -> None:
    """A batch of 4 in the file: the last batch is ragged, its padding is not counted."""
    samples, names = images(count, side=16), activations(small())
    found, expected = (
        observe(model, names, samples).tensors for model in (small(4, 16), small("N", 16))
    )
    for name in names:
        assert found[name].count == expected[name].count
        squares = expected[name].sum_squares
        assert found[name].sum_squares == pytest.approx(squares, rel=1e-4, abs=1e-3)
        assert found[name].amax == pytest.approx(expected[name].amax, rel=1e-4)


def test_images_of_several_sizes() -> None:
    samples = [*images(2, 16), *images(2, 24, seed=1)]
    found = observe(small(), ["images"], samples, batch_size=3)
    assert found.tensors["images"].count == 3 * (2 * 16 * 16 + 2 * 24 * 24)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_shapes_that_depend_on_the_data(batch_size: int) -> None:
    """Activations of another shape each time do not fit the buffers of the time before."""
    net = Builder()
    places = net.op("NonZero", net.op("Relu", net.input("images", [1, 3, 8, 8])))
    numbers = net.op("Cast", places, to=TensorProto.FLOAT)
    model = net.build("places", numbers)
    samples = images(9, side=8)
    found = observe(model, [numbers], samples, batch_size=batch_size).tensors[numbers]
    positive = [s.inputs["images"] > 0 for s in samples]
    assert found.count == 4 * sum(int(mask.sum()) for mask in positive)
    assert found.max == 7.0


def test_integer_inputs_pass_through() -> None:
    net = Builder()
    ids = net.input("ids", ["N", "S"], TensorProto.INT64)
    net.input("mask", ["N", "S", 1])
    x = net.op("Mul", net.op("Gather", net.weight((50, 4), 4), ids, axis=0), "mask")
    model = net.build("tokens", net.op("Tanh", x))
    rng = np.random.default_rng(0)
    samples = [
        Sample(
            inputs={"ids": rng.integers(0, 50, (1, 5)), "mask": np.ones((1, 5, 1), np.float32)},
            name=str(i),
        )
        for i in range(4)
    ]
    found = observe(model, [x, "mask"], samples)
    assert found.tensors[x].count == 4 * 5 * 4
    assert found.tensors["mask"].is_constant
    with pytest.raises(ModelError, match=r"tensor ids \(the graph's input\) holds int64"):
        observe(model, ["ids"], samples)


def test_nan_names_tensor_node_and_sample() -> None:
    net = Builder()
    root = net.op("Sqrt", net.input("images", ["N", 3, 2, 2]))
    model = net.build("root", root)
    good = Sample(inputs={"images": np.ones((1, 3, 2, 2), np.float32)}, name="good.png")
    bad = Sample(inputs={"images": -np.ones((1, 3, 2, 2), np.float32)}, name="bad.png")
    with pytest.raises(DataError) as caught:
        observe(model, [root], [good, bad])
    assert "tensor Sqrt_0, computed by Sqrt n_Sqrt_0, has 12 NaN and 0 Inf" in str(caught.value)
    assert "for sample bad.png" in str(caught.value)


def test_repeated_samples_count_once(caplog: pytest.LogCaptureFixture) -> None:
    samples = images(3)
    with caplog.at_level(logging.WARNING):
        found = observe(small(), ["images"], [*samples, *samples[:2]])
    assert found == observe(small(), ["images"], samples)
    assert "2 samples repeat others" in caplog.text


def test_progress_counts_samples() -> None:
    seen: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None) -> None:
        seen.append((done, total))

    observe(small(), ["images"], images(3), progress=progress, batch_size=1)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    seen.clear()
    observe(small(), ["images"], iter(images(7)), progress=progress, batch_size=4)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (7, None)


@pytest.mark.parametrize(
    ("tensors", "samples", "error", "message"),
    [
        (["images"], [], DataError, "0 samples were observed"),
        (["nowhere"], images(1), ModelError, "1 of 1 tensors are not in the graph .* nowhere"),
        (
            ["Relu_0"],
            [Sample(inputs={"images": np.zeros((1, 4, 8, 8), np.float32)}, name="x")],
            DataError,
            r"shapes \{'images': \[1, 4, 8, 8\]\}",
        ),
    ],
)
def test_what_cannot_be_observed(
    tensors: list[str], samples: list[Sample], error: type[InputError], message: str
) -> None:
    model = small()
    with pytest.raises(error, match=message):
        observe(model, tensors, samples)


@pytest.fixture(scope="module")
def peak_bytes() -> Callable[..., int]:
    """Of Python's memory, in observing activations of 4 MB a sample."""
    net = Builder()
    x = net.input("images", ["N", 3, 64, 64])
    wide = net.relu(net.conv(x, 256))
    model = net.build("wide", net.op("GlobalMaxPool", wide))

    def measure(count: int, *, threads: int) -> int:
        tracemalloc.start()
        try:
            observe(model, [wide], images(count, 64), threads=threads)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure


def test_memory_does_not_grow_with_the_samples(peak_bytes: Callable[..., int]) -> None:
    """One thread, since how many samples several hold at once is a matter of their timing."""
    few, many = peak_bytes(20, threads=1), peak_bytes(60, threads=1)
    assert many < few + 8_000_000


@pytest.mark.parametrize("threads", [2, 4])
def test_each_thread_holds_one_group_of_samples(
    peak_bytes: Callable[..., int], threads: int
) -> None:
    """A group is 32 MB, and counting takes some; all 60 samples would be 250 MB."""
    assert peak_bytes(60, threads=threads) < threads * 40_000_000
