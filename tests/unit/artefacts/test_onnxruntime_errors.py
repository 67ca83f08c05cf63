"""What onnxruntime says becomes one sentence, with what helps."""

from __future__ import annotations

import onnx
import pytest
from onnx import parser

from artefacts.errors import ModelError
from artefacts.onnxruntime_errors import onnxruntime_errors, refusal
from calibrators import observe
from quantization.measure.execution import load_onnxruntime

pytest.importorskip("onnxruntime", reason="needs pip install '.[cpu]'")


def plugin() -> onnx.ModelProto:
    return parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "my" : 1]> '
        "g (float[N,4] x) => (float[N,M] y) { y = my.Plugin (x) }"
    )


def test_an_operator_of_a_plugin_is_told_apart_from_a_damaged_model() -> None:
    for refused in (lambda: load_onnxruntime(plugin()), lambda: observe(plugin(), ["y"], [])):
        with pytest.raises(ModelError, match=r"my:Plugin.*ONNX's own, or let TensorRT calibrate"):
            refused()


def test_a_type_that_an_operator_has_no_kernel_for_is_named() -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> '
        "g (int64[N,4] x) => (int64[N,4] y) { y = Relu (x) }"
    )
    with pytest.raises(ModelError, match=r"Relu\(14\).*cast what the node reads, e.g. int64"):
        load_onnxruntime(model)


def test_other_reasons_are_one_line() -> None:
    found = refusal("graph 'g'", "run", ValueError("wrong\nand more"))
    assert found == (
        "onnxruntime cannot run graph 'g' (wrong), expected a model it supports; check it with "
        "onnx.checker and the samples with its inputs"
    )
    assert "(ValueError)" in refusal("graph 'g'", "run", ValueError())
    assert ValueError in onnxruntime_errors()
