"""A build says which engine it replaces, and asks before it takes another model's place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import engines
from tests.integration.command import run
from tests.networks import Builder

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")


def model(path: Path, *, name: str = "x", width: int = 32, seed: int = 0) -> Path:
    net = Builder(seed=seed)
    onnx.save(net.build("net", net.gemm(net.input(name, ("N", width)), width, 16)), path)
    return path


def test_an_engine_is_replaced_by_its_own_model_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "out" / "m.engine"
    first = model(tmp_path / "first.onnx")
    flags = ("--engine", engine, "--target", "cpu", "--precision", "fp32")
    code, out, err = run("--onnx", first, *flags, capsys=capsys)
    assert (code, "replaces" in out) == (0, False), err
    trained_on = model(tmp_path / "trained_on.onnx", seed=1)
    code, out, err = run("--onnx", trained_on, *flags, capsys=capsys)
    assert code == 0, err
    assert f"replaces {engine}: fp32 of m.prepared.onnx, 2" in out
    kept = engine.read_bytes()
    for other in (model(tmp_path / "y.onnx", name="y"), model(tmp_path / "64.onnx", width=64)):
        code, _, err = run("--onnx", other, *flags, capsys=capsys)
        assert code == 2
        assert f"{engine} is the engine of another model, with inputs x [" in err
        assert "or --force to replace it" in err
        assert engine.read_bytes() == kept
    code, _, err = run("--onnx", tmp_path / "64.onnx", *flags, "--force", capsys=capsys)
    assert code == 0, err
    with engines.load(engine) as loaded:
        assert loaded({"x": np.zeros((1, 64), np.float32)})


def test_what_is_no_engine_of_ours_is_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"half an engine")
    code, out, err = run(
        *("--onnx", model(tmp_path / "m.onnx"), "--engine", engine, "--target", "cpu"),
        *("--precision", "fp32"),
        capsys=capsys,
    )
    assert code == 0, err
    assert "replaces" not in out
