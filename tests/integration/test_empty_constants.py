"""Constants without elements, as runtimes read them once they are prepared."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from engines.openvino.build import compiled_call
from engines.options import BuildOptions
from quantization import prepare
from tests.odd_models import run
from tests.unit.quantization.test_prepare_empties import chosen, growing

pytest.importorskip("openvino")


@pytest.mark.parametrize("model", [growing(), chosen()], ids=["growing", "chosen"])
def test_openvino_computes_them(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """It reads a stored constant of shape (0, 4) as a scalar, and refuses both."""
    feeds = {"x": rng.standard_normal((5, 4)).astype(np.float32)}
    call = compiled_call(prepare(model), BuildOptions(target="cpu", precision="fp32"))
    np.testing.assert_allclose(call(feeds)["y"], run(model, feeds)[0], rtol=1e-6)
