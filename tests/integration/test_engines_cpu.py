"""The cpu target end to end: OpenVINO builds, a fresh process loads, bad input is refused."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import engines
from artefacts.errors import (
    GateMissedError,
    InputError,
    ModelError,
    RequestError,
    UnsupportedError,
)
from engines import BuildOptions, Profile
from tests.engine_models import convnet, save, scaled_sum

ROOT = Path(__file__).parents[2]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Built:
    """An engine and the model it was built from."""

    model: Path
    engine: Path
    manifest: engines.Manifest


def build(
    folder: Path,
    model: onnx.ModelProto,
    passport: dict[str, object] | None = None,
    **options: object,
) -> Built:
    path, engine = save(model, folder), folder / "model.engine"
    settings = {"target": "cpu", "threads": 2} | options
    manifest = engines.build(path, engine, BuildOptions(**settings), passport or {})  # type: ignore[arg-type]
    return Built(path, engine, manifest)


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Built:
    model = convnet(np.random.default_rng())
    passport: dict[str, object] = {"preprocess": {"layout": "NCHW"}}
    return build(tmp_path_factory.mktemp("int8"), model, passport, precision="int8")


def images(rng: np.random.Generator, batch: int) -> Floats:
    return rng.standard_normal((batch, 3, 8, 8)).astype(np.float32)


def reference(model: Path, feeds: dict[str, NDArray]) -> Floats:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["output"], feeds)[0]


def test_fp32_agrees_with_onnxruntime(tmp_path: Path, rng: np.random.Generator) -> None:
    built = build(tmp_path, convnet(rng, quantized=False))
    feeds = {"input": images(rng, 3)}
    with engines.load(built.engine) as engine:
        np.testing.assert_allclose(
            engine(feeds)["output"], reference(built.model, feeds), rtol=1e-4, atol=1e-5
        )
    assert built.manifest.coverage is not None
    assert built.manifest.coverage.int8_layers == ()


def test_int8_runs_int8_and_agrees_with_onnxruntime(int8: Built, rng: np.random.Generator) -> None:
    cover = int8.manifest.coverage
    assert cover is not None
    assert cover.int8_layers == ("conv1_node", "conv2_node")
    assert cover.float_layers == ("tail_node",)
    assert cover.broken_promises == ()
    assert 0.5 < cover.int8_mac_share < 0.6
    feeds = {"input": images(rng, 4)}
    with engines.load(int8.engine) as engine:
        found, expected = engine(feeds)["output"], reference(int8.model, feeds)
    # One step of the inner quantizer is 4/127; ties may round differently before the tail.
    assert np.abs(found - expected).max() < 0.05
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999


def test_a_fresh_process_gives_the_same_bits(
    int8: Built, rng: np.random.Generator, tmp_path: Path
) -> None:
    x = images(rng, 5)
    np.save(tmp_path / "x.npy", x)
    program = (
        "import sys, numpy as np, engines\n"
        "engine, x, y = sys.argv[1:]\n"
        "np.save(y, engines.load(engine)({'input': np.load(x)})['output'])\n"
    )
    files = [int8.engine, tmp_path / "x.npy", tmp_path / "y.npy"]
    subprocess.run([sys.executable, "-c", program, *files], check=True, cwd=ROOT)
    with engines.load(int8.engine) as engine:
        here = engine({"input": x})["output"]
    assert np.load(tmp_path / "y.npy").tobytes() == here.tobytes()


def test_what_an_engine_tells_of_itself(int8: Built) -> None:
    with engines.load(int8.engine) as engine:
        (spec,) = engine.inputs
        assert (spec.name, spec.dtype, spec.shape) == ("input", "float32", (None, 3, 8, 8))
        assert [s.shape for s in engine.outputs] == [(None, 16)]
        assert engine.preprocess == {"layout": "NCHW"}
        assert engine.manifest == int8.manifest
        assert engine.manifest.options["threads"] == 2
        engine.warm_up()


def test_every_batch_size_gives_the_same_rows(int8: Built, rng: np.random.Generator) -> None:
    x = images(rng, 6)
    with engines.load(int8.engine) as engine:
        whole = engine({"input": x})["output"]
        for batch in (1, 2, 3):
            parts = [engine({"input": x[i : i + batch]})["output"] for i in range(0, 6, batch)]
            np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-6)


def test_static_profile_makes_a_static_engine(tmp_path: Path, rng: np.random.Generator) -> None:
    shape = {"input": (2, 3, 8, 8)}
    built = build(tmp_path, convnet(rng), profiles=(Profile(min=shape, opt=shape, max=shape),))
    with engines.load(built.engine) as engine:
        assert engine.inputs[0].shape == (2, 3, 8, 8)
        assert engine({"input": images(rng, 2)})["output"].shape == (2, 16)
        with pytest.raises(RequestError, match=r"shape \(3, 3, 8, 8\), expected \(2, 3, 8, 8\)"):
            engine({"input": images(rng, 3)})


def test_batch_over_the_profile_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    low, high = {"input": (1, 3, 8, 8)}, {"input": (4, 3, 8, 8)}
    built = build(tmp_path, convnet(rng), profiles=(Profile(min=low, opt=low, max=high),))
    with engines.load(built.engine) as engine:
        with pytest.raises(RequestError) as caught:
            engine({"input": images(rng, 5)})
        assert "input (5, 3, 8, 8), expected input (1, 3, 8, 8) to (4, 3, 8, 8)" in str(
            caught.value
        )
        assert engine({"input": images(rng, 4)})["output"].shape == (4, 16)
        engine.warm_up(calls=1)


def test_fp16_says_what_really_runs(
    tmp_path: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        built = build(tmp_path, convnet(rng, quantized=False), precision="fp16")
    capabilities = built.manifest.device["capabilities"]
    halves = {"FP16": "f16", "BF16": "bf16"}
    expected = next((halves[c] for c in ("FP16", "BF16") if c in capabilities), "f32")
    assert built.manifest.build["inference_precision"] == expected
    warned = "has no 16-bit floating-point arithmetic: the fp16 engine runs float32" in caplog.text
    assert warned == (expected == "f32")


# Requests


def test_arrays_of_every_layout_give_the_same(int8: Built, rng: np.random.Generator) -> None:
    import torch

    x = images(rng, 2)
    frozen = x.copy()
    frozen.flags.writeable = False
    wide = np.zeros((2, 3, 8, 16), np.float32)
    wide[..., ::2] = x
    with engines.load(int8.engine) as engine:
        expected = engine({"input": x})["output"]
        layouts = {
            "Fortran order": np.asfortranarray(x),
            "strided": wide[..., ::2],
            "NHWC view": np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
            "read-only": frozen,
            "reversed twice": x[::-1].copy()[::-1],
            "torch": torch.from_numpy(x),
            "torch, strided": torch.from_numpy(wide)[..., ::2],
        }
        for layout, array in layouts.items():
            assert (engine({"input": array})["output"] == expected).all(), layout


def test_wrong_requests_are_refused_and_harm_nothing(int8: Built, rng: np.random.Generator) -> None:
    import torch

    x = images(rng, 2)
    cases: list[tuple[object, str]] = [
        ({}, r"lacks the inputs \['input'\]"),
        ({"image": x}, r"lacks the inputs \['input'\] and has the unknown \['image'\]"),
        ({"input": x, "more": x}, r"unknown \['more'\], expected exactly \['input'\]"),
        (x, "request is a ndarray, expected a mapping"),
        ({"input": x.astype(np.float64)}, "has dtype float64, expected float32"),
        ({"input": x.astype(">f4")}, "has dtype >f4, expected float32"),
        ({"input": x.astype(np.int8)}, "has dtype int8, expected float32"),
        ({"input": x[0]}, r"shape \(3, 8, 8\), expected \(any, 3, 8, 8\)"),
        ({"input": x[:, :2]}, r"shape \(2, 2, 8, 8\), expected \(any, 3, 8, 8\)"),
        ({"input": x[:0]}, r"shape \(0, 3, 8, 8\), expected .* first dimension that is not empty"),
        ({"input": x.tolist()}, "is a list, expected a numpy array or another DLPack tensor"),
        ({"input": None}, "is a NoneType"),
        ({"input": torch.zeros(2, 3, 8, 8, requires_grad=True)}, "cannot be read by DLPack"),
        ({"input": torch.zeros(2, 3, 8, 8, dtype=torch.float16)}, "has dtype float16"),
        ({"input": torch.zeros(2, 3, 8, 8, dtype=torch.bfloat16)}, "cannot be read by DLPack"),
    ]
    with engines.load(int8.engine) as engine:
        before = engine({"input": x})["output"]
        for request, said in cases:
            with pytest.raises(RequestError, match=said):
                engine(request)  # type: ignore[arg-type]
            assert (engine({"input": x})["output"] == before).all(), said


def test_nan_passes_and_does_not_stay(tmp_path: Path, rng: np.random.Generator) -> None:
    """A value is the model's business: here it reaches the output, a ReLU may swallow it."""
    clean = rng.standard_normal((2, 4)).astype(np.float32)
    dirty = clean.copy()
    dirty[0, 1] = np.nan
    right = np.zeros((2, 4), np.int64)
    with engines.load(build(tmp_path, scaled_sum()).engine) as engine:
        before = engine({"left": clean, "right": right})["output"]
        found = engine({"left": dirty, "right": right})["output"]
        assert np.argwhere(np.isnan(found)).tolist() == [[0, 1]]
        assert (engine({"left": clean, "right": right})["output"] == before).all()


def test_what_only_the_runtime_can_see_is_a_request_error(tmp_path: Path) -> None:
    built = build(tmp_path, scaled_sum())
    left, right = np.ones((2, 4), np.float32), np.ones((2, 4), np.int64)
    with engines.load(built.engine) as engine:
        with pytest.raises(RequestError, match="request fails in OpenVINO"):
            engine({"left": left, "right": np.ones((3, 4), np.int64)})
        assert (engine({"left": left, "right": right})["output"] == 3).all()


def test_no_memory_is_an_error_and_the_engine_goes_on(
    int8: Built, rng: np.random.Generator
) -> None:
    x = images(rng, 1)
    with engines.load(int8.engine) as engine:
        before = engine({"input": x})["output"]
        with pytest.raises(UnsupportedError, match="memory is exhausted"):
            engine({"input": np.broadcast_to(x, (1 << 40, 3, 8, 8))})
        assert (engine({"input": x})["output"] == before).all()


def identity(kind: int) -> onnx.ModelProto:
    """A scalar in, the same out."""
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", kind, [])],
        [helper.make_tensor_value_info("y", kind, [])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"]
)
def test_scalars_of_every_dtype(tmp_path: Path, dtype: str) -> None:
    built = build(tmp_path, identity(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))
    with engines.load(built.engine) as engine:
        assert [s.dtype for s in (*engine.inputs, *engine.outputs)] == [dtype, dtype]
        found = engine({"x": np.array(1, dtype)})["y"]
        assert (found.dtype, found.shape, found) == (np.dtype(dtype), (), 1)


def test_a_type_that_numpy_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="tensor 'x' has the type bf16, which numpy does not have"):
        build(tmp_path, identity(onnx.TensorProto.BFLOAT16))


def test_outputs_are_copies_unless_asked(int8: Built, rng: np.random.Generator) -> None:
    first, second = images(rng, 2), images(rng, 2)
    with engines.load(int8.engine) as engine:
        kept = engine({"input": first})["output"]
        value = kept.copy()
        lent = engine({"input": first}, copy=False)["output"]
        assert (lent == value).all()
        engine({"input": second})
        assert (kept == value).all()
        assert (lent != value).any()
        kept[:] = 0  # the caller's own


def test_the_callers_array_is_never_written(int8: Built, rng: np.random.Generator) -> None:
    x = images(rng, 2)
    before = x.copy()
    with engines.load(int8.engine) as engine:
        engine({"input": x})
    assert (x == before).all()


def test_closed_engines_say_so(int8: Built, rng: np.random.Generator) -> None:
    engine = engines.load(int8.engine)
    other = engine.clone()
    engine.close()
    engine.close()
    with pytest.raises(RequestError, match="engine is closed"):
        engine({"input": images(rng, 1)})
    with pytest.raises(RequestError, match="engine is closed"):
        engine.clone()
    with other:
        assert other({"input": images(rng, 1)})["output"].shape == (1, 16)


def test_closing_while_threads_call_ends_them_with_the_sentence(
    int8: Built, rng: np.random.Generator
) -> None:
    engine, x, said = engines.load(int8.engine), images(rng, 4), []

    def work() -> None:
        try:
            while True:
                engine({"input": x})
        except RequestError as err:
            said.append(str(err))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    engine({"input": x})
    engine.close()
    for thread in threads:
        thread.join(timeout=60)
    assert said == ["engine is closed, expected an open one; load it again"] * 4


def test_loading_and_calling_keep_memory_flat(int8: Built, rng: np.random.Generator) -> None:
    def resident_mib() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def cycle() -> None:
        for _ in range(20):
            with engines.load(int8.engine) as engine:
                engine({"input": images(rng, 3)})

    cycle()
    before = resident_mib()
    cycle()
    assert resident_mib() - before < 8


def _call_in_child(engine: engines.Engine, x: Floats, answers: multiprocessing.Queue) -> None:
    try:
        engine({"input": x})
    except RequestError as err:
        answers.put(str(err))
    engine.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_is_told_to_load_its_own(int8: Built, rng: np.random.Generator) -> None:
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    with engines.load(int8.engine) as engine:
        x = images(rng, 1)
        before = engine({"input": x})["output"]
        child = fork.Process(target=_call_in_child, args=(engine, x, answers))
        child.start()
        said = answers.get(timeout=30)
        child.join(timeout=30)
        assert child.exitcode == 0
        assert f"loaded in process {os.getpid()} and called in {child.pid}" in said
        assert (engine({"input": x})["output"] == before).all()


@pytest.mark.parametrize("cloned", [False, True])
def test_threads_get_their_own_answers(int8: Built, rng: np.random.Generator, cloned: bool) -> None:
    inputs = [images(rng, 1 + i % 3) for i in range(8)]
    wrong: list[int] = []
    with engines.load(int8.engine) as engine:
        expected = [engine({"input": x})["output"] for x in inputs]

        def work(index: int) -> None:
            mine = engine.clone() if cloned else engine
            answers = [mine({"input": inputs[index]})["output"] for _ in range(20)]
            wrong.extend(index for answer in answers if (answer != expected[index]).any())
            if cloned:
                mine.close()

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


# Builds


def test_the_gate_holds_and_leaves_nothing(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(GateMissedError) as caught:
        build(tmp_path, convnet(rng), precision="int8", require_int8=0.95)
    assert "54.3% of the multiply-accumulates run INT8, expected at least 95.0%" in str(
        caught.value
    )
    assert "tail_node" in str(caught.value)
    assert caught.value.exit_code == 1
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    build(tmp_path, convnet(rng, float_tail=False), precision="int8", require_int8=0.95)


def test_int8_of_a_float_model_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(ModelError, match="no QuantizeLinear or DequantizeLinear nodes"):
        build(tmp_path, convnet(rng, quantized=False), precision="int8")
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_an_operator_that_openvino_lacks_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    model = convnet(rng, quantized=False)
    model.graph.node[-1].domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    with pytest.raises(ModelError, match=r"refused by OpenVINO .*com\.example"):
        build(tmp_path, model)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("size", [0, 10, 500, -10])
def test_truncated_models_are_refused(tmp_path: Path, rng: np.random.Generator, size: int) -> None:
    path = save(convnet(rng), tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelError, match="cannot be read"):
        engines.build(path, tmp_path / "m.engine", BuildOptions(target="cpu"), {})
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_external_data_stays_in_its_folder(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "m.onnx"
    model = convnet(rng, quantized=False)
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    manifest = engines.build(path, tmp_path / "m.engine", BuildOptions(target="cpu"), {})
    assert list(manifest.onnx["external"]) == ["w.bin"]
    stolen = onnx.load(path, load_external_data=False)
    for tensor in stolen.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../secret.bin"
    (path.parent / "w.bin").rename(tmp_path / "secret.bin")
    path.write_bytes(stolen.SerializeToString())
    with pytest.raises(ModelError, match="cannot be read"):
        engines.build(path, tmp_path / "m2.engine", BuildOptions(target="cpu"), {})


def test_an_output_folder_that_is_a_file(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="is not writable"):
        engines.build(
            save(convnet(rng), tmp_path), tmp_path / "taken" / "m.engine", BuildOptions(), {}
        )


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model .*none\.onnx does not exist"):
        engines.build(tmp_path / "none.onnx", tmp_path / "m.engine", BuildOptions(), {})


def test_importing_openvino_reports_nothing_to_anyone(int8: Built, tmp_path: Path) -> None:
    program = "import sys, engines; engines.load(sys.argv[1])"
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("CI", None)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, int8.engine],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert list(tmp_path.iterdir()) == []  # its telemetry would keep a client id here
    assert done.stdout + done.stderr == ""
