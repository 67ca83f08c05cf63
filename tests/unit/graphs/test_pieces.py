"""A model file in pieces is the model file."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from graphs.pieces import pieces
from tests.networks import NETWORKS


def whole(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))


def odd() -> onnx.ModelProto:
    """Functions, bodies, metadata, a sparse weight, empty and large tensors."""
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "own" : 1], producer_name: "a", domain: "d">
        odd (float[N,4] x, bool c) => (float[N,4] y) {
            h = own.twice (x)
            y = If (c) <
                then_branch = g1 () => (float[N,4] t) { t = Identity (h) },
                else_branch = g2 () => (float[N,4] e) { e = Neg (h) }
            >
        }
        <domain: "own", opset_import: ["" : 17]> twice (a) => (b) { b = Add (a, a) }"""
    )
    model.metadata_props.add(key="k", value="v")
    model.graph.doc_string = "said"
    for name, shape in (("none", (0,)), ("some", (3, 200)), ("large", (70, 70))):
        value = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("sparse", TensorProto.FLOAT, [1], [2.0]),
        helper.make_tensor("places", TensorProto.INT64, [1], [3]),
        [9],
    )
    model.graph.sparse_initializer.append(sparse)
    return model


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_networks(name: str) -> None:
    model = NETWORKS[name]()
    assert b"".join(pieces(model)) == whole(model)


def test_everything_that_a_model_may_hold() -> None:
    assert b"".join(pieces(odd())) == whole(odd())
    assert b"".join(pieces(onnx.ModelProto(ir_version=8))) == whole(onnx.ModelProto(ir_version=8))


def test_fields_of_a_newer_onnx_are_kept() -> None:
    field = bytes([0xFA, 0x7F, 3]) + b"new"  # number 2047, which no version has yet
    for changed in (odd(), odd()):
        changed.MergeFromString(field)
        assert b"".join(pieces(changed)) == whole(changed)
    inside = odd()
    inside.graph.MergeFromString(field)
    assert b"".join(pieces(inside)) == whole(inside)
    assert field in whole(inside)


def test_no_piece_holds_more_than_one_tensor() -> None:
    model = odd()
    weights = [
        helper.make_tensor(f"w{i}", TensorProto.FLOAT, [5000], [1.0] * 5000) for i in range(9)
    ]
    model.graph.initializer.extend(weights)
    assert max(map(len, pieces(model))) < 5000 * 4 + 100
