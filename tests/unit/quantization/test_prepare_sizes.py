"""Sizes that an exporter computes are followed, where torch.export's Reshape says so, too."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper, parser

from graphs.identity import graph_hash
from graphs.view import GraphView
from quantization import prepare
from tests.odd_models import run

HEADS = (
    "b = Shape <start=0, end=1> (x) l = Shape <start=1, end=2> (x) "
    "t = Concat <axis=0> (b, l, four, eight) y = Reshape <allowzero={zero}> (x, t)"
)


def model_of(body: str, made: str, **constants: list[int]) -> onnx.ModelProto:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 18]> g (float[N,L,32] x) => (float[{made}] y) '
        f"{{ {body} }}"
    )
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), name)
        for name, value in constants.items()
    )
    return model


def test_a_target_without_zeros_is_constant_whatever_zero_means(rng: np.random.Generator) -> None:
    model = model_of(HEADS.format(zero=1), "N,L,4,8", four=[4], eight=[8])
    prepared = prepare(model)
    (node,) = GraphView(prepared).nodes
    assert node.op_type == "Reshape"
    assert not node.attributes
    np.testing.assert_array_equal(GraphView(prepared).constant(node.inputs[1]), [0, 0, 4, 8])
    assert graph_hash(prepare(prepared)) == graph_hash(prepared)
    x = rng.standard_normal((2, 5, 32)).astype(np.float32)
    np.testing.assert_array_equal(run(prepared, {"x": x})[0], x.reshape(2, 5, 4, 8))


def test_a_target_with_a_size_of_zero_keeps_what_zero_means() -> None:
    model = model_of(HEADS.format(zero=1), "N,L,0,8", four=[0], eight=[8])
    found = [node for node in GraphView(prepare(model)).nodes if node.op_type == "Reshape"]
    assert [node.attributes for node in found] == [{"allowzero": 1}]


def test_sizes_are_known_behind_a_target_that_stays_computed() -> None:
    """PyTorch's MultiheadAttention: heads go into the batch, and out of it again."""
    body = (
        "b = Shape <start=0, end=1> (x) l = Shape <start=1, end=2> (x) n = Mul (b, four) "
        "turned = Transpose <perm=[1, 0, 2]> (x) into = Concat <axis=0> (l, n, eight) "
        "heads = Reshape (turned, into) out = Concat <axis=0> (b, four, l, eight) "
        "back = Transpose <perm=[1, 0, 2]> (heads) y = Reshape (back, out)"
    )
    prepared = prepare(model_of(body, "N,A,L,C", four=[4], eight=[8]))
    assert GraphView(prepared).shape("heads") == (None, None, 8)
    (last,) = (node for node in GraphView(prepared).nodes if "y" in node.outputs)
    assert last.op_type == "Reshape"
