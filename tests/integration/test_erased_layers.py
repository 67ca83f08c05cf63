"""Layers that INT8 would erase, whatever its range, stay in float; the command says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import engines
from quantization.measure.execution import load_int8, load_onnxruntime
from quantization.measure.fidelity import compare, run_all
from tests.integration.command import run
from tests.networks import Builder

UNITS = 10.0 ** np.linspace(-3, 5, 16, dtype=np.float32)
"""Of the columns of a table: grams beside kilometres."""


def table(path: Path, rng: np.random.Generator) -> Path:
    net = Builder(seed=int(rng.integers(1000)))
    weight = (rng.normal(size=(16, 32)) / 4 / UNITS[:, None]).astype(np.float32)
    hidden = net.relu(net.op("MatMul", net.input("x", ("N", 16)), net.constant(weight)))
    hidden = net.relu(net.gemm(hidden, 32, 32))
    onnx.save(net.build("table", net.gemm(hidden, 32, 4)), path)
    return path


def rows(path: Path, rng: np.random.Generator) -> Path:
    np.savez(path, x=(rng.normal(size=(64, 16)) * UNITS).astype(np.float32))
    return path


def sqnr(model: Path, int8: Path, rng: np.random.Generator) -> float:
    feeds = [{"x": (rng.normal(size=(32, 16)) * UNITS).astype(np.float32)}]
    exact = run_all(load_onnxruntime(onnx.load(model)), feeds)
    return compare(load_int8(onnx.load(int8)), feeds, exact).sqnr_db


@pytest.mark.parametrize("improvement", [(), ("--improve", "0")])
def test_a_table_of_many_units(
    tmp_path: Path,
    rng: np.random.Generator,
    capsys: pytest.CaptureFixture[str],
    improvement: tuple[str, ...],
) -> None:
    model = table(tmp_path / "table.onnx", rng)
    engine = tmp_path / "table.engine"
    code, out, err = run(
        *("--onnx", model, "--engine", engine, "--calib-data", rows(tmp_path / "rows.npz", rng)),
        *("--target", "cpu", *improvement),
        capsys=capsys,
    )
    assert code == 0, err
    assert "left in float, because INT8 alone leaves" in out
    assert "1 layer (n_MatMul_0)" in out
    placement = engines.read_manifest(engine).passport.placement
    assert placement is not None
    assert [(layer.node, layer.rule) for layer in placement.floating] == [("n_MatMul_0", "erased")]
    assert placement.int8_layers == ("n_Gemm_0", "n_Gemm_1")
    assert sqnr(model, tmp_path / "table.int8.onnx", rng) > 15


def test_one_layer_is_kept_and_warned_of(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing would be INT8 without it."""
    net = Builder()
    weight = (rng.normal(size=(16, 32)) / UNITS[:, None]).astype(np.float32)
    onnx.save(
        net.build("one", net.op("MatMul", net.input("x", ("N", 16)), net.constant(weight))),
        tmp_path / "one.onnx",
    )
    code, out, err = run(
        *("--onnx", tmp_path / "one.onnx", "--engine", tmp_path / "one.engine"),
        *("--calib-data", rows(tmp_path / "rows.npz", rng), "--stop-after", "onnx"),
        capsys=capsys,
    )
    assert code == 0, err
    assert "of each of 1 layer" in out + err
    assert "normalise the model's inputs" in out + err
    assert json.loads((tmp_path / "one.ranges.json").read_text())["tensors"]
