"""The tensorrt-rtx target: NVIDIA's real parser and builder, on a machine without a GPU."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import engines
import quantization
from artefacts.errors import (
    BuilderError,
    EngineError,
    GateMissedError,
    InputError,
    MissingLibraryError,
    ModelError,
    UnsupportedError,
)
from engines import BuildOptions, Passport, Profile, building
from engines.built import Report
from engines.environment import has_gpu, has_module
from engines.onnx_layers import read_onnx
from engines.tensorrt.build import build_plan
from tests.engine_models import convnet, save

trt = pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")


def shapes(batch: int) -> dict[str, tuple[int, ...]]:
    return {"input": (batch, 3, 8, 8)}


BATCHES = Profile(min=shapes(1), opt=shapes(4), max=shapes(8))


def build(folder: Path, model: onnx.ModelProto, **options: Any) -> engines.Manifest:
    settings = {"target": "tensorrt-rtx", "precision": "int8", "profiles": (BATCHES,)} | options
    return engines.build(
        save(model, folder), folder / "m.engine", BuildOptions(**settings), Passport(samples=3)
    )


def test_builds_a_plan_with_its_manifest(tmp_path: Path, rng: np.random.Generator) -> None:
    manifest = build(
        tmp_path,
        convnet(rng),
        compute_capabilities=("7.5", "8.6"),
        workspace_mib=256,
        optimization_level=2,
        tf32=False,
        preview_features=("+ALIASED_PLUGIN_IO_10_03",),
    )
    assert (tmp_path / "m.engine").stat().st_size == manifest.engine_bytes > 10_000
    assert manifest.library == {"name": "tensorrt_rtx", "version": trt.__version__}
    assert [(s.name, s.dtype, s.shape) for s in manifest.inputs] == [
        ("input", "float32", (None, 3, 8, 8))
    ]
    assert manifest.profiles == (BATCHES,)
    assert manifest.build["typing"] == "strong"
    assert manifest.build["flags"] == []  # TF32 was cleared, nothing else is set
    assert manifest.options["compute_capabilities"] == ["7.5", "8.6"]
    assert manifest.coverage is not None
    assert manifest.coverage.source == "TensorRT-RTX builder's list of layers"
    assert manifest == engines.read_manifest(tmp_path / "m.engine")


def test_coverage_without_a_gpu(tmp_path: Path, rng: np.random.Generator) -> None:
    """The builder lists its kernels; for SM 7.5 it has no INT8 convolution."""
    ampere = build(tmp_path, convnet(rng), compute_capabilities=("8.6", "8.9")).coverage
    assert ampere is not None
    assert ampere.int8_layers == ("conv1_node", "conv2_node")
    assert ampere.float_layers == ("tail_node",)
    turing = build(tmp_path, convnet(rng), compute_capabilities=("7.5", "8.6")).coverage
    assert turing is not None
    assert [node.name for node in turing.broken_promises] == ["conv1_node", "conv2_node"]


def test_tf32_is_set_unless_told_otherwise(tmp_path: Path, rng: np.random.Generator) -> None:
    assert build(tmp_path, convnet(rng)).build["flags"] == ["TF32"]


def test_several_profiles(tmp_path: Path, rng: np.random.Generator) -> None:
    large = Profile(min=shapes(16), opt=shapes(32), max=shapes(32))
    assert build(tmp_path, convnet(rng), profiles=(BATCHES, large)).profiles == (BATCHES, large)


def test_static_model_needs_no_profile(tmp_path: Path, rng: np.random.Generator) -> None:
    manifest = build(tmp_path, convnet(rng, batch=2), profiles=())
    assert manifest.inputs[0].shape == (2, 3, 8, 8)


def test_external_data_is_found(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(
        convnet(rng, batch=1), path, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    options = BuildOptions(target="tensorrt-rtx", precision="int8")
    assert list(engines.build(path, tmp_path / "m.engine", options).onnx["external"]) == ["w.bin"]


def test_every_parser_error_is_in_one_message(tmp_path: Path, rng: np.random.Generator) -> None:
    model = convnet(rng)
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    odd = [node for node in model.graph.node if node.op_type in ("Relu", "Flatten")]
    for number, node in enumerate(odd):
        node.domain, node.op_type = "com.example", f"Odd{number}"
    with pytest.raises(ModelError) as caught:
        build(tmp_path, model)
    assert "(Odd0 relu1_node)" in str(caught.value)
    assert "(Odd1 output_node)" in str(caught.value)
    assert str(caught.value).count("\n") == 0
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"compute_capabilities": ("9.0",)}, UnsupportedError, "SM90 is unknown .* SM86"),
        ({"tactic_sources": ("+CUBLAS",)}, UnsupportedError, "tactic source CUBLAS is unknown"),
        ({"memory_pools_mib": {"L2": 1}}, UnsupportedError, "memory pool L2 is unknown .*WORKSP"),
        ({"profiles": ()}, ModelError, "'input' has the dynamic shape .* --minShapes"),
        (
            {"profiles": (Profile(min={"x": (1,)}, opt={"x": (1,)}, max={"x": (1,)}),)},
            InputError,
            r"profile names input 'x', expected one of \['input'\]",
        ),
        (
            {"profiles": (Profile(min={}, opt={}, max={}),)},
            InputError,
            "profile lacks the dynamic input 'input'",
        ),
        (
            {
                "profiles": (
                    Profile(
                        min={"input": (1, 4, 8, 8)},
                        opt={"input": (1, 4, 8, 8)},
                        max={"input": (1, 4, 8, 8)},
                    ),
                )
            },
            InputError,
            r"shape \(1, 4, 8, 8\), expected one that fits \(None, 3, 8, 8\)",
        ),
        (
            {"require_int8": 0.95},
            GateMissedError,
            r"54\.3% of the multiply-accumulates run INT8, expected at least 95\.0%; .* tail_node",
        ),
        ({"dla_core": 0}, InputError, "option dla_core is 0 with target tensorrt-rtx"),
    ],
)
def test_what_this_library_cannot_do(
    tmp_path: Path,
    rng: np.random.Generator,
    options: dict[str, Any],
    error: type[BuilderError],
    said: str,
) -> None:
    with pytest.raises(error, match=said):
        build(tmp_path, convnet(rng), **options)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_fp16_needs_a_float16_model(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(UnsupportedError, match="the model has no float16 tensor"):
        build(tmp_path, convnet(rng, quantized=False), precision="fp16")
    with pytest.raises(ModelError, match="no QuantizeLinear or DequantizeLinear nodes"):
        build(tmp_path, convnet(rng, quantized=False))


def test_no_timing_cache_is_said_aloud(
    tmp_path: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "timing.cache"
    with caplog.at_level(logging.WARNING):
        build(tmp_path, convnet(rng), timing_cache=cache)
    assert "has no timing cache" in caplog.text
    assert not cache.exists()


def plan(path: Path, report: Report) -> None:
    options = BuildOptions(target="tensorrt-rtx", precision="int8", profiles=(BATCHES,))
    build_plan(trt, path, read_onnx(path), options, None, report)


def test_progress_counts_to_the_end(tmp_path: Path, rng: np.random.Generator) -> None:
    heard: list[tuple[str, str | None, int, int]] = []
    plan(save(convnet(rng), tmp_path), lambda *event: heard.append(event))
    outer = [event for event in heard if event[1] is None]
    assert {name for name, *_ in outer} == {"Building engine"}
    assert [done for _, _, done, _ in outer] == list(range(outer[-1][3] + 1))
    assert all(0 <= done <= total for _, _, done, total in heard)


@pytest.mark.parametrize("step", [0, 5, 40])
def test_interrupt_stops_the_build_and_leaves_nothing(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    heard = 0

    def interrupt(*_: object) -> None:
        nonlocal heard
        heard += 1
        if heard == step + 1:
            os.kill(os.getpid(), signal.SIGINT)

    class Shown:
        def __enter__(self) -> Report:
            return interrupt

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(building, "show_progress", lambda what, wanted: Shown())
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, convnet(rng))
    assert signal.getsignal(signal.SIGINT) is before
    assert heard < step + 45  # it stopped soon after, not at the end
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_an_error_while_reporting_comes_out(tmp_path: Path, rng: np.random.Generator) -> None:
    def broken(*_: object) -> None:
        raise BrokenPipeError("nobody listens")

    with pytest.raises(BrokenPipeError, match="nobody listens"):
        plan(save(convnet(rng), tmp_path), broken)


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")
def test_loading_without_a_gpu_is_one_sentence(tmp_path: Path, rng: np.random.Generator) -> None:
    build(tmp_path, convnet(rng))
    with pytest.raises(UnsupportedError) as caught:
        engines.load(tmp_path / "m.engine")
    assert "finds no NVIDIA GPU on this machine, expected one to run the engine" in str(
        caught.value
    )
    assert caught.value.exit_code == 2


def test_a_damaged_plan_is_found_before_the_gpu_is_asked_for(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    build(tmp_path, convnet(rng))
    engine = tmp_path / "m.engine"
    engine.write_bytes(engine.read_bytes()[:-1])
    with pytest.raises(EngineError, match="bytes, expected"):
        engines.load(engine)


@pytest.mark.skipif(has_module("tensorrt"), reason="TensorRT is installed")
def test_tensorrt_without_the_library(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(MissingLibraryError, match=r"pip install '\.\[tensorrt\]'") as caught:
        build(tmp_path, convnet(rng), target="tensorrt")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_float16_model_builds_strongly_typed(
    tmp_path: Path, rng: np.random.Generator, precision: str
) -> None:
    model = quantization.to_float16(convnet(rng, quantized=precision == "int8")).model
    manifest = build(tmp_path, model, precision=precision)
    assert manifest.build["typing"] == "strong"
