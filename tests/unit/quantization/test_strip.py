"""Q/DQ out, ranges out: what insert_qdq put in comes back, and foreign models too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from PIL import Image

from artefacts.errors import ModelError
from graphs.identity import graph_hash
from quantization import insert_qdq, load_model, place, prepare
from quantization.foreign.strip import strip
from quantization.write.insert import unify_ranges
from tests.networks import NETWORKS
from tests.observed import observed_amax, random_feeds, ranges_of
from tests.odd_models import run

_PAIR = "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) "


def build(body: str, output: str = "float[N,M] y", **values: Any) -> onnx.ModelProto:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => ({output}) {{ {body} }}'
    )
    constants = {"s": np.float32(0.5), "z": np.int8(0), "w": np.ones((4, 3), np.float32)} | values
    reads = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in constants.items()
        if name in reads
    )
    return model


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("weights", ["int8", "float"])
@pytest.mark.parametrize("name", ["resnet_basic", "mobilenet_v3", "unet_transposed", "bert"])
def test_what_was_inserted_comes_back(name: str, weights: Any, rng: np.random.Generator) -> None:
    model = prepare(NETWORKS[name]())
    placement = place(model)
    feeds = random_feeds(model, rng)
    ranges = ranges_of(model, observed_amax(model, feeds))
    int8 = insert_qdq(model, placement, ranges, weights=weights)
    before = int8.SerializeToString(deterministic=True)
    stripped = strip(int8)
    assert int8.SerializeToString(deterministic=True) == before
    assert ops(stripped.model) == ops(model)
    assert stripped.lost == ()
    assert stripped.ranges.graph_hash == graph_hash(stripped.model)
    unified = unify_ranges(ranges, placement)
    expected = {
        edge.tensor: placement.fixed.get(edge.observed) or unified.amax(edge.observed)
        for edge in placement.activations
    }
    found = {n: r.amax for n, r in stripped.ranges.tensors.items() if "passed on" not in r.why}
    assert found == pytest.approx(expected)
    # Weights keep their rounded values, so little changes.
    for a, b in zip(run(model, feeds), run(stripped.model, feeds), strict=True):
        assert np.linalg.norm(a - b) < 0.05 * np.linalg.norm(a)


@pytest.mark.parametrize(
    ("zero", "amax"),
    [
        (np.int8(0), 63.5),  # 127 codes of 0.5; the one at -128 has no counterpart
        (np.uint8(128), 63.5),
        (np.uint8(0), 127.5),
        (np.int8(-128), 127.5),
        (np.int8(28), 78.0),  # -128 - 28 = -156 codes
    ],
)
def test_range_of_a_pair(zero: Any, amax: float) -> None:
    stripped = strip(build(_PAIR + "y = MatMul (d, w)", z=zero))
    assert ops(stripped.model) == ["MatMul"]
    assert stripped.ranges.amax("x") == amax


def test_weights_keep_what_their_codes_stand_for() -> None:
    codes = np.array([[-127, 0, 3], [5, 6, 7], [1, 1, 1], [0, 0, 127]], np.int8)
    body = _PAIR + "e = DequantizeLinear <axis=1> (c, ws, wz) y = MatMul (d, e)"
    scale = np.array([0.5, 1, 2], np.float32)
    stripped = strip(build(body, c=codes, ws=scale, wz=np.zeros(3, np.int8)))
    (weight,) = stripped.model.graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(weight), codes * scale)


def test_scale_of_zero_is_a_sentence() -> None:
    body = _PAIR + "k = QuantizeLinear (w, n, z) e = DequantizeLinear (k, n, z) y = MatMul (d, e)"
    with pytest.raises(ModelError, match=r"scale of 0\.0, expected positive"):
        strip(build(body, n=np.float32(0)))


def test_pair_on_an_output_gives_the_output_its_range() -> None:
    model = build("a = Relu (x) q = QuantizeLinear (a, s, z) y = DequantizeLinear (q, s, z)")
    stripped = strip(model)
    assert ops(stripped.model) == ["Relu"]
    assert dict(stripped.ranges.tensors).keys() == {"y"}


def test_two_pairs_in_a_row_give_the_larger_range() -> None:
    again = "q2 = QuantizeLinear (d, s2, z) d2 = DequantizeLinear (q2, s2, z) y = MatMul (d2, w)"
    stripped = strip(build(_PAIR + again, s2=np.float32(2)))
    assert dict(stripped.ranges.tensors).keys() == {"x"}
    assert stripped.ranges.amax("x") == 254.0


def test_operators_on_codes_become_operators_on_numbers(rng: np.random.Generator) -> None:
    body = (
        "q = QuantizeLinear (x, s, z) t = Transpose <perm=[1,0]> (q) y = DequantizeLinear (t, s, z)"
    )
    stripped = strip(build(body))
    assert ops(stripped.model) == ["Transpose"]
    x = rng.normal(size=(2, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(stripped.model, {"x": x})[0], x.T)


def test_ranges_are_passed_on_where_numbers_only_move() -> None:
    model = build(
        "a = Relu (x) r = Reshape (a, shape) m = MaxPool <kernel_shape=[2]> (r) "
        "q = QuantizeLinear (m, s, z) d = DequantizeLinear (q, s, z) f = Flatten (d) y = Relu (f)",
        shape=np.array([0, 1, 4]),
    )
    tensors = strip(model).ranges.tensors
    assert {name: entry.amax for name, entry in tensors.items()} == dict.fromkeys("amrf", 63.5)
    assert tensors["m"].why == "from its Q/DQ pair"
    assert "passed on by" in tensors["a"].why


@pytest.mark.parametrize(
    ("body", "output", "message"),
    [
        ("y = QuantizeLinear (x, s, z)", "int8[N,M] y", "'y' of codes is an input or output"),
        ("q = QuantizeLinear (x, s, z) y = Cast <to=1> (q)", "float[N,M] y", "read by Cast"),
        ("y = MatMul (x, w)", "float[N,M] y", "nothing to strip"),
    ],
)
def test_what_cannot_be_stripped(body: str, output: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        strip(build(body, output))


def words(assets: Path) -> np.ndarray:
    """(32, 1, 49, 10): features of spoken words, as the model is fed."""
    codes = np.load(assets / "kws" / "kws01_1000.npz")["X"][:32].astype(np.float32)
    return ((codes - 83) * np.float32(0.5847029)).reshape(32, 1, 49, 10)


def images(assets: Path) -> np.ndarray:
    """(32, 3, 32, 32): CIFAR-10, 0 to 255."""
    pixels = np.load(assets / "cifar10" / "test.npz")["images"][:32]
    return pixels.transpose(0, 3, 1, 2).astype(np.float32)


def photographs(assets: Path) -> np.ndarray:
    """(32, 3, 128, 128): ImageNet, -1 to 1."""
    files = sorted((assets / "imagenet" / "test").iterdir())[:32]
    pixels = [np.asarray(Image.open(file).convert("RGB").resize((128, 128))) for file in files]
    return (np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32) - 128) / 128


@pytest.mark.parametrize(
    ("name", "pairs", "data"),
    [
        ("kws_dscnn_qdq_int8", 13, words),
        ("mobilenet_v1_0.25_128_qdq_uint8", 31, photographs),
        ("resnet8_cifar10_qdq_int8", 16, images),
    ],
)
def test_real_models_are_stripped(
    name: str, pairs: int, data: Callable[[Path], np.ndarray], assets: Path
) -> None:
    model = load_model(assets / "models" / f"{name}.onnx")
    stripped = strip(model)
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(ops(stripped.model))
    pairs_of = [r for r in stripped.ranges.tensors.values() if "passed on" not in r.why]
    assert len(pairs_of) == pairs
    assert stripped.lost == ()
    feeds = {model.graph.input[0].name: data(assets)}
    (expected,), (found,) = run(model, feeds), run(stripped.model, feeds)
    assert np.mean(expected.argmax(1) == found.argmax(1)) > 0.85


def test_a_scale_too_large_gives_what_dequantizing_gives() -> None:
    codes = np.arange(12, dtype=np.int8).reshape(4, 3)
    model = build(
        _PAIR + "v = DequantizeLinear (w, t, z) y = MatMul (d, v)", w=codes, t=np.float32(1e38)
    )
    weight = next(t for t in strip(model).model.graph.initializer if list(t.dims) == [4, 3])
    found = numpy_helper.to_array(weight)
    np.testing.assert_array_equal(np.isinf(found), codes > 3)
