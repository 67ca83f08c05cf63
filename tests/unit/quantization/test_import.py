"""Quantized models of other tools: converted without a changed number, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, parser

from artefacts.errors import ModelError
from quantization import load_model, prepare, to_float16
from quantization.foreign.importer import import_quantized, quantized_format
from quantization.foreign.operators import unfold_operators
from quantization.lint.lint import lint
from tests.foreign_models import by_onnxruntime
from tests.networks import NETWORKS
from tests.observed import random_feeds
from tests.odd_models import Feeds, run

_PAIR = "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) "


def build(
    body: str, opset: int = 17, output: str = "float[N,M] y", **values: Any
) -> onnx.ModelProto:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]> '
        f"g (float[N,4] x) => ({output}) {{ {body} }}"
    )
    constants = {"s": np.float32(0.03), "z": np.int8(0), "w": np.ones((4, 3), np.float32)} | values
    reads = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in constants.items()
        if name in reads
    )
    for node in model.graph.node:
        node.name = f"{node.op_type}:{node.output[0]}"
    return model


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto, feeds: Feeds) -> None:
    """Bit for bit."""
    for expected, found in zip(run(before, feeds), run(after, feeds), strict=True):
        np.testing.assert_array_equal(found, expected)


def fatal(model: onnx.ModelProto) -> set[str]:
    return {finding.rule for finding in lint(model) if finding.severity == "fatal"}


@pytest.mark.parametrize("operators", [False, True], ids=["QDQ", "QOperator"])
@pytest.mark.parametrize("unsigned", [False, True], ids=["int8", "uint8"])
@pytest.mark.parametrize("name", ["resnet_basic", "unet_transposed"])
def test_onnxruntime_models_give_the_same_numbers(
    name: str, unsigned: bool, operators: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    model = prepare(NETWORKS[name]())
    feeds = random_feeds(model, rng)
    given = by_onnxruntime(model, feeds, tmp_path, operators=operators, unsigned=unsigned)
    before = given.SerializeToString(deterministic=True)
    imported = import_quantized(given)
    assert given.SerializeToString(deterministic=True) == before
    assert fatal(given)
    assert not fatal(imported.model)
    if operators:  # integer kernels may round the other way between two codes
        (expected,), (found,) = run(given, feeds), run(imported.model, feeds)
        assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)
    else:
        assert_same(given, imported.model, feeds)
    assert imported.origin == "onnxruntime or ModelOpt"
    assert imported.format == ("QOperator" if operators else "QDQ")
    text = " ".join(imported.notes)
    assert ("QOperator" in text) == operators
    assert ("uint8, zero point 128" in text) == unsigned
    assert ("INT32 biases" in text) == (not operators)


def test_symmetric_model_is_taken_as_it_is(rng: np.random.Generator) -> None:
    model = build(_PAIR + "y = MatMul (d, w)")
    imported = import_quantized(model)
    assert imported.notes == ()
    assert [node.op_type for node in imported.model.graph.node] == [
        node.op_type for node in model.graph.node
    ]


def test_clipped_weight_becomes_int8(rng: np.random.Generator) -> None:
    weight = rng.normal(size=(4, 3)).astype(np.float32)
    weight[0, 0] = -5.0  # beyond -127.5 scales, where Q alone gives -128
    model = build(
        _PAIR
        + "k = QuantizeLinear <axis=1> (w, ws, wz) c = Clip (k, lo, hi) "
        + "e = DequantizeLinear <axis=1> (c, ws, wz) y = MatMul (d, e)",
        w=weight,
        ws=np.full(3, 0.01, np.float32),
        wz=np.zeros(3, np.int8),
        lo=np.int8(-127),
        hi=np.int8(127),
    )
    imported = import_quantized(model)
    assert imported.notes == ("1 clipped weights became INT8 constants",)
    codes = [t for t in imported.model.graph.initializer if t.data_type == TensorProto.INT8]
    smallest = min(int(numpy_helper.to_array(t).min()) for t in codes)
    assert smallest == -127
    assert_same(model, imported.model, {"x": rng.normal(size=(5, 4)).astype(np.float32)})


@pytest.mark.parametrize("stored", [False, True], ids=["float", "int8"])
def test_tensorflow_weight_is_transposed_before_its_pair(
    stored: bool, rng: np.random.Generator
) -> None:
    codes = rng.integers(-127, 128, (3, 4)).astype(np.int8)
    scale = rng.uniform(0.01, 0.1, 3).astype(np.float32)
    quantize = "" if stored else "k = QuantizeLinear <axis=0> (w, ws, wz) "
    model = build(
        _PAIR
        + quantize
        + "e = DequantizeLinear <axis=0> (k, ws, wz) t = Transpose <perm=[1,0]> (e) "
        + "y = MatMul (d, t)",
        w=codes * scale[:, None],
        k=codes,
        ws=scale,
        wz=np.zeros(3, np.int8),
    )
    if not stored:
        del model.graph.initializer[[t.name for t in model.graph.initializer].index("k")]
    imported = import_quantized(model)
    assert imported.notes == ("1 weights were transposed before they are quantized, not after",)
    assert "Transpose" not in {node.op_type for node in imported.model.graph.node}
    assert not [finding for finding in lint(imported.model) if finding.rule == "weight-axis"]
    assert_same(model, imported.model, {"x": rng.normal(size=(5, 4)).astype(np.float32)})


def test_half_model_stays_half(rng: np.random.Generator) -> None:
    model = build(_PAIR + "y = MatMul (d, w)", 19)
    half = to_float16(model).model
    imported = import_quantized(half)
    types = {tensor.data_type for tensor in imported.model.graph.initializer}
    assert TensorProto.FLOAT16 in types
    assert TensorProto.FLOAT not in types
    assert_same(half, imported.model, {"x": rng.normal(size=(5, 4)).astype(np.float32)})


def test_half_model_is_widened_where_a_target_has_one_type(rng: np.random.Generator) -> None:
    """OpenVINO refuses a convolution of float32 and float16."""
    half = to_float16(build(_PAIR + "y = MatMul (d, w)", 19)).model
    imported = import_quantized(half, widen=True)
    assert imported.notes == (
        "float16 scales and tensors became float32, in which this target computes",
    )
    types = {tensor.data_type for tensor in imported.model.graph.initializer}
    assert TensorProto.FLOAT16 not in types
    feeds = {"x": (0.03 * rng.integers(-100, 100, (5, 4))).astype(np.float32)}  # no code in doubt
    for expected, found in zip(run(half, feeds), run(imported.model, feeds), strict=True):
        # Float16 rounds 4 products and 3 sums of at most 12.
        np.testing.assert_allclose(found, expected, atol=7 * 12 * 2.0**-11)


def test_nncf_is_known_by_its_node_names() -> None:
    model = build(_PAIR + "y = MatMul (d, w)")
    model.graph.node[0].name, model.graph.node[1].name = (
        "QuantizeLinear_x_1",
        "DequantizeLinear_x_1",
    )
    assert import_quantized(model).origin == "NNCF"


def test_asymmetric_constant_that_fits_is_recoded(rng: np.random.Generator) -> None:
    codes = rng.integers(3, 200, (4, 3)).astype(np.uint8)
    model = build(
        "e = DequantizeLinear <axis=1> (c, ws, wz) y = MatMul (x, e)",
        c=codes,
        ws=rng.uniform(0.01, 0.1, 3).astype(np.float32),
        wz=np.array([80, 90, 100], np.uint8),
    )
    imported = import_quantized(model)
    recoded, nothing_runs = imported.notes
    assert recoded == "1 constants were written with zero point 0"
    assert nothing_runs.startswith("weights alone are quantized, so that no layer runs INT8")
    assert_same(model, imported.model, {"x": rng.normal(size=(5, 4)).astype(np.float32)})


def test_codes_that_are_moved_stay_exact(rng: np.random.Generator) -> None:
    model = build(
        "q = QuantizeLinear (x, s, z) r = Reshape (q, shape) "
        "m = MaxPool <kernel_shape=[3], pads=[1,1]> (r) "
        'u = Resize <mode="nearest"> (m, roi, twice) d = DequantizeLinear (u, s, z) '
        "y = Flatten (d)",
        z=np.uint8(128),
        shape=np.array([0, 1, 4]),
        roi=np.zeros(0, np.float32),
        twice=np.array([1, 1, 2], np.float32),
    )
    imported = import_quantized(model)
    assert not fatal(imported.model)
    feeds = {"x": rng.normal(scale=3, size=(5, 4)).astype(np.float32)}
    assert_same(model, imported.model, feeds)


def test_microsoft_pairs_become_those_of_onnx(rng: np.random.Generator) -> None:
    body = _PAIR.replace("Quant", "com.microsoft.Quant").replace("Dequant", "com.microsoft.Dequant")
    model = build(body + "y = MatMul (d, w)")
    imported = import_quantized(model)
    assert {node.domain for node in imported.model.graph.node} == {""}
    assert_same(model, imported.model, {"x": rng.normal(size=(5, 4)).astype(np.float32)})


@pytest.mark.parametrize(
    ("zero", "what"),
    [
        (np.int8(3), "int8 with zero point 3"),
        (np.uint8(0), "uint8 with zero point 0"),
        (np.uint8(127), "uint8 with zero point 127"),
    ],
)
def test_other_zero_points_are_refused_by_name(zero: Any, what: str) -> None:
    with pytest.raises(ModelError) as caught:
        import_quantized(build(_PAIR + "y = MatMul (d, w)", z=zero))
    message = str(caught.value)
    assert f"2 Q/DQ nodes that are not symmetric: QuantizeLinear:q ({what})" in message
    assert "quantization strip" in message


def test_sixteen_bits_are_refused() -> None:
    with pytest.raises(ModelError, match=r"QuantizeLinear:q \(int16\)"):
        import_quantized(build(_PAIR + "y = MatMul (d, w)", 21, z=np.int16(0)))


def test_codes_that_leave_the_graph_are_refused() -> None:
    model = build("y = QuantizeLinear (x, s, z)", output="uint8[N,M] y", z=np.uint8(128))
    with pytest.raises(ModelError, match="uint8 codes are an input or output of the graph"):
        import_quantized(model)


def test_dynamic_quantization_is_refused() -> None:
    model = build("q, a, b = DynamicQuantizeLinear (x) y = DequantizeLinear (q, a, b)")
    with pytest.raises(ModelError, match="DynamicQuantizeLinear, which has no exact form"):
        import_quantized(model)


def test_float_model_is_refused() -> None:
    model = build("y = MatMul (x, w)")
    assert quantized_format(model) is None
    with pytest.raises(ModelError, match=r"no Q/DQ and no QLinear nodes.*calibrate"):
        import_quantized(model)


@pytest.mark.parametrize(
    "name",
    ["kws_dscnn_qdq_int8", "mobilenet_v1_0.25_128_qdq_uint8", "resnet8_cifar10_qdq_int8"],
)
def test_asymmetric_real_models_are_refused(name: str, assets: Path) -> None:
    with pytest.raises(ModelError, match=r"\d+ Q/DQ nodes that are not symmetric: n_"):
        import_quantized(load_model(assets / "models" / f"{name}.onnx"))


@pytest.mark.parametrize(
    "name",
    [
        "test_qlinearconv",
        "test_qlinearmatmul_2D_int8_float32",
        "test_qlinearmatmul_2D_uint8_float32",
    ],
)
def test_onnx_node_tests_give_their_codes(name: str, assets: Path) -> None:
    folder = assets / "onnx_qdq_nodes" / name
    model = load_model(folder / "model.onnx")
    data = next(folder.glob("test_data_set_*"))
    values = {
        value.name: numpy_helper.to_array(onnx.load_tensor(data / f"input_{index}.pb"))
        for index, value in enumerate(model.graph.input)
    }
    first = model.graph.input[0].name
    model.graph.initializer.extend(
        numpy_helper.from_array(value, key) for key, value in values.items() if key != first
    )
    del model.graph.input[1:]
    assert unfold_operators(model) == 1
    expected = numpy_helper.to_array(onnx.load_tensor(data / "output_0.pb"))
    np.testing.assert_array_equal(run(model, {first: values[first]})[0], expected)
