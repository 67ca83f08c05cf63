"""The stages of ``smoke.py``: each raises where something is wrong, and returns what it saw."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import calibrators
import engines
from artefacts.cuda import cuda_context
from artefacts.errors import BuilderError
from artefacts.libraries import require
from engines import BuildOptions, Profile
from engines.cuda.driver import Cuda
from engines.cuda.memory import live_buffers
from tests.engine_models import convnet, save, scaled_sum
from tests.gpu.smoke_machine import Seen, versions

TOLERANCES = {"fp32": 5e-3, "fp16": 1e-2, "int8": 5e-2}  # TF32 is on; a tie may round either way
BATCH = 4


class SkippedError(Exception):
    """A stage that this machine or release has nothing for; the message says what is missing."""


def cuda(folder: Path) -> Seen:
    """Memory, copies and a captured graph, without TensorRT."""
    given = np.random.default_rng().integers(0, 255, 1 << 20, np.uint8)
    made = Cuda()
    with made.current():
        first, second = made.buffer(given.nbytes), made.buffer(given.nbytes)
        source, result = made.pinned(given.nbytes).array(), made.pinned(given.nbytes).array()
        source[:] = given

        def enqueue() -> bool:
            made.copy_within(second, first.address, given.nbytes)
            return True

        with made.marks() as mark:
            begin = mark()
            made.copy_in(first, source)
            end = mark()
            made.synchronize()
            copied_ms = made.between_ms(begin, end)
            del begin, end
        graph = made.capture(enqueue)
        assert graph is not None, "a copy cannot be captured"
        result[:] = 0
        assert graph.launch(), "the graph cannot be launched"
        made.copy_out(result, second)
        made.synchronize()
        graph.destroy()
    assert (result == given).all(), "copied bytes differ"
    free, total = _memory()
    made.close()
    return {"copy_in_ms": copied_ms, "free_bytes": free, "total_bytes": total}


def fp32_static(folder: Path) -> Seen:
    """A fixed shape in FP32, beside ONNX Runtime."""
    return _built_and_run(folder, "fp32", convnet(_rng(), quantized=False, batch=BATCH))


def int8_static(folder: Path) -> Seen:
    """The same as a Q/DQ model."""
    return _built_and_run(folder, "int8", convnet(_rng(), batch=BATCH))


def int8_dynamic(folder: Path) -> Seen:
    """A range of batches; what the inspector says without and with shapes."""
    seen = _built_and_run(folder, "int8", convnet(_rng()), profiles=(_range(),))
    with engines.load(folder / "m.engine") as engine:
        runner: Any = engine._runner
        engine.warm_up()
        seen["graphs"] = len(runner._graphs)
        for batch in (1, 8, 3, 8, 1, 2):
            engine({"input": _images(batch)})
        seen["device_times"] = engine.device_times({"input": _images(8)})
        seen["layer_times"] = [vars(t) for t in engine.layer_times({"input": _images(8)})]
        with runner._cuda.current():
            inspector = runner._plan._engine.create_engine_inspector()
            json_format = runner._plan.trt.LayerInformationFormat.JSON
            seen["inspected_without_shapes"] = inspector.get_engine_information(json_format)
            seen["inspected"] = runner._plan.inspect(runner._execution.context)
            seen["scratch_bytes"] = runner._plan.scratch_bytes
    return seen


def mismatched_inputs(folder: Path) -> Seen:
    """Inputs that do not fit each other or the profile: an error each, and the engine goes on."""
    low, high = (dict.fromkeys(("left", "right"), (n, 4)) for n in (1, 8))
    options = BuildOptions(
        target="tensorrt", profiles=(Profile(min=low, opt=high, max=high),), tf32=False
    )
    engines.build(save(scaled_sum(), folder), folder / "m.engine", options)
    said = []

    def request(left: int, right: int) -> dict[str, Any]:
        return {"left": np.ones((left, 4), np.float32), "right": np.ones((right, 4), np.int64)}

    with engines.load(folder / "m.engine") as engine:
        for left, right in ((2, 3), (9, 9), (3, 1)):
            try:
                shape = engine(request(left, right))["output"].shape
                said.append(f"{left} and {right} rows: no error, output {shape}")
            except BuilderError as err:
                said.append(f"{left} and {right} rows: {type(err).__name__}: {err}")
            assert (engine(request(2, 2))["output"] == 3).all()
    return {"said": said}


def threads(folder: Path) -> Seen:
    """Clones in threads give what one engine gives."""
    _built_and_run(folder, "int8", convnet(_rng()), profiles=(_range(),))
    inputs = [_images(1 + index) for index in range(6)]
    wrong: list[int] = []
    with engines.load(folder / "m.engine") as engine:
        expected = [engine({"input": x})["output"] for x in inputs]

        def work(index: int) -> None:
            with engine.clone() as mine:
                answers = [mine({"input": inputs[index]})["output"] for _ in range(100)]
            wrong.extend(index for answer in answers if (answer != expected[index]).any())

        started = [threading.Thread(target=work, args=(index,)) for index in range(len(inputs))]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
    assert not wrong, f"threads {sorted(set(wrong))} got other answers"
    return {"threads": len(inputs)}


def reload(folder: Path) -> Seen:
    """Closed and loaded again twenty times: memory stays where it was."""
    _built_and_run(folder, "int8", convnet(_rng()), profiles=(_range(),))
    free = []
    for _ in range(20):
        with engines.load(folder / "m.engine") as engine:
            engine.warm_up()
        gc.collect()
        free.append(_memory()[0])
    assert live_buffers() == 0, f"{live_buffers()} buffers are left"
    return {"free_bytes": free}


def calibration(folder: Path) -> Seen:
    """TensorRT's own calibrators, where the library has them; the caches they wrote."""
    seen = {}
    for method in ("entropy", "minmax"):
        cache = folder / f"{method}.cache"
        seen[method] = _calibrated(folder, method, cache)
        seen[f"{method}_cache"] = cache.read_text(errors="replace")
    return seen


def dla(folder: Path) -> Seen:
    """The deep learning accelerator of a Jetson, where there is one."""
    trt = require("tensorrt", extra="tensorrt")
    cores = trt.Builder(trt.Logger(trt.Logger.WARNING)).num_DLA_cores
    if not cores:
        raise SkippedError("no DLA here, or none that this release drives")
    shape = {"input": (BATCH, 3, 8, 8)}
    seen = _calibrated(
        folder,
        "entropy",
        folder / "dla.cache",
        dla_core=cores - 1,
        allow_gpu_fallback=True,
        profiles=(Profile(min=shape, opt=shape, max=shape),),
    )
    return seen | {"cores": cores}


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _images(batch: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(batch).uniform(-3, 3, (batch, 3, 8, 8)).astype(np.float32)


def _range() -> Profile:
    low, usual, high = ({"input": (n, 3, 8, 8)} for n in (1, BATCH, 8))
    return Profile(min=low, opt=usual, max=high)


def _memory() -> tuple[int, int]:
    context = cuda_context()
    with context.current():
        free, total = context.driver.mem_get_info()
    return int(free), int(total)


def _built_and_run(folder: Path, precision: Any, model: onnx.ModelProto, **options: Any) -> Seen:
    """Build, load, run, compare with ONNX Runtime on the same graph; what the manifest says."""
    path = save(model, folder)
    settings = BuildOptions(target="tensorrt", precision=precision, **options)
    manifest = engines.build(path, folder / "m.engine", settings)
    x = _images(BATCH)
    session = require("onnxruntime", extra="cpu").InferenceSession(str(path))
    expected = session.run(None, {"input": x})[0]
    with engines.load(folder / "m.engine") as engine:
        answers = [engine({"input": x})["output"] for _ in range(5)]
    differs = float(np.abs(answers[0] - expected).max() / np.abs(expected).max())
    assert all((answer == answers[0]).all() for answer in answers), "repeated calls differ"
    limit = 2 * TOLERANCES[precision] if settings.implicit else TOLERANCES[precision]
    assert differs < limit, f"outputs differ from ONNX Runtime by {differs:.2%}"
    coverage = manifest.coverage.to_json() if manifest.coverage else None
    return {"build": dict(manifest.build), "coverage": coverage, "differs": differs}


def _calibrated(folder: Path, method: str, cache: Path, **options: Any) -> Seen:
    from calibrators.tensorrt.calibrator import calibrator

    if not hasattr(require("tensorrt", extra="tensorrt"), "IInt8EntropyCalibrator2"):
        raise SkippedError("this release has no calibrators")
    model = convnet(_rng(), quantized=False, float_tail=False)
    specs = calibrators.input_specs(model)
    samples = calibrators.random_samples(specs, count=32, seed=0)
    made, feeder = calibrator(
        method, calibrators.batches(samples, BATCH, inputs=specs), cache=cache
    )
    options = {"profiles": (_range(),)} | options
    with feeder:
        return _built_and_run(
            folder,
            "int8",
            model,
            calibrator=made,
            calibration_shapes=feeder.shapes,
            **options,
        )


STAGES: tuple[Callable[[Path], Seen], ...] = (
    versions,
    cuda,
    fp32_static,
    int8_static,
    int8_dynamic,
    mismatched_inputs,
    threads,
    reload,
    calibration,
    dla,
)
