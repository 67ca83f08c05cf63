"""A decoder whose past is empty at first is built and runs, with and without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from build_engine import build

TEXT = """
<ir_version: 8, opset_import: ["": 17]>
decoder (float[N,S,32] x, float[N,2,P,16] past) => (float[N,S,32] y, float[N,2,T,16] present)
{
    k = MatMul (x, wk) k4 = Reshape (k, heads) kh = Transpose <perm=[0,2,1,3]> (k4)
    present = Concat <axis=2> (past, kh)
    q = MatMul (x, wq) q4 = Reshape (q, heads) qh = Transpose <perm=[0,2,1,3]> (q4)
    kt = Transpose <perm=[0,1,3,2]> (present) s = MatMul (qh, kt) p = Softmax <axis=-1> (s)
    o = MatMul (p, present) o4 = Transpose <perm=[0,2,1,3]> (o) flat = Reshape (o4, joined)
    y = MatMul (flat, wo)
}
"""


def decoder(rng: np.random.Generator) -> onnx.ModelProto:
    model = parser.parse_model(TEXT)
    constants = {name: rng.normal(size=(32, 32)) / 6 for name in ("wk", "wq", "wo")}
    stored = {name: value.astype(np.float32) for name, value in constants.items()}
    stored |= {"heads": np.array([0, -1, 2, 16]), "joined": np.array([0, -1, 32])}
    model.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in stored.items())
    return model


@pytest.mark.parametrize("lengths", [(0, 0), (0, 3)], ids=["always", "at first"])
@pytest.mark.parametrize("target", ["cpu", "tensorrt-rtx"])
def test_an_empty_past(
    target: str, lengths: tuple[int, ...], tmp_path: Path, rng: np.random.Generator
) -> None:
    pytest.importorskip("openvino" if target == "cpu" else "tensorrt_rtx")
    onnx.save(decoder(rng), tmp_path / "m.onnx")

    def feed(length: int) -> dict[str, np.ndarray]:
        shapes = {"x": (1, 5, 32), "past": (1, 2, length, 16)}
        return {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}

    feeds = [feed(length) for length in lengths * 6]
    result = build(tmp_path / "m.onnx", tmp_path / "o/m.engine", calib_data=feeds, target=target)
    if target == "cpu":
        assert not result.manifest.measured["runtime"]["unmeasured"]
        with result.load() as engine:
            for length in lengths:
                assert engine(feed(length))["present"].shape == (1, 2, length + 5, 16)
    else:
        (profile,) = result.manifest.profiles
        assert (profile.min["past"][2], profile.max["past"][2]) == (min(lengths), max(lengths))
