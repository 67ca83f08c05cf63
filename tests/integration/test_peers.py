"""Peers of the accuracy comparison that learn their rounding: the real tools, on a small network.

Each in the environment that ``make bench-accuracy`` makes for it; skipped where that is absent.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from benchmarks.peers.accuracy import PYTHONS, accepted, int8_share, make
from benchmarks.peers.accuracy_ours import OURS
from quantization.measure.execution import load_int8, load_onnxruntime

SYSTEMS = (
    "modelopt-max",
    "quark-cle",
    "quark-adaround",
    "quark-adaquant",
    "aimet-seqmse",
    "aimet-adaround",
)


def network(rng: np.random.Generator) -> onnx.ModelProto:
    """Two convolutions, a mean and a dense layer in front of a softmax."""
    weights = {
        "w1": rng.normal(0, 0.3, (8, 3, 3, 3)),
        "w2": rng.normal(0, 0.2, (8, 8, 3, 3)),
        "w3": rng.normal(0, 0.5, (8, 5)),
    }
    stored = [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="second", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], name="mean"),
        helper.make_node("Flatten", ["e"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w3"], ["g"], name="dense"),
        helper.make_node("Softmax", ["g"], ["y"], name="softmax"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 5])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("system", [*SYSTEMS, *OURS[:3]])
def test_a_system_writes_a_graph_that_tensorrt_takes(
    system: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    peer = system.partition("-")[0]
    if not PYTHONS[peer].exists():
        pytest.skip(f"no {PYTHONS[peer]}: 'make .venv-{peer}' makes it")
    model, rows = network(rng), rng.normal(size=(64, 3, 8, 8)).astype(np.float32)
    onnx.save(model, tmp_path / "model.onnx")
    np.save(tmp_path / "rows.npy", rows)
    output = tmp_path / "int8.onnx"
    before = (tmp_path / "model.onnx").read_bytes()
    run = make(system, tmp_path / "model.onnx", tmp_path / "rows.npy", output, 300)
    assert run is not None
    assert not run.failure, run.output
    assert run.processor_s > 0.1
    assert (tmp_path / "model.onnx").read_bytes() == before  # ModelOpt writes into its input
    int8 = onnx.load(output)
    assert accepted(int8)
    assert int8_share(int8) > 0
    exact = load_onnxruntime(model)({"x": rows})["y"]
    noise = np.sum((load_int8(int8)({"x": rows})["y"] - exact) ** 2)
    assert 10 * np.log10(np.sum(exact**2) / noise) > 20
