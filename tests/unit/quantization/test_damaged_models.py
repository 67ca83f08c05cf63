"""Whatever a file holds: a result or one of our sentences, and never an edit of what was given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import NodeProto

from artefacts.errors import BuilderError
from quantization import load_model, prepare, to_float16
from quantization.foreign.importer import import_quantized
from quantization.foreign.strip import strip
from quantization.lint.lint import lint
from tests.lint_models import BROKEN, lint_model
from tests.odd_models import NAMES, odd_model

_OPS = ("Relu", "Add", "Identity", "Cast", "Reshape", "Constant", "If", "Transpose", "Pad", "Conv")
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "BatchNormalization", "Shape", "Dropout")
_SEQUENCES = ("SplitToSequence", "SequenceConstruct", "SequenceAt", "ConcatFromSequence")
_NUMBERS = st.sampled_from([-(2**62), -1, 0, 1, 7, 2**40])
_RNG = np.random.default_rng(0)
_MODELS = [odd_model(name, _RNG).SerializeToString() for name in NAMES]
_MODELS += [lint_model(*BROKEN[rule]).SerializeToString() for rule in BROKEN]
_STEPS: tuple[Callable[[onnx.ModelProto], Any], ...] = (
    *(prepare, lint, import_quantized, strip, to_float16),
)
_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)


@st.composite
def damaged_bytes(draw: st.DrawFn) -> bytes:
    """A model with bytes changed, cut or doubled."""
    data = bytearray(draw(st.sampled_from(_MODELS)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data) - 1))
        kind = draw(st.sampled_from(["change", "cut", "double", "end"]))
        if kind == "change":
            data[start] = draw(st.integers(0, 255))
        elif kind == "end":
            del data[max(1, start) :]
        else:
            length = draw(st.integers(1, 20))
            piece = data[start : start + length]
            data[start : start + length] = b"" if kind == "cut" else piece * 2
        if not data:
            data = bytearray(b"\0")
    return bytes(data)


@st.composite
def damaged_graph(draw: st.DrawFn) -> onnx.ModelProto:
    """A model whose graph makes no sense any more, or another one."""
    model = onnx.ModelProto.FromString(draw(st.sampled_from(_MODELS)))
    graph = model.graph
    names = [name for node in graph.node for name in node.output]
    names += [t.name for t in graph.initializer] + [v.name for v in graph.input] + [""]
    for _ in range(draw(st.integers(1, 3))):
        node = draw(st.sampled_from(list(graph.node)))
        _damage_node(draw, node, names)
        if graph.initializer and draw(st.booleans()):
            _damage_tensor(draw, draw(st.sampled_from(list(graph.initializer))))
    if draw(st.booleans()):
        model.opset_import[0].version = draw(st.sampled_from([1, 7, 9, 11, 13, 17, 21]))
    return model


def _damage_node(draw: st.DrawFn, node: NodeProto, names: list[str]) -> None:
    kind = draw(st.sampled_from(["input", "output", "op", "attribute", "drop", "short", "domain"]))
    if kind == "input" and node.input:
        node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from(names))
    elif kind == "output" and node.output:
        node.output[draw(st.integers(0, len(node.output) - 1))] = draw(st.sampled_from(names))
    elif kind == "op":
        node.op_type = draw(st.sampled_from(_OPS + _QUANTIZED + _SEQUENCES))
    elif kind == "attribute" and node.attribute:
        attribute = draw(st.sampled_from(list(node.attribute)))
        if attribute.ints:
            attribute.ints[draw(st.integers(0, len(attribute.ints) - 1))] = draw(_NUMBERS)
        else:
            attribute.i = draw(_NUMBERS)
    elif kind == "drop" and node.attribute:
        node.attribute.pop(draw(st.integers(0, len(node.attribute) - 1)))
    elif kind == "short" and node.input:
        del node.input[draw(st.integers(0, len(node.input) - 1)) :]
    elif kind == "domain":
        node.domain = draw(st.sampled_from(["", "my", "ai.onnx.ml", "com.microsoft"]))


def _damage_tensor(draw: st.DrawFn, tensor: onnx.TensorProto) -> None:
    if tensor.dims and draw(st.booleans()):
        index = draw(st.integers(0, len(tensor.dims) - 1))
        tensor.dims[index] = draw(st.sampled_from([0, 1, 5, -1, 2**40]))
    else:
        tensor.data_type = draw(st.sampled_from([0, 1, 2, 3, 6, 7, 8, 9, 10, 16, 22, 30]))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "model.onnx"


def sentence_of(call: Callable[[Any], Any], given: Any) -> str:
    """What a call refuses with, "" where it does not."""
    try:
        call(given)
    except BuilderError as err:
        return str(err)
    return ""


def survive(file: Path, data: bytes) -> None:
    """Every step ends in a result or in a sentence on one line."""
    file.write_bytes(data)
    if refused := sentence_of(load_model, file):
        assert "\n" not in refused
        return
    model = load_model(file)
    before = model.SerializeToString(deterministic=True)
    for step in _STEPS:
        assert "\n" not in sentence_of(step, model)
        assert model.SerializeToString(deterministic=True) == before


@given(data=damaged_bytes())
@settings(max_examples=60, deadline=None, suppress_health_check=_SLOW)
def test_damaged_files(data: bytes, file: Path) -> None:
    survive(file, data)


@given(model=damaged_graph())
@settings(max_examples=120, deadline=None, suppress_health_check=_SLOW)
def test_damaged_graphs(model: onnx.ModelProto, file: Path) -> None:
    survive(file, model.SerializeToString())


def test_nodes_of_too_few_inputs(file: Path) -> None:
    for data in _MODELS:
        model = onnx.ModelProto.FromString(data)
        for number, node in enumerate(model.graph.node):
            for left in range(len(node.input)):
                short = onnx.ModelProto.FromString(data)
                del short.graph.node[number].input[left:]
                survive(file, short.SerializeToString())
