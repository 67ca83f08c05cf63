"""What ``engine(...)`` costs over the runtime's own call, on a model that does next to nothing.

    python benchmarks/peers/call_overhead.py [--calls 5000]

Three ways to run the same engine file, one call of each in turn, so that drift hits all alike:

    bare      infer() with nothing handed in or out: the runtime alone
    runtime   infer({"input": x}), as OpenVINO's documentation has it; copies in and out
    engine    engines.load(...)({"input": x}): checks, lock and copies included
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import engines
from engines.openvino.library import DEVICE, core

WARM_UP = 200


def tiny_model() -> onnx.ModelProto:
    """One Mul: input (1, 3, 8, 8) float32 → output = 2 · input."""
    shape = [1, 3, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["input", "two"], ["output"])],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array(2, np.float32), "two")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def interleaved_us(ways: dict[str, Callable[[], object]], calls: int) -> dict[str, list[float]]:
    """Microseconds of each call of each way."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(WARM_UP + calls):
        for name, call in ways.items():
            start = time.perf_counter_ns()
            call()
            if turn >= WARM_UP:
                times[name].append((time.perf_counter_ns() - start) / 1000)
    return times


def measure(calls: int) -> dict[str, dict[str, float]]:
    """Median, p10 and p90 of each way, in microseconds."""
    with tempfile.TemporaryDirectory() as folder:
        model, path = Path(folder) / "tiny.onnx", Path(folder) / "tiny.engine"
        onnx.save(tiny_model(), model)
        engines.build(model, path, engines.BuildOptions(target="cpu", threads=1))
        blob, engine = path.read_bytes(), engines.load(path)
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
    request = core().import_model(io.BytesIO(blob), DEVICE, settings).create_infer_request()
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    assert (engine({"input": x})["output"] == request.infer({"input": x})[0]).all()
    times = interleaved_us(
        {
            "bare": lambda: request.infer({}, share_outputs=True),
            "runtime": lambda: request.infer({"input": x}),
            "engine": lambda: engine({"input": x}),
        },
        calls,
    )
    return {
        name: {f"p{q}": round(float(np.percentile(us, q)), 1) for q in (10, 50, 90)}
        for name, us in times.items()
    }


def main() -> None:
    """Print the figures as JSON, with the overhead of ``engine`` at the median."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=5000)
    found = measure(parser.parse_args().calls)
    overhead = {
        f"engine - {name}": round(found["engine"]["p50"] - found[name]["p50"], 1)
        for name in ("bare", "runtime")
    }
    result = {"us": found, "median overhead in us": overhead}
    sys.stdout.write(f"{json.dumps(result, indent=2)}\n")


if __name__ == "__main__":
    main()
