"""What placement says of INT8 and what the engine runs are shares of the same work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from build_engine import build

LENGTH = 12
TEXT = """
<ir_version: 8, opset_import: ["": 17]>
positions (float[N,L,32] x) => (float[N,L,16] y)
{
    s = Shape (x) l = Gather (s, one) p = Slice (table, zero, l, one) a = Add (x, p)
    h = MatMul (a, w0) r = Relu (h)
    t = Loop (three, yes, r) <body = turn (int64 i, bool c, float[N,L,32] v)
        => (bool o, float[N,L,32] z) { o = Identity (c) m = MatMul (v, w1) z = Tanh (m) }>
    y = MatMul (t, w2)
}
"""


@pytest.mark.parametrize("target", ["cpu", "tensorrt-rtx"])
def test_free_lengths_count_as_in_the_samples(
    target: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    """A table of 16 positions, shorter than what stands for free lengths, and a loop in float."""
    pytest.importorskip("openvino" if target == "cpu" else "tensorrt_rtx")
    model = parser.parse_model(TEXT)
    constants: dict[str, np.ndarray] = {"table": rng.normal(size=(1, 16, 32)).astype(np.float32)}
    for name, columns in (("w0", 32), ("w1", 32), ("w2", 16)):
        constants[name] = (rng.normal(size=(32, columns)) / 6).astype(np.float32)
    constants |= {"zero": np.array([0]), "one": np.array([1])}
    constants |= {"three": np.array(3), "yes": np.array(True)}
    model.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in constants.items())
    onnx.save(model, tmp_path / "m.onnx")
    feeds = [{"x": rng.normal(size=(1, LENGTH, 32)).astype(np.float32)} for _ in range(8)]
    result = build(tmp_path / "m.onnx", tmp_path / "o/m.engine", calib_data=feeds, target=target)
    coverage = result.manifest.coverage
    assert coverage is not None
    work = {node.op_type: node.macs for node in coverage.nodes}
    assert work == {"MatMul": LENGTH * 32 * 16, "Loop": 3 * LENGTH * 32 * 32}
    said = result.placement["int8_mac_share"]
    assert said == pytest.approx(coverage.int8_mac_share) == pytest.approx(1.5 / 4.5)
