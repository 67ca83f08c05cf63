"""Every network on the cpu target: what OpenVINO executes in INT8 is what placement promised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import engines
from engines import BuildOptions
from engines.coverage import openvino_precisions
from engines.openvino.library import core, executed_nodes, settings
from graphs.files import load_model
from quantization.placement import place
from quantization.prepare.prepare import prepare
from quantization.write.insert import insert_qdq
from tests.networks import NETWORKS, Builder, skip_network
from tests.networks.running import minmax_ranges, random_feeds, run, sqnr_db

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

ASSETS = (
    "cifar_resnet20",
    "kws_dscnn_fp32",
    "mobilenet_v1_0.25_128_fp32",
    "mobilenet_v2_1.0_224_fp32",
    "resnet8_cifar10_fp32",
    "yolox_nano",
)


def built(
    model: onnx.ModelProto,
    folder: Path,
    *,
    unsigned: bool = False,
    portable: bool = True,
    least_share: float = 0.95,
) -> onnx.ModelProto:
    """INT8 graph and engine; checks layer by layer that what was promised is executed."""
    placement = place(model, profile="cpu", unsigned=unsigned, portable=portable)
    feeds = random_feeds(model, np.random.default_rng(0), dynamic=1)
    ranges = minmax_ranges(model, placement.tensors, feeds)
    int8 = insert_qdq(model, placement, ranges)
    onnx.save(int8, folder / "int8.onnx")
    options = BuildOptions(target="cpu", threads=1, precision="int8")
    manifest = engines.build(folder / "int8.onnx", folder / "int8.engine", options)
    assert manifest.coverage is not None
    assert set(manifest.coverage.int8_layers) == set(placement.int8_nodes)
    share = placement.int8_mac_share(model)
    assert share >= least_share
    assert manifest.coverage.int8_mac_share == pytest.approx(share, abs=1e-6)
    return int8


def agreement_db(int8: onnx.ModelProto, folder: Path, rng: np.random.Generator) -> float:
    """How close the engine is to onnxruntime on the same INT8 graph."""
    feeds = random_feeds(int8, rng, dynamic=1)
    reference = run(int8, feeds, optimize=False)
    with engines.load(folder / "int8.engine") as engine:
        outputs = engine(feeds)
    return min(sqnr_db(value, outputs[name]) for name, value in reference.items())


@pytest.mark.parametrize("portable", [True, False], ids=["portable", "vnni"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_executed_as_promised(
    name: str, portable: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    if not portable and engines.cpu_isa() != "vnni":
        pytest.skip("this CPU has no VNNI: graphs that need it saturate")
    share = 0.8 if portable and name in ("bert", "vit") else 0.95  # attention stays in float
    share = 0.18 if name == "lstm" else share  # 82 % of its work are the LSTM's
    int8 = built(prepare(NETWORKS[name]()), tmp_path, portable=portable, least_share=share)
    assert agreement_db(int8, tmp_path, rng) > 20


@pytest.mark.parametrize("activation", ["Relu", "Tanh"])
@pytest.mark.parametrize("behind", ["Concat", "Slice", "Conv"])
def test_padded_values_are_read_in_int8(
    activation: str, behind: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    """A DQ of codes of both signs does not pass a Pad that no convolution takes in."""
    net = Builder()
    x = net.op(activation, net.conv(net.input("x", (1, 32, 8, 8)), 32))
    x = net.op("Pad", x, net.ints(0, 0, 0, 0, 0, 0, 0, 3))
    net.channels[x] = 32
    if behind == "Concat":
        x = net.concat(x, x)
        net.channels[x] = 64
    if behind == "Slice":
        x = net.op("Slice", x, net.ints(0), net.ints(9), net.ints(3))
        net.channels[x] = 32
    int8 = built(net.build("padded", net.relu(net.conv(x, 64))), tmp_path)
    assert agreement_db(int8, tmp_path, rng) > 20


@pytest.mark.parametrize("name", ["resnet_basic", "mobilenet_v2", "detector"])
def test_executed_as_promised_with_unsigned_codes(
    name: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    int8 = built(prepare(NETWORKS[name]()), tmp_path, unsigned=True)
    assert agreement_db(int8, tmp_path, rng) > 20


@pytest.mark.parametrize("name", ASSETS)
def test_real_models_are_executed_as_promised(name: str, assets: Path, tmp_path: Path) -> None:
    built(prepare(load_model(assets / "models" / f"{name}.onnx")), tmp_path)


def grouped() -> onnx.ModelProto:
    net = Builder()
    x = net.relu(net.conv(net.input("x", (1, 32, 8, 8)), 32))
    x = net.relu(net.conv(x, 32, groups=4))
    return net.build("grouped", net.relu(net.conv_transpose(x, 32, groups=4)))


def volumes() -> onnx.ModelProto:
    net = Builder()
    x = net.input("x", (1, 32, 6, 6, 6))
    weight = net.weight((32, 32, 3, 3, 3), 27 * 32)
    return net.build("volumes", net.relu(net.op("Conv", x, weight, kernel_shape=[3] * 3)))


def products() -> onnx.ModelProto:
    net = Builder()
    x = net.op("MatMul", net.input("x", (4, 20, 32)), net.weight((4, 32, 24), 32))
    x = net.relu(net.op("MatMul", net.weight((24, 20), 20), x))
    y = net.relu(
        net.op("Gemm", net.input("y", (32, 20)), net.weight((24, 32), 32), transA=1, transB=1)
    )
    return net.build("products", net.op("MatMul", x, net.op("Transpose", y, perm=[1, 0])))


@pytest.mark.parametrize("network", [grouped, volumes, products])
@pytest.mark.parametrize("unsigned", [False, True])
def test_unusual_layers_are_executed_as_promised(
    network: object, unsigned: bool, tmp_path: Path
) -> None:
    built(prepare(network()), tmp_path, unsigned=unsigned, least_share=0.4)  # type: ignore[operator]


def test_a_concat_of_both_signs_stays_int8_where_openvino_reads_the_file(tmp_path: Path) -> None:
    """Joined to signed codes, unsigned ones would be converted to float for the Conv behind."""
    net = Builder()
    x = net.input("x", (1, 32, 8, 8))
    joint = net.concat(net.relu(net.conv(x, 32)), net.silu(net.conv(x, 32)))
    model = net.build("both signs", net.relu(net.conv(net.relu(net.conv(joint, 32)), 32)))
    placement = place(model, profile="cpu", unsigned=True, portable=True)
    ranges = minmax_ranges(model, placement.tensors, random_feeds(model, np.random.default_rng(0)))
    onnx.save(insert_qdq(model, placement, ranges), tmp_path / "int8.onnx")
    compiled = core().compile_model(tmp_path / "int8.onnx", "CPU", settings(1, "f32"))
    precisions = openvino_precisions(executed_nodes(compiled))
    assert [precisions[f"n_Conv_{number}"] for number in range(4)] == ["int8"] * 4


def test_layers_that_are_subtracted_are_seen_to_run(tmp_path: Path) -> None:
    """OpenVINO adds layers of negated weights instead, under names of its own (N-BEATS)."""
    net = Builder()
    x = net.input("x", ("N", 40))
    for _ in range(2):
        hidden = net.relu(net.gemm(x, 40, 64))
        x = net.op("Sub", x, net.gemm(hidden, 64, 40))
    built(prepare(net.build("residues", net.gemm(x, 40, 8))), tmp_path, unsigned=False)


@pytest.mark.parametrize("ratio", [8.0, 1000.0])
def test_branches_far_apart_are_executed_as_promised(
    ratio: float, tmp_path: Path, rng: np.random.Generator
) -> None:
    model = skip_network(ratio)
    first = place(model, profile="cpu", portable=True)
    ranges = minmax_ranges(model, first.tensors, random_feeds(model, np.random.default_rng(0)))
    amax = {name: entry.amax for name, entry in ranges.tensors.items()}
    placement = place(model, profile="cpu", portable=True, amax=amax)
    assert placement.joined
    int8 = insert_qdq(model, placement, ranges)
    onnx.save(int8, tmp_path / "int8.onnx")
    options = BuildOptions(target="cpu", threads=1, precision="int8")
    manifest = engines.build(tmp_path / "int8.onnx", tmp_path / "int8.engine", options)
    assert manifest.coverage is not None
    assert set(manifest.coverage.int8_layers) == set(placement.int8_nodes)
    assert agreement_db(int8, tmp_path, rng) > 35
